"""What the CUDA compiler and the plan say about the student's kernels, without a GPU.

    python -m benchmarks.counts -o counts.json [--before OTHER/csrc]

Compiles csrc for sm_80 (portable) and sm_90a (Hopper), disassembles it, and counts per kernel: registers, shared memory, resident thread
blocks, loads from global memory, and instructions of the loops with matrix products; and per image size: computed over useful work, and
the work of the busiest multiprocessor over its fair share. Predicts nothing by itself: no number here is a time. Needs nvcc, g++, triton.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton

from benchmarks.harness.machine import ROOT, commit
from fastbsn.io.atomic import write_json
from setup import find_nvcc

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
# kernel: architecture, number of the path in csrc/plan.h, shared memory of a multiprocessor and of a block, multiprocessors
TARGETS = {"portable": ("80", 1, 164 << 10, 163 << 10, 108), "hopper": ("90a", 2, 228 << 10, 227 << 10, 132)}
SIZES = {"64 x 256 x 256": (64, 256, 256), "512 x 512": (1, 512, 512), "1920 x 1080": (1, 1080, 1920), "3840 x 2160": (1, 2160, 3840)}
PRODUCT = re.compile(r"\b(HMMA|HGMMA)\b")
COUNTED = re.compile(r"\b(HGMMA|HMMA|LDSM|LDS|STS|LDG|STG|LDGSTS|UBLKCP|BAR|WARPSYNC|LDL|STL|IMAD|PRMT)\b")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.+?)\s*(?:&|\?|;)")


def product_loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """Instructions between a backward branch and its target, of the innermost loops with matrix products."""
    loops: list[tuple[int, int]] = []
    for address, text in code:
        jump = re.search(r"\bBRA\b.*\b0x([0-9a-f]+)", text)
        if jump and int(jump[1], 16) < address:
            first = int(jump[1], 16)
            if any(first <= a <= address and PRODUCT.search(t) for a, t in code):
                loops.append((first, address))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [[text for address, text in code if first <= address <= last] for first, last in inner]


def count(code: list[tuple[int, str]]) -> dict[str, Any]:
    mix = Counter(m[1] for _, text in code if (m := COUNTED.search(text)))
    loops = []
    for body in product_loops(code):
        products = sum(bool(PRODUCT.search(text)) for text in body)
        loops.append({"products": products, "instructions_per_product": round(len(body) / products, 2)})
    return {"instructions": len(code), "mix": dict(sorted(mix.items())), "loops": loops}


def kernels(source: Path, name: str) -> list[dict[str, Any]]:
    """Counts of every block's kernel, in the order of csrc/instances.h."""
    arch, _, shared, _, _ = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        flags = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
        subprocess.run([str(find_nvcc()), *flags, "-cubin", "-o", str(cubin), str(source / f"{name}.cu")], check=True)
        usage, sass = (
            subprocess.run([TOOLS / "cuobjdump", option, cubin], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
        bytes_used = _shared_bytes(source, name, Path(folder))
    registers = {m[1]: int(m[2]) for m in re.finditer(r"Function (\S+):\n\s+REG:(\d+)", usage)}
    found: list[dict[str, Any]] = []
    for function in re.split(r"\n\s*Function : ", sass)[1:]:
        symbol = function.split(None, 1)[0]
        index = int(re.search(r"ILi(\d+)E", symbol)[1])  # type: ignore[index]
        threads, used = bytes_used[index]
        by_registers = 65536 // (threads * -(-registers[symbol] // 8) * 8)
        code = [(int(a, 16), text) for a, text in INSTRUCTION.findall(function)]
        blocks = {"registers": registers[symbol], "shared_bytes": used, "blocks_per_sm": min(by_registers, shared // (used + 1024))}
        found.append({"index": index, "threads": threads} | blocks | count(code))
    return sorted(found, key=lambda row: row["index"])


def _run_cpp(code: Path, source: Path, folder: Path, *arguments: object) -> list[Any]:
    program = folder / code.stem
    subprocess.run(["g++", "-std=c++20", f"-I{source}", "-o", program, code, source / "plan.cpp"], check=True)
    lines = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def _shared_bytes(source: Path, name: str, folder: Path) -> list[list[int]]:
    """[threads, bytes of shared memory] of every kernel."""
    threads, blocks = ("b.up ? 256 : 128", "PORTABLE_BLOCKS") if name == "portable" else ("384", "HOPPER_BLOCKS")
    code = folder / "shared.cpp"
    code.write_text(
        '#include <cstdio>\n#include "instances.h"\n#include "plan.h"\nusing namespace fastbsn;\nint main() {\n'
        f"for (const Block& b : {blocks})\n"
        f'printf("[%d, %lld]\\n", {threads}, (long long)shared_bytes(b, Path({TARGETS[name][1]})));\n}}\n'
    )
    return _run_cpp(code, source, folder)


def plans(source: Path, name: str) -> dict[str, Any]:
    """By image size: computed over useful products, and those of the busiest multiprocessor over its fair share."""
    _, path, _, block, processors = TARGETS[name]
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for size, (batch, h, w) in SIZES.items():
            rows = _run_cpp(ROOT / "benchmarks/counts.cpp", source, Path(folder), batch, 3, h, w, path, block, processors)
            useful = sum(r["useful"] * r["macs"] for r in rows)
            computed = sum(r["computed"] * r["macs"] for r in rows) / useful
            busiest = sum(r["longest"] * r["macs"] for r in rows) * processors / useful
            result[size] = {"computed_over_useful": round(computed, 3), "busiest_over_fair_share": round(busiest, 3)}
    return result


def measure(source: Path) -> dict[str, Any]:
    return {name: {"arch": f"sm_{TARGETS[name][0]}", "kernels": kernels(source, name), "plans": plans(source, name)} for name in TARGETS}


def _best(kernel: dict[str, Any]) -> str:
    """Of the loop that runs leanest: the one over taps, without what a step of rows does around it."""
    return str(min((loop["instructions_per_product"] for loop in kernel["loops"]), default="all unrolled"))


def table(result: dict[str, Any]) -> str:
    """Markdown: `before -> now` of every kernel and image size."""
    pairs = {name: (result["before"][name], result["now"][name]) for name in TARGETS}
    lines = [
        "| kernel (entry of instances.h) | registers | shared memory, bytes | blocks per SM | LDG | instructions per product |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, (before, now) in pairs.items():
        for old, new in zip(before["kernels"], now["kernels"], strict=True):
            cells = [(k["registers"], k["shared_bytes"], k["blocks_per_sm"], k["mix"].get("LDG", 0), _best(k)) for k in (old, new)]
            both = " | ".join(str(a) if a == b else f"{a} -> {b}" for a, b in zip(*cells, strict=True))
            lines.append(f"| {name} {new['index']}, {now['arch']} | {both} |")
    lines += ["", "| image size | path | computed / useful products | busiest multiprocessor / fair share |", "| --- | --- | --: | --: |"]
    for size in SIZES:
        for name, (before, now) in pairs.items():
            old, new = before["plans"][size], now["plans"][size]
            both = " | ".join(f"{old[key]:.2f} -> {new[key]:.2f}" for key in ("computed_over_useful", "busiest_over_fair_share"))
            lines.append(f"| {size} | {name} | {both} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="csrc of another commit, to be counted beside this one")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"commit": commit(), "now": measure(ROOT / "csrc")}
    if arguments.before:
        result["before"] = measure(arguments.before)
        print(table(result))
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
