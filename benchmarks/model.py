"""A model of the time of our kernels, from what the compiler and the plan say: predictions, to be compared with the first measurement.

    python -m benchmarks.model -o benchmarks/results/model.json

For every block of the student and every kernel of the teacher's module, the busiest multiprocessor's time on each resource: tensor cores,
issue, shared memory; and L2 and DRAM for the whole GPU. A kernel takes between the largest of them (all overlap) and their sum (none
does), plus a launch. Inputs are `benchmarks.counts`, `benchmarks.modules` and PEAKS. What it leaves out is written in NOTES.md.
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
from benchmarks.modules import BEFORE, CHANNELS, WORK, Work
from benchmarks.render.tables import render
from fastbsn.io.atomic import write_json

LAUNCH = 2e-6  # seconds between two kernels of a CUDA graph: assumed
SHARED = 128  # bytes a cycle that a multiprocessor's shared memory gives
MMA = 16 * 8 * 16  # multiply-accumulates of a warp's mma.sync m16n8k16
FRAGMENT = 512  # bytes that an ldmatrix.x4 of a warp reads
MODULE = 42 * 96 * 96  # multiply-accumulates per pixel of the teacher's module: 42 matrices, see csrc/README.md


@dataclass(frozen=True)
class Peak:
    """NVIDIA's data sheets: dense bf16 operations and bytes a second; `macs` per cycle and multiprocessor follow from them.

    l2: bytes a second from L2: of the A100, 5,120 per clock (its white paper); of the H100, which has no such figure, assumed.
    """

    name: str
    processors: int
    macs: int
    clock: float
    memory: float
    l2: float

    @property
    def operations(self) -> float:
        return 2 * self.processors * self.macs * self.clock


PEAKS = {
    "portable": Peak("A100 SXM 80 GB", 108, 1024, 1.41e9, 2.039e12, 7.2e12),
    "hopper": Peak("H100 SXM", 132, 2048, 1.83e9, 3.35e12, 6e12),
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


def seconds(cycles: dict[str, float], moved: float, l2: float, peak: Peak) -> dict[str, float]:
    """Seconds on every resource; "least": all overlap, "most": none does; both with a launch.

    Args:
        cycles: of the busiest multiprocessor.
        moved, l2: bytes between DRAM and L2, and between L2 and the multiprocessors.
    """
    found = {name: c / peak.clock for name, c in cycles.items()} | {"l2": l2 / peak.l2, "memory": moved / peak.memory}
    return found | {"least": max(found.values()) + LAUNCH, "most": sum(found.values()) + LAUNCH}


def student(path: str, size: str, counts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every block of the colour student, in order."""
    _, number, _, block, processors = TARGETS[path]
    peak, (batch, h, w) = PEAKS[path], SIZES[size]
    kernels = {k["index"]: k for k in counts["now"][path]["kernels"]}
    with tempfile.TemporaryDirectory() as folder:
        rows = _run_cpp(ROOT / "benchmarks/counts.cpp", ROOT / "csrc", Path(folder), batch, 3, h, w, number, block, processors)
    return [
        {
            "part": f"level {r['level']}{', upsampling' if r['upsamples'] else ''}",
            "operations": 2 * r["useful"] * r["macs"],
            "l2_bytes": r["l2"],
        }
        | seconds(block_cycles(path, r, kernels[r["kernel"]], peak), r["bytes"], r["l2"], peak)
        for r in rows
    ]


def module(size: str, counts: dict[str, Any]) -> list[dict[str, Any]]:
    """The teacher's module (96 channels, dilation 2) as one CUDA kernel, on Hopper."""
    found, peak, (n, h, w) = counts["teacher"], PEAKS["hopper"], SIZES[size]
    pixels, plan = n * h * w, found["plans"][f"{size}, dilation 2"]
    macs = pixels * MODULE * plan["busiest_over_fair_share"] / peak.processors
    count = macs / (64 * 96 * 16)
    lean = min(loop["instructions_per_product"] for loop in found["kernels"][0]["loops"])
    cycles = {"tensor": macs / peak.macs, "issue": count * lean, "shared": count * (64 * 16 + 16 * 96) * 2 / SHARED}
    l2 = 2 * pixels * MODULE * plan["computed_over_useful"] / found["flop_per_l2_byte"]
    own = {"part": "mdc", "operations": 2 * pixels * MODULE, "l2_bytes": round(l2)}
    return [own | seconds(cycles, 2 * 2 * 96 * pixels, l2, peak)]


