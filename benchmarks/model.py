"""A model of the time of our CUDA kernels, from what the compiler and the plan say: predictions, to be compared with the first measurement.

    python -m benchmarks.model [--counts benchmarks/results/counts.json] -o benchmarks/results/model.json

For every block of the student and the teacher's module, the busiest multiprocessor's time on each resource: tensor cores, issue,
shared memory, and global memory of the whole GPU. A block takes between the largest of them (all overlap) and their sum (none does), plus
a launch. Inputs are `benchmarks.counts` and the data sheets' peaks (PEAKS). What it leaves out is written in NOTES.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.counts import SIZES, TARGETS, _run_cpp
from benchmarks.harness.machine import ROOT, commit
from benchmarks.render.tables import render
from fastbsn.io.atomic import write_json

LAUNCH = 2e-6  # seconds between two kernels of a CUDA graph: assumed
SHARED = 128  # bytes a cycle that a multiprocessor's shared memory gives
MMA = 16 * 8 * 16  # multiply-accumulates of a warp's mma.sync m16n8k16
FRAGMENT = 512  # bytes that an ldmatrix.x4 of a warp reads
MODULE = 42 * 96 * 96  # multiply-accumulates per pixel of the teacher's module: 42 matrices, see csrc/README.md


@dataclass(frozen=True)
class Peak:
    """NVIDIA's data sheets: dense bf16 operations and bytes a second; `macs` per cycle and multiprocessor follow from them."""

    name: str
    processors: int
    macs: int
    clock: float
    memory: float

    @property
    def operations(self) -> float:
        return 2 * self.processors * self.macs * self.clock


PEAKS = {
    "portable": Peak("A100 SXM 80 GB", 108, 1024, 1.41e9, 2.039e12),
    "hopper": Peak("H100 SXM", 132, 2048, 1.83e9, 3.35e12),
}


def block_cycles(path: str, row: dict[str, Any], kernel: dict[str, Any], peak: Peak) -> dict[str, float]:
    """Cycles of the busiest multiprocessor for one block of the student.

    Args:
        path: "portable" (mma.sync of a warp, operands by ldmatrix) or "hopper" (wgmma of four warps, operands in shared memory).
        row: of `counts.cpp`; "longest" pixels of "macs" each lie on the busiest multiprocessor.
        kernel: counts of the block's kernel.
    """
    macs = row["longest"] * row["macs"]
    loops = kernel["loops"]
    products = sum(loop["products"] for loop in loops)
    if path == "hopper":
        count = macs / (64 * row["columns"] * 16)
        lean = min(loop["instructions_per_product"] for loop in loops)  # the other warps of a block wait or load meanwhile
        issue, read = count * lean, (64 * 16 + 16 * row["columns"]) * 2
    else:
        count = macs / MMA
        issue = count * sum(loop["products"] * loop["instructions_per_product"] for loop in loops) / products / 4
        read = FRAGMENT * kernel["mix"].get("LDSM", 0) / kernel["mix"]["HMMA"]
    return {"tensor": macs / peak.macs, "issue": issue, "shared": count * read / SHARED}


def seconds(cycles: dict[str, float], moved: float, peak: Peak) -> dict[str, float]:
    """Seconds on every resource; "least": all overlap, "most": none does; both with a launch."""
    found = {name: c / peak.clock for name, c in cycles.items()} | {"memory": moved / peak.memory}
    return found | {"least": max(found.values()) + LAUNCH, "most": sum(found.values()) + LAUNCH}


def student(path: str, size: str, counts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every block of the colour student, in order."""
    _, number, _, block, processors = TARGETS[path]
    peak, (batch, h, w) = PEAKS[path], SIZES[size]
    kernels = {k["index"]: k for k in counts["now"][path]["kernels"]}
    with tempfile.TemporaryDirectory() as folder:
        rows = _run_cpp(ROOT / "benchmarks/counts.cpp", ROOT / "csrc", Path(folder), batch, 3, h, w, number, block, processors)
    return [
        {"block": f"level {r['level']}{' up' if r['upsamples'] else ''}"}
        | seconds(block_cycles(path, r, kernels[r["kernel"]], peak), r["bytes"], peak)
        for r in rows
    ]


def module(size: str, counts: dict[str, Any]) -> dict[str, Any]:
    """The teacher's module (96 channels, dilation 2) on Hopper."""
    found, peak, (n, h, w) = counts["teacher"], PEAKS["hopper"], SIZES[size]
    pixels, plan = n * h * w, found["plans"][f"{size}, dilation 2"]
    macs = pixels * MODULE * plan["busiest_over_fair_share"] / peak.processors
    count = macs / (64 * 96 * 16)
    lean = min(loop["instructions_per_product"] for loop in found["kernels"][0]["loops"])
    cycles = {"tensor": macs / peak.macs, "issue": count * lean, "shared": count * (64 * 16 + 16 * 96) * 2 / SHARED}
    return {"block": "module"} | seconds(cycles, 2 * 2 * 96 * pixels, peak)


def total(name: str, size: str, peak: Peak, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table, in milliseconds."""
    keys = ("tensor", "issue", "shared", "memory", "least", "most")
    row = {key: round(1e3 * sum(b[key] for b in blocks), 4) for key in keys}
    return {"what": name, "size": size, "gpu": peak.name, "pixels": SIZES[size][0] * SIZES[size][1] * SIZES[size][2]} | row


def predict(counts: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        for path, peak in PEAKS.items():
            rows.append(total(f"student, {path}", size, peak, student(path, size, counts)))
        rows.append(total("teacher's module, CUDA", size, PEAKS["hopper"], [module(size, counts)]))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, default=ROOT / "benchmarks/results/counts.json")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    peaks = {path: asdict(peak) | {"tflops": round(peak.operations / 1e12)} for path, peak in PEAKS.items()}
    counts = json.loads(args.counts.read_text())
    inputs = {"peaks": peaks, "launch_s": LAUNCH, "shared_bytes_per_cycle": SHARED, "counts": counts["commit"]}
    result = {"commit": commit(), "inputs": inputs, "rows": predict(counts)}
    write_json(args.out, result)
    print(render("model", result))


if __name__ == "__main__":
    main()
