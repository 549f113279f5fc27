"""The emulated GPU finds the faults it is there for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, compile_cpp


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_cpp(tmp_path_factory.mktemp("faults") / "faults", ROOT / "tests/csrc/faults.cpp", flags=["-O1"])


@pytest.mark.parametrize(
    "fault, message",
    [("missing", "deadlock: what some threads wait for"), ("different", "threads at different instructions that are for all of them")],
)
def test_barriers_that_not_all_threads_reach(faults: Path, fault: str, message: str) -> None:
    done = subprocess.run([faults, fault], capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr


@pytest.mark.parametrize(
    "what, counted",
    [
        ("stores", ["1 wavefronts, 0 more", "1 wavefronts, 1 more", "1 wavefronts, 31 more"]),  # strides of 1, 2 and 32 words
        ("copies", ["16 sectors, 0 more", "16 sectors, 16 more", "16 sectors, 16 more"]),  # of 16, 32 and 64 bytes
        ("late", ["sometimes"]),
    ],
)
def test_counts(faults: Path, what: str, counted: list[str]) -> None:
    done = subprocess.run([faults, what], capture_output=True, text=True)
    assert done.stdout.splitlines() == counted, done.stderr
