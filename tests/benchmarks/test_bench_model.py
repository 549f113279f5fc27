"""The model of times: its arithmetic on cases done by hand, and the committed predictions follow from the committed counts."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness.machine import ROOT
from benchmarks.model import LAUNCH, PEAKS, block_cycles, predict, seconds, triton_kernel
from benchmarks.modules import Work
from benchmarks.render.tables import render

RESULTS = ROOT / "benchmarks" / "results"


def test_portable_block_by_hand():
    """64 pixels of 2048 products of 16 bits: 64 mma.sync of 2048, each 16 cycles / 8 of a multiprocessor of 1024 a cycle."""
    row = {"longest": 64, "macs": 2048, "columns": 48}
    kernel = {"loops": [{"products": 8, "instructions_per_product": 4.0}], "mix": {"LDSM": 4, "HMMA": 16}}
    found = block_cycles("portable", row, kernel, PEAKS["portable"])
    assert found == {"tensor": 128, "issue": 64, "shared": 64 * 128 / 128}  # a quarter of 512 bytes for each product


def test_hopper_block_by_hand():
    """64 x 48 x 16 is one wgmma: 24 cycles of products, and 2048 + 1536 bytes of operands from shared memory."""
    row = {"longest": 64, "macs": 48 * 16, "columns": 48}
    kernel = {"loops": [{"products": 12, "instructions_per_product": 17.0}, {"products": 12, "instructions_per_product": 400.0}], "mix": {}}
    assert block_cycles("hopper", row, kernel, PEAKS["hopper"]) == {"tensor": 24, "issue": 17, "shared": 28}


def test_a_block_takes_between_its_longest_resource_and_all_of_them():
    peak = PEAKS["hopper"]
    found = seconds({"tensor": peak.clock * 3e-6, "issue": peak.clock * 1e-6}, peak.memory * 2e-6, peak.l2 * 5e-6, peak)
    assert found["least"] == pytest.approx(5e-6 + LAUNCH) and found["most"] == pytest.approx(11e-6 + LAUNCH)


def test_triton_kernel_by_hand():
    """Two programs of 64 rows: on one multiprocessor, 3 matrices of 96 x 128 columns; blocks of 12,288 bytes and matrices of 18,432."""
    kernel = {
        "kernel": "k",
        "arch": "sm_90",
        "config": [64, 32, 8, 3],
        "loop": {"products": 1, "instructions_per_product": 10.0, "ldsm": 0},
    }
    peak = PEAKS["hopper"]
    found = triton_kernel(kernel, Work(4, 2, 1, 3), 128, 100, peak)
    products = 3 * 96 // 16
    assert found["tensor"] == pytest.approx(products * 64 / peak.clock) and found["issue"] == pytest.approx(products * 10 / peak.clock)
    assert found["shared"] == pytest.approx(products * (64 + 128) * 16 * 2 / 128 / peak.clock)
    assert found["l2_bytes"] == 2 * (5 * 64 * 192 + 3 * 96 * 192) and found["l2"] == pytest.approx(found["l2_bytes"] / peak.l2)
    assert found["memory"] == pytest.approx(3 * 128 * 192 / peak.memory) and found["operations"] == 2 * 100 * 3 * 96 * 96


def test_peaks_are_those_of_the_data_sheets():
    assert PEAKS["portable"].operations == pytest.approx(312e12, rel=1e-2)
    assert PEAKS["hopper"].operations == pytest.approx(989e12, rel=1e-2)


def test_committed_predictions_follow_from_the_committed_counts():
    result = json.loads((RESULTS / "model.json").read_text())
    assert result["rows"] == predict(*(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("counts", "modules")))
    for row in result["rows"]:
        for key in ("l2", "least", "most"):
            assert row[key] == pytest.approx(sum(part[key] for part in row["parts"]), abs=1e-4 * len(row["parts"]))
    assert "not measured" in render("model", result)
