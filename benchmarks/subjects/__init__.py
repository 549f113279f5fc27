"""What is measured: suites of cases, by name and scale, and the versions that are compared in them.

Scales: "tiny" (seconds, any machine), "cpu", "gpu" (a subset for one sitting) and "full".
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from benchmarks.harness.measure import Case

SUITES = ("ops", "teacher", "student", "training", "labels", "io")
SCALES = ("tiny", "cpu", "gpu", "full")


def cases(suite: str, scale: str) -> Sequence[Case]:
    return import_module(f"benchmarks.subjects.{suite}").cases(scale)


def shape_name(n: int, h: int, w: int) -> str:
    return f"{n} x {h} x {w}"
