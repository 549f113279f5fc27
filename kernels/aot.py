"""Compile every shipped configuration without a GPU and check what decides its speed.

    python -m fastbsn.kernels.aot [--out FOLDER] [--arch sm_90 ...] [--all]

Needs triton, not torch. Writes FOLDER/aot.json and FOLDER/aot.txt: kernel x architecture x registers x shared memory x instructions.
Fails if a kernel needs more shared memory than the architecture has, uses the stack or local memory (on sm_120: in a loop), or, on sm_90,
if a product does not run as HGMMA fed by UTMALDG, or a loop with HGMMA also has LDSM.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastbsn.io.atomic import write_json, write_text

from . import tuning
from .shipped import OWN_WIDTH, WIDE, Shipped, shipped

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
POINTERS = {
    "b_ptr": "*fp32",
    "sums_ptr": "*fp32",
    "dw_ptr": "*fp32",
    "image_ptr": "*fp32",
    "mu_ptr": "*fp32",
    "inside_ptr": "*u8",
    "table_ptr": "*i32",
}  # other pointers, and arrays read by blocks, are of the dtype of the network
COUNTED = r"\b(HGMMA|UTC\w*MMA|HMMA|UTMALDG|UTMASTG|LDGSTS|LDSM|STSM|LDL|STL|LDG|STG)\b"


def signature(item: Shipped, arch: str, dtype: str) -> dict[str, str]:
    """The type of every argument on `arch`, as Triton writes it."""
    types = {}
    for name in item.call.kernel.arg_names:
        element = "fp32" if name == "features" else dtype
        if name in item.absent or name in item.call.constants:
            types[name] = "constexpr"
        elif name in item.call.blocks:
            rows, columns = item.call.blocks[name]
            types[name] = f"tensordesc<{element}[{rows},{columns}]>" if arch in tuning.TMA else f"*{element}"
        else:
            types[name] = POINTERS.get(name, f"*{dtype}" if name.endswith("_ptr") else "i32")
    return types


def compile_for(item: Shipped, arch: str, dtype: str) -> Any:
    """The compiled kernel, as `launch` would compile it on `arch`."""
    call, types = item.call, signature(item, arch, dtype)
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    constants = dict(call.constants) | dict.fromkeys(item.absent)
    source = ASTSource(fn=call.kernel, signature=types, constexprs=constants, attrs=aligned)
    options = {"num_warps": call.config.warps, "num_stages": call.config.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", int(arch[3:]), 32), options=options)


def disassemble(cubin: bytes) -> tuple[str, str]:
    """(resource usage, SASS)."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        outputs = (subprocess.run([CUOBJDUMP, o, file.name], capture_output=True, text=True, check=True) for o in ("-res-usage", "-sass"))
        usage, sass = (o.stdout for o in outputs)
    return usage, sass


def loops(sass: str, opcode: str) -> list[str]:
    """The instructions of every loop that contains `opcode`: those that it can reach and that can reach it."""
    lines = [(int(m[1], 16), m[2]) for m in re.finditer(r"/\*([0-9a-f]{4,})\*/\s+([^;]+);", sass)]
    at = {address: i for i, (address, _) in enumerate(lines)}
    forward: list[list[int]] = []
    for i, (_, text) in enumerate(lines):
        jump = re.match(r"(@!?\w+ )?(BRA|EXIT|RET|BRX)\b.*?(0x[0-9a-f]+)?\s*$", text.strip())
        target = [at[int(jump[3], 16)]] if jump and jump[3] and int(jump[3], 16) in at else []
        falls = jump is None or jump[1] is not None or (jump[2] == "BRA" and re.search(r"BRA\S*\s+!?U?P", text) is not None)
        forward.append(target + ([i + 1] if falls and i + 1 < len(lines) else []))
    backward: list[list[int]] = [[] for _ in lines]
    for i, successors in enumerate(forward):
        for j in successors:
            backward[j].append(i)

    def reached(start: int, edges: list[list[int]]) -> set[int]:
        seen, stack = set(), list(edges[start])
        while stack:
            i = stack.pop()
            if i not in seen:
                seen.add(i)
                stack += edges[i]
        return seen

    found: list[set[int]] = []
    for i, (_, text) in enumerate(lines):
        if re.search(rf"\b{opcode}\b", text) and not any(i in body for body in found):
            body = reached(i, forward) & reached(i, backward)
            if i in body:
                found.append(body)
    return ["\n".join(lines[i][1] for i in sorted(body)) for body in found]


