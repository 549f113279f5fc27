"""The address arithmetic, exhaustively; and that the check notices any number of it being off by one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from .conftest import ROOT, compile_cpp

HEADERS = ("block.h", "tensor.h")
NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")


def test_index_arithmetic(tmp_path: Path) -> None:
    subprocess.run([compile_cpp(tmp_path / "index", ROOT / "tests/csrc/index.cpp", flags=["-O1"])], check=True)


def mutate(text: str, first: int) -> tuple[str, list[str]]:
    """Make every number in the FASTBSN_FN functions switchable, numbered from `first`."""
    places: list[str] = []

    pattern = re.compile(r"^FASTBSN_FN \w+ (\w+)\(", re.M)
    pieces, end = [], 0
    for start in pattern.finditer(text):
        body = text.index("{", start.end())
        depth, stop = 0, body
        while True:
            depth += {"{": 1, "}": -1}.get(text[stop], 0)
            stop += 1
            if depth == 0:
                break
        code = []
        for line in text[body:stop].split("\n"):
            before = line.split("//")[0]

            def number(found: re.Match[str], name: str = start[1], line: str = before) -> str:
                places.append(f"{name}: {found[0]} at column {found.start()} of `{line.strip()}`")
                return f"NUMBER({first + len(places) - 1}, {found[0]})"

            code.append(NUMBER.sub(number, before))
        pieces += [text[end:body], "\n".join(code)]
        end = stop
    return "".join(pieces) + text[end:], places


def test_every_number_matters(tmp_path: Path) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "tests/csrc").mkdir(parents=True)
    shutil.copy(ROOT / "tests/csrc/index.cpp", tmp_path / "tests/csrc")
    mutants: list[str] = []
    for name in HEADERS:
        text, places = mutate((ROOT / "csrc" / name).read_text(), len(mutants))
        (tmp_path / "csrc" / name).write_text(text)
        mutants += places
    program = compile_cpp(tmp_path / "index", tmp_path / "tests/csrc/index.cpp", flags=["-O1", "-DMUTANTS", "-Wno-array-bounds"])
    assert subprocess.run([program]).returncode == 0
    survivors = [place for i, place in enumerate(mutants) if subprocess.run([program, str(i)], capture_output=True).returncode == 0]
    assert len(mutants) > 90
    assert not survivors, f"{len(survivors)} of {len(mutants)} survive:\n" + "\n".join(survivors)
