"""What the compiler says about the Triton kernels of the teacher's module (96 channels, bfloat16), without a GPU.

    python -m benchmarks.modules -o benchmarks/results/modules.json [--before OTHER.json]

Compiles what `fastbsn.kernels.shipped` lists for sm_80 and sm_90, disassembles it, and counts per kernel: registers, shared memory,
resident thread blocks, waits for copies, instructions per product of the costliest loop. How often a program loads and stores its block
of activations and loads a matrix is in WORK, which tests/kernels/test_work.py holds to the kernels. `--before` takes the counts of another
commit from a file of this command.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.machine import commit
from benchmarks.render.tables import render
from fastbsn.io.atomic import write_json

CHANNELS = 96
ARCHS = ("sm_80", "sm_90")
WAIT = re.compile(r"mbarrier\.try_wait|cp\.async\.wait_group")
PRODUCT = re.compile(r"\b(HGMMA|HMMA)\b")


class Work(NamedTuple):
    """Of a program: blocks [BLOCK, C] that it loads, those among them that no other load of the launch brings, blocks that it stores, and
    matrices [C, C] that it loads, each of which it multiplies with a block."""

    loads: int
    read: int
    stores: int
    matrices: int


WORK = {  # by kernel as `shipped` names it
    "mdc first": Work(2, 1, 2, 2),
    "mdc 5x5": Work(25, 1, 1, 25),
    "mdc rest": Work(1 + 9 + 1 + 1, 3, 3, 1 + 9 + 3 + 2 + 2),
    "mdc rest, last": Work(1 + 9 + 1 + 1, 3, 1, 1 + 9 + 3 + 2),  # and every one where tuning.FUSES_NEXT does not name the architecture
    "mdc rest, training": Work(1 + 9 + 1 + 1, 3, 8, 1 + 9 + 3 + 2 + 2),
    "mdc rest, training, last": Work(1 + 9 + 1 + 1, 3, 6, 1 + 9 + 3 + 2),
    "mdc backward first": Work(7, 7, 7, 5),
    "mdc backward rest": Work(25 + 9 + 2 + 2, 6, 3, 25 + 9 + 3),
}
BEFORE = {"mdc first": WORK["mdc first"], "mdc rest": Work(25 + 9 + 3 + 1, 3, 1, 25 + 9 + 3 + 1 + 2)}  # 5x5 within, the 1x1 path in chunks


def main_loop(bodies: list[str]) -> dict[str, Any] | None:
    """Products, instructions per product and ldmatrix of the loop that has most instructions per product, or None."""
    counted = []
    for body in bodies:
        products = len(PRODUCT.findall(body))
        length = body.count("\n") + 1
        counted.append({"products": products, "instructions_per_product": round(length / products, 2), "ldsm": body.count("LDSM.")})
    return max(counted, key=lambda loop: loop["instructions_per_product"], default=None)


def count(item: Any, arch: str) -> dict[str, Any]:
    from fastbsn.kernels import aot

    row = aot.check(item, arch, "bf16")
    kernel = aot.compile_for(item, arch, "bf16")
    bodies = aot.loops(aot.disassemble(kernel.asm["cubin"])[1], "HGMMA" if arch == "sm_90" else "HMMA")
    kept = {key: row[key] for key in ("kernel", "arch", "config", "registers", "shared", "blocks_per_sm", "faults")}
    return kept | {"waits": len(WAIT.findall(kernel.asm["ptx"])), "loop": main_loop(bodies)}


def measure() -> list[dict[str, Any]]:
    from fastbsn.kernels.shipped import shipped

    found: dict[tuple[str, str], Any] = {}
    for arch in ARCHS:
        for item in shipped(arch, {"light": (), "paper": (CHANNELS,)}):
            if item.name.startswith("mdc") or item.name == "wgrad":
                found[arch, item.name] = item
    return [count(item, arch) for (arch, _), item in found.items()]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="file of this command, of another commit")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {"commit": commit(), "channels": CHANNELS, "now": measure()}
    if arguments.before:
        before = json.loads(arguments.before.read_text())
        result |= {"before_commit": before["commit"], "before": [row for row in before["now"] if row["kernel"] in BEFORE]}
    write_json(arguments.output, result)
    if arguments.before:
        print(render("modules", result))


if __name__ == "__main__":
    main()