def triton_kernel(kernel: dict[str, Any], work: Work, positions: int, pixels: int, peak: Peak) -> dict[str, Any]:
    """One kernel of `benchmarks.modules` on an array of `positions` rows; columns are computed up to the next power of two."""
    block, _, _, _ = kernel["config"]
    columns, programs = 1 << (CHANNELS - 1).bit_length(), -(-positions // block)
    macs = -(-programs // peak.processors) * block * work.matrices * CHANNELS * columns
    loop = kernel["loop"] or {"instructions_per_product": 0, "products": 1, "ldsm": 0}
    if kernel["arch"] == "sm_90":
        count = macs / (64 * columns * 16)
        issue, read = count * loop["instructions_per_product"], (64 * 16 + 16 * columns) * 2
    else:
        count = macs / MMA
        issue, read = count * loop["instructions_per_product"] / 4, FRAGMENT * loop["ldsm"] / loop["products"]
    row = 2 * CHANNELS
    l2 = positions * row * (work.loads + work.stores) + programs * work.matrices * CHANNELS * row
    own = {"part": kernel["kernel"], "operations": 2 * pixels * work.matrices * CHANNELS**2, "l2_bytes": l2}
    cycles = {"tensor": macs / peak.macs, "issue": issue, "shared": count * read / SHARED}
    return own | seconds(cycles, positions * row * (work.read + work.stores), l2, peak)


def triton_modules(arch: str, size: str, modules: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Kernels of one of many modules in a row (96 channels, dilation 2): the forward pass before and now, and the backward pass."""
    from fastbsn.kernels.layout import Flat
    from fastbsn.kernels.tuning import FUSES_NEXT

    peak, (n, h, w) = PEAKS["portable" if arch == "sm_80" else "hopper"], SIZES[size]
    sizes = Flat(n, h, w, 2, 2).positions, n * h * w, peak

    def rows(when: str, works: dict[str, Work], *names: str) -> list[dict[str, Any]]:
        kernels = {k["kernel"]: k for k in modules[when] if k["arch"] == arch}
        return [triton_kernel(kernels[name], works[name], *sizes) for name in names]

    fused = arch in FUSES_NEXT
    first, last = () if fused else ("mdc first",), "" if fused else ", last"
    return {
        "module, Triton, before": rows("before", BEFORE, "mdc first", "mdc rest"),
        "module, Triton": rows("now", WORK, *first, "mdc 5x5", f"mdc rest{last}"),
        "module, Triton, training": rows("now", WORK, *first, "mdc 5x5", f"mdc rest, training{last}"),
        "module, Triton, backward without weights": rows("now", WORK, "mdc backward first", "mdc backward rest"),
    }


def total(name: str, size: str, peak: Peak, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table, in milliseconds, with its blocks or kernels."""
    keys = ("tensor", "issue", "shared", "l2", "memory", "least", "most")

    def row(parts: list[dict[str, Any]]) -> dict[str, Any]:
        flop_per_l2_byte = round(sum(b["operations"] for b in parts) / sum(b["l2_bytes"] for b in parts), 1)
        return {key: round(1e3 * sum(b[key] for b in parts), 4) for key in keys} | {"flop_per_l2_byte": flop_per_l2_byte}

    parts = [{"part": b["part"]} | row([b]) for b in blocks]
    n, h, w = SIZES[size]
    return {"what": name, "size": size, "gpu": peak.name, "pixels": n * h * w} | row(blocks) | {"parts": parts}


def predict(counts: dict[str, Any], modules: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        for path, peak in PEAKS.items():
            rows.append(total(f"student, {path}", size, peak, student(path, size, counts)))
        for arch, peak in zip(("sm_80", "sm_90"), PEAKS.values(), strict=True):
            for name, kernels in triton_modules(arch, size, modules).items():
                rows.append(total(name, size, peak, kernels))
        rows.append(total("module, CUDA", size, PEAKS["hopper"], module(size, counts)))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, default=ROOT / "benchmarks/results/counts.json")
    parser.add_argument("--modules", type=Path, default=ROOT / "benchmarks/results/modules.json")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    peaks = {path: asdict(peak) | {"tflops": round(peak.operations / 1e12)} for path, peak in PEAKS.items()}
    counts, modules = (json.loads(path.read_text()) for path in (args.counts, args.modules))
    inputs = {
        "peaks": peaks,
        "launch_s": LAUNCH,
        "shared_bytes_per_cycle": SHARED,
        "counts": counts["commit"],
        "modules": modules["commit"],
    }
    result = {"commit": commit(), "inputs": inputs, "rows": predict(counts, modules)}
    write_json(args.out, result)
    print(render("model", result))


if __name__ == "__main__":
    main()
