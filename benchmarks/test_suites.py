"""The suites under pytest-benchmark: `python -m pytest benchmarks [--suite student] [--scale tiny]`.

All versions of a case are measured together, in turns; pytest-benchmark receives the samples of one version per test through
a clock that advances by them, and does statistics, grouping, storage and comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks.harness.ceilings import measure as measure_ceilings
from benchmarks.harness.measure import Case, measure


class SampleClock:
    """Shows the sum of the samples that were played to it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def play(self, samples: Iterator[float]) -> None:
        self.now += next(samples)


CLOCK = SampleClock()
_done: dict[tuple[str, str], tuple[dict[str, Any], dict[str, list[float]]]] = {}
_ceilings: dict[str, Any] = {}


def _results(case: Case, config: pytest.Config) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Rows and samples of a case, measured at its first test; the cases before it are forgotten."""
    key = (case.suite, case.name)
    if key not in _done:
        _done.clear()
        device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        if not _ceilings:
            _ceilings.update(measure_ceilings(device, config.getoption("scale") == "tiny"))
        wanted = [name for name, v in case.versions.items() if config.getoption("compile") or v.section != "compile"]
        samples: dict[str, list[float]] = {}
        rows = measure(case, device, config.getoption("seconds"), _ceilings, wanted, samples)
        _done[key] = {row["version"]: row for row in rows}, samples
    return _done[key]


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(benchmark: Any, case: Case, version: str, request: pytest.FixtureRequest) -> None:
    rows, samples = _results(case, request.config)
    row = rows[version]
    if row["status"] in ("skipped", "refused"):  # refused: a wrong result has no speed
        pytest.skip(f"{row['status']}: {row['reason']}")
    assert row["status"] == "measured", row["reason"]
    benchmark.group, benchmark.extra_info = f"{case.suite}: {case.name}", row
    taken = samples[version]
    benchmark.pedantic(CLOCK.play, args=(iter(taken),), rounds=len(taken), iterations=1)