def faults(row: dict[str, Any], sass: str, main_loop: bool) -> list[str]:
    arch, mix, found = row["arch"], row["instructions"], []
    if row["shared"] > tuning.SHARED[arch]:
        found.append(f"shared memory {row['shared']} bytes; {arch} has {tuning.SHARED[arch]}")
    if arch == "sm_120":  # where ptxas guards every bulk copy by a call of its own, never made, whose argument lies on the stack
        found += ["a loop has LDL"] * bool(loops(sass, "LDL"))
    elif row["stack"] or mix.get("LDL") or mix.get("STL"):
        found.append(f"stack {row['stack']} bytes, {mix.get('LDL', 0)} LDL, {mix.get('STL', 0)} STL; expected none")
    if row.get("scratch"):
        found.append(f"scratch memory {row['scratch']} bytes; expected none: a launch would need an allocator")
    if arch == "sm_90" and main_loop:
        products = loops(sass, "HGMMA")
        if not products:
            found.append("no loop with HGMMA")
        found += [f"a loop with HGMMA has {word}" for word in ("LDSM", "HMMA") if any(re.search(rf"\b{word}\b", b) for b in products)]
        if not any("UTMALDG" in body for body in products):
            found.append("no loop with HGMMA is fed by UTMALDG")
    return found


def check(item: Shipped, arch: str, dtype: str) -> dict[str, Any]:
    start, config = time.monotonic(), item.call.config
    kernel = compile_for(item, arch, dtype)
    usage, sass = disassemble(kernel.asm["cubin"])
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert used, usage
    row = {
        "kernel": item.name,
        "channels": item.call.constants.get("C", item.call.constants.get("KX")),
        "arch": arch,
        "config": [config.block, config.chunk, config.warps, config.stages],
        "registers": int(used[1]),
        "stack": int(used[2]),
        "shared": kernel.metadata.shared,
        "instructions": dict(sorted(Counter(re.findall(COUNTED, sass)).items())),
        "loops": [dict(sorted(Counter(re.findall(COUNTED, body)).items())) for body in loops(sass, "HGMMA")],
    }
    blocks = min(
        65536 // (32 * config.warps * -(-row["registers"] // 8) * 8),
        tuning.SHARED[arch] // (row["shared"] + 1024),
        2048 // (32 * config.warps),
    )
    if kernel.metadata.global_scratch_size:
        row["scratch"] = kernel.metadata.global_scratch_size
    return row | {"blocks_per_sm": blocks, "faults": faults(row, sass, item.main_loop), "seconds": round(time.monotonic() - start, 1)}


def _check(widths: dict[str, tuple[int, ...]], dtype: str, which: tuple[str, int]) -> dict[str, Any]:
    """By number: a kernel does not travel between processes."""
    arch, i = which
    return check(next(islice(shipped(arch, widths), i, None)), arch, dtype)


def table(rows: list[dict[str, Any]]) -> str:
    head = ("kernel", "C", "arch", "config", "registers", "shared", "blocks/SM", "instructions")
    cells = [head]
    for r in rows:
        mix = " ".join(f"{opcode} {count}" for opcode, count in r["instructions"].items())
        config = "x".join(map(str, r["config"]))
        cells.append((r["kernel"], r["channels"], r["arch"], config, r["registers"], r["shared"], r["blocks_per_sm"], mix))
    lines = [line(row) for row in cells]
    for r, i in zip(reversed(rows), range(len(rows), 0, -1), strict=True):
        lines[i + 1 : i + 1] = [f"    FAULT {fault}" for fault in r["faults"]]
    return f"triton {triton.__version__}\n" + "\n".join(lines) + "\n"


def line(cells: tuple[Any, ...]) -> str:
    return "{:22} {:>3} {:6} {:>12} {:>9} {:>7} {:>9}  {}".format(*cells)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for aot.json and aot.txt")
    parser.add_argument("--arch", nargs="+", default=list(tuning.SHARED), choices=list(tuning.SHARED))
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp16"])
    parser.add_argument("--all", action="store_true", help="every tuned width and 256, not only 128 (light) and 96 (paper)")
    arguments = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set; unset it: the interpreter compiles nothing")
    every: tuple[int, ...] = (*tuning.TUNED, WIDE) if arguments.all else ()
    widths = {variant: every or (own,) for variant, own in OWN_WIDTH.items()}
    rows, todo = [], [(arch, i) for arch in arguments.arch for i, _ in enumerate(shipped(arch, widths))]
    with ProcessPoolExecutor(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        for row in pool.map(partial(_check, widths, arguments.dtype), todo):
            rows.append(row)
            print(table([row]).split("\n", 2)[2], end="", flush=True)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "aot.json", {"triton": triton.__version__, "rows": rows})
        write_text(arguments.out / "aot.txt", table(rows))
    bad = sum(bool(row["faults"]) for row in rows)
    print(f"triton {triton.__version__}: {len(rows)} configurations, {bad} with faults, {sum(row['seconds'] for row in rows):.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
