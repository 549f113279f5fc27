"""Shared fixtures: one thread, a printed and settable seed, small noisy image folders."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harness.machine import commit
from tests.reliability.numbers import Row, record, taken

SEED = int(os.environ.get("FASTBSN_SEED", "0"))
RECORD = os.environ.get("FASTBSN_RECORD")
rows: dict[str, Row] = {}


def pytest_report_header() -> str:
    return f"FASTBSN_SEED={SEED}"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def photograph(rng: np.random.Generator, h: int, w: int, channels: int = 1) -> np.ndarray:
    """A piecewise smooth picture [H, W] or [H, W, C] in [0, 1]: something a denoiser can learn."""
    y, x = np.mgrid[:h, :w].astype(float)
    picture = 0.5 + 0.2 * np.sin(x / rng.uniform(8, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(8, 20))
    for _ in range(4):
        cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(5, 15)
        picture = np.where((y - cy) ** 2 + (x - cx) ** 2 < r * r, rng.uniform(0.1, 0.9), picture)
    return picture if channels == 1 else np.stack([np.clip(picture * s, 0, 1) for s in np.linspace(0.8, 1.1, channels)], -1)


@pytest.fixture
def noisy_folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Six gray 8-bit images of 48 x 56 pixels with Gaussian noise of sigma 25."""
    import cv2

    folder = tmp_path / "noisy"
    folder.mkdir()
    for i in range(6):
        noisy = photograph(rng, 48, 56) + rng.normal(0, 25 / 255, (48, 56))
        cv2.imwrite(str(folder / f"{i}.png"), np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8))
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test of a reliability goal asked for and did: by `cases`, or by `pytest.mark.goal(name, count)`."""
    report = yield
    if not RECORD or report.skipped or not (report.when == "call" or report.failed):
        return report
    marked = [(mark.args[0], mark.kwargs.get("count", 1)) for mark in item.iter_markers("goal")]
    for goal, count in dict([*marked, *taken]).items():
        row = rows.setdefault(goal, {"goal": goal, "asked": 0, "done": 0, "failures": 0, "seconds": 0.0, "commit": commit()})
        row["asked"] += count
        row["done"] += count * report.passed
        row["failures"] += report.failed
        row["seconds"] = round(row["seconds"] + report.duration, 1)
    taken.clear()
    return report


def pytest_sessionfinish() -> None:
    if RECORD:
        record(Path(RECORD), rows.values())
