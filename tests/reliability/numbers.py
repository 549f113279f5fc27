"""How many cases a reliability goal asks for, and how many a normal run takes: FASTBSN_LONG=1 runs them all.

FASTBSN_RECORD=FILE.json keeps what was asked, done and failed, goal by goal (`benchmarks/results/reliability.json`). FASTBSN_PARTS=N runs
one of N parts, told apart by FASTBSN_SEED, and adds to the record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

LONG = os.environ.get("FASTBSN_LONG") == "1"
PARTS = int(os.environ.get("FASTBSN_PARTS", "1"))
CASES = {  # goal: (normal run, full)
    "G1 mutated weight files": (1200, 1_000_000),
    "G2 mutated images": (2000, 100_000),
    "G11 kills of a training run": (6, 500),
    "G12 kills of a labelling run": (7, 200),
    "G12 images labelled": (40, 300),
    "G13 disk-full cut points": (80, 250),
    "G15 deaths of a rank": (1, 15),  # of each stage
    "G14 writes": (200, 1600),
    "G14 reads": (2000, 10_000),
    "G4 shapes, channels, dtypes, layouts": (735, 8820),
    "G5 random tile plans": (20_000, 20_000),
    "G5 pixels of the large image": (24_000_000, 120_000_000),
    "G6 images with non-finite pixels": (100, 1000),
    "G17 repeats": (100, 100),
    "G8 steps of training": (12, 120),
    "G8 shapes of the student": (6, 60),
}
taken: list[tuple[str, int]] = []  # by the test that runs, for the record


class Row(TypedDict):
    """A goal: cases asked for, cases that were right, tests that failed, seconds of the tests, commit."""

    goal: str
    asked: int
    done: int
    failures: int
    seconds: float
    commit: str | None


def cases(goal: str) -> int:
    normal, full = CASES[goal]
    if not LONG and normal < full:
        print(f"reduced: {goal}: {normal} of {full}; FASTBSN_LONG=1 runs all")
    count = -(-(full if LONG else normal) // PARTS)
    taken.append((goal, count))
    return count


def record(path: Path, rows: Iterable[Row]) -> None:
    """Put rows into a result file; one of the same goal is replaced, or added to where parts are run; the others stay."""
    from benchmarks.harness.machine import describe
    from fastbsn.io.atomic import write_json

    rows = list(rows)
    if not rows:
        return
    found: dict[str, Row] = {row["goal"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for row in rows:
        if PARTS > 1 and row["goal"] in found:
            for name in ("asked", "done", "failures", "seconds"):
                row[name] = round(row[name] + found[row["goal"]][name], 1)
        found[row["goal"]] = row
    ordered = sorted(found.values(), key=lambda row: (int("0" + row["goal"].split()[0].lstrip("G")), row["goal"]))
    write_json(path, {"machine": describe(), "rows": ordered})
