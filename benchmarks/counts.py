"""What the CUDA compiler and the plan say about the student's kernels and the teacher's module, without a GPU.

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

from benchmarks.harness.machine import ROOT, commit
from fastbsn.io.atomic import write_json
from setup import find_nvcc

# kernel: architecture, number of the path in csrc/plan.h, shared memory of a multiprocessor and of a block, multiprocessors
TARGETS = {"portable": ("80", 1, 164 << 10, 163 << 10, 108), "hopper": ("90a", 2, 228 << 10, 227 << 10, 132)}
SIZES = {"64 x 256 x 256": (64, 256, 256), "512 x 512": (1, 512, 512), "1920 x 1080": (1, 1080, 1920), "3840 x 2160": (1, 2160, 3840)}
SETMAXNREG = re.compile(r"\bUSETMAXREG\S*\s+(?:UP\d, )?0x([0-9a-f]+)")
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


Code = list[tuple[int, str]]


def cuobjdump() -> Path:
    import triton  # which brings it; plans and tables do without

    return Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def compiled(source: Path, folder: Path, arch: str) -> list[tuple[str, int, Code]]:
    """Symbol, registers and instructions of every kernel of a file."""
    cubin = folder / "kernels.cubin"
    flags = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    subprocess.run([str(find_nvcc()), *flags, "-cubin", "-o", str(cubin), str(source)], check=True)
    usage, sass = (
        subprocess.run([cuobjdump(), option, cubin], capture_output=True, text=True, check=True).stdout
        for option in ("-res-usage", "-sass")
    )
    registers = {m[1]: int(m[2]) for m in re.finditer(r"Function (\S+):\n\s+REG:(\d+)", usage)}
    functions = [(f.split(None, 1)[0], f) for f in re.split(r"\n\s*Function : ", sass)[1:]]
    return [(symbol, registers[symbol], [(int(a, 16), t) for a, t in INSTRUCTION.findall(text)]) for symbol, text in functions]


def kernels(source: Path, name: str) -> list[dict[str, Any]]:
    """Counts of every block's kernel, in the order of csrc/instances.h."""
    arch, _, shared, _, _ = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        functions = compiled(source / f"{name}.cu", Path(folder), arch)
        bytes_used = _shared_bytes(source, name, Path(folder))
    found: list[dict[str, Any]] = []
    for symbol, registers, code in functions:
        index = int(re.search(r"ILi(\d+)E", symbol)[1])  # type: ignore[index]
        threads, used = bytes_used[index]
        by_registers = 65536 // (threads * -(-registers // 8) * 8)
        blocks = {"registers": registers, "shared_bytes": used, "blocks_per_sm": min(by_registers, shared // (used + 1024))}
        found.append({"index": index, "threads": threads} | blocks | count(code))
    return sorted(found, key=lambda row: row["index"])


def teacher(source: Path) -> dict[str, Any]:
    """Counts of the kernel of the teacher's module, and of its tiles by image size and dilation."""
    code = '#include <cstdio>\n#include <cstdlib>\n#include "mdc_tile.h"\nusing namespace fastbsn::mdc;\nint main(int, char** a) {\n'
    code += "const Params p{nullptr, nullptr, nullptr, nullptr, nullptr, atoi(a[1]), atoi(a[2]), atoi(a[3]), 0, 0};\n"
    code += 'printf("[%lld, %d, %d, %d, %d, %d]\\n", (long long)tiles(p), SHARED_BYTES, TILE, PLANE, PRODUCTS, MATRIX_BYTES);\n}\n'
    kernels, sizes = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiles.cpp").write_text(code)
        for symbol, registers, instructions in compiled(source / "mdc.cu", folder, "90a"):
            text = "\n".join(text for _, text in instructions)
            later = sorted(int(r, 16) for r in SETMAXNREG.findall(text))
            kernels.append({"dtype": "float16" if "ILb1E" in symbol else "bfloat16", "threads": 384, "registers": registers}
                           | {"registers_producing_computing": later} | count(instructions))  # fmt: skip
        for size, (n, h, w) in SIZES.items():
            for d in (2, 3):
                phases = (n * d * d, -(-h // d), -(-w // d))
                ((tiles, used, edge, plane, products, matrix),) = _run_cpp(folder / "tiles.cpp", source, folder, *phases)
                pixels, in_front = edge * edge, 2 * (-(-plane // 128) * 128)  # the layers in front of the taps run on the halo too
                computed = tiles * ((products - 2) * pixels + in_front)
                sizes[f"{size}, dilation {d}"] = {
                    "tiles": tiles,
                    "computed_over_useful": round(computed / (n * h * w * products), 3),
                    "busiest_over_fair_share": round(-(-tiles // 132) * 132 * computed / tiles / (n * h * w * products), 3),
                }
        flop = 2 * 96 * 96 * ((products - 2) * pixels + in_front)
        l2 = products * matrix + 2 * 96 * (plane + pixels)
    return {"arch": "sm_90a", "shared_bytes": used, "flop_per_l2_byte": round(flop / l2, 1), "kernels": kernels, "plans": sizes}


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
    """Of the student; that of the teacher's module is `teacher`."""
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


def teacher_table(found: dict[str, Any]) -> str:
    """Markdown: the kernel of the teacher's module, and its tiles."""
    lines = [
        "| kernel | registers at launch, producing, computing | shared memory, bytes | FLOP / L2 byte | LDG | instructions per product |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for k in found["kernels"]:
        registers = ", ".join(str(r) for r in (k["registers"], *k["registers_producing_computing"]))
        rest = f"{found['shared_bytes']} | {found['flop_per_l2_byte']} | {k['mix'].get('LDG', 0)} | {_best(k)}"
        lines.append(f"| mdc {k['dtype']}, {found['arch']} | {registers} | {rest} |")
    lines += ["", "| image size | tiles | computed / useful products | busiest multiprocessor / fair share |", "| --- | --: | --: | --: |"]
    for size, plan in found["plans"].items():
        lines.append(f"| {size} | {plan['tiles']} | {plan['computed_over_useful']:.2f} | {plan['busiest_over_fair_share']:.2f} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="csrc of another commit, to be counted beside this one")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"commit": commit(), "now": measure(ROOT / "csrc"), "teacher": teacher(ROOT / "csrc")}
    if arguments.before:
        result["before"] = measure(arguments.before)
        print(table(result))
    print(teacher_table(result["teacher"]))
    write_json(arguments.output, result)


if __name__ == "__main__":
    main()
