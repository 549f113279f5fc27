"""The kernels as compiled, and the plans, are at least as lean as the committed counts say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks import counts

from .conftest import ROOT

COMMITTED = json.loads((ROOT / "benchmarks/results/counts.json").read_text())


def test_the_table_is_that_of_the_file() -> None:
    readme = (ROOT / "csrc/README.md").read_text()
    assert re.search(r"<!-- counts -->\n(.*?)<!-- end -->", readme, re.S)[1] == counts.table(COMMITTED)  # type: ignore[index]
    teacher = counts.teacher_table(COMMITTED["teacher"])
    assert re.search(r"<!-- mdc counts -->\n(.*?)<!-- end -->", readme, re.S)[1] == teacher  # type: ignore[index]


@pytest.mark.parametrize("path", counts.TARGETS)
def test_plans(path: str) -> None:
    """Pure arithmetic, so to the last digit."""
    assert counts.plans(ROOT / "csrc", path) == COMMITTED["now"][path]["plans"]


def leanest(kernel: dict[str, Any]) -> float:
    return min((loop["instructions_per_product"] for loop in kernel["loops"]), default=0)


@pytest.fixture
def compiler() -> None:
    if counts.find_nvcc() is None:
        pytest.skip("no nvcc: there is nothing to compile")
    pytest.importorskip("triton", reason="cuobjdump comes with triton")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("path", counts.TARGETS)
def test_kernels(path: str) -> None:
    for found, held in zip(counts.kernels(ROOT / "csrc", path), COMMITTED["now"][path]["kernels"], strict=True):
        assert found["blocks_per_sm"] >= held["blocks_per_sm"] and found["shared_bytes"] <= held["shared_bytes"]
        # Another release of the compiler may order and unroll a little differently.
        assert leanest(found) <= 1.1 * leanest(held) and found["mix"].get("LDG", 0) <= 1.1 * held["mix"].get("LDG", 0)
        assert not {"LDL", "STL"} & set(found["mix"])


@pytest.mark.usefixtures("compiler")
def test_the_teachers_module() -> None:
    """No memory of its own for a thread, matrix products from shared memory back to back, tiles to the last digit."""
    found, held = counts.teacher(ROOT / "csrc"), COMMITTED["teacher"]
    assert {k: v for k, v in found.items() if k != "kernels"} == {k: v for k, v in held.items() if k != "kernels"}
    for now, before in zip(found["kernels"], held["kernels"], strict=True):
        assert now["dtype"] == before["dtype"] and not {"LDL", "STL", "LDSM"} & set(now["mix"])
        assert now["registers_producing_computing"] == [40, 232] and now["mix"]["HGMMA"] == 12 * 12
        assert leanest(now) <= 1.1 * leanest(before)


def test_loops_with_products_are_found() -> None:
    code = [
        (0x10, "HMMA.16816 R0"),
        (0x20, "LDGSTS R1"),
        (0x30, "@P0 BRA 0x20"),
        (0x40, "@P1 BRA 0x10"),
        (0x50, "@P2 BRA 0x00"),
        (0x60, "EXIT"),
    ]
    assert counts.count(code)["loops"] == [{"products": 1, "instructions_per_product": 4.0}]
