"""`make gpu`: everything a GPU is needed for, on a machine with torch, triton, nvcc and pytest; installs nothing.

    python -m benchmarks.gpu check --out DIR      the extension built, the tests on the GPU, then compute-sanitizer
    python -m benchmarks.gpu measure --out DIR    the extension built, then every speed that decides, the strongest baselines first

Each call takes at most 8 minutes. Into one folder outside the checkout go gpu.json, two figures, rows.jsonl (every version as soon as
it is measured) and log.txt; in the checkout only the extension is built, as by an installation. A section that hangs or crashes is ended
at its own limit, with all its processes, and the next one goes on; what was measured stays. A suite that crashed runs once more
without the version that took it down. Without a GPU it is a dry run: tiny sizes on the CPU, sections that need a GPU skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import process
from benchmarks.gpu.rows import Job, merge, read
from benchmarks.gpu.sections import CALLS, SECTIONS
from benchmarks.harness.machine import ROOT
from benchmarks.render.tables import gpu_short
from fastbsn.io.atomic import write_json

RESERVE = 10  # seconds kept for the table and for what it takes to end a section
LEAST = 5  # seconds; a section with less is not begun
AGAIN = 3  # crashes of one suite, at most
PATIENCE = 6  # times the seconds, in a dry run: a busy CPU takes half a minute to import PyTorch


class Clock:
    """Time of one call, shared by its sections."""

    def __init__(self, names: list[str], minutes: float, patience: float = 1):
        self.start, self.end = time.monotonic(), time.monotonic() + 60 * patience * minutes - RESERVE
        self.names, self.patience = names, patience

    def seconds(self, name: str) -> float:
        return SECTIONS[name].seconds * self.patience

    def spent(self) -> float:
        return time.monotonic() - self.start

    def spare(self, name: str) -> float:
        """Seconds that the section can have with all later ones keeping theirs."""
        later = self.names[self.names.index(name) + 1 :]
        return self.end - time.monotonic() - sum(map(self.seconds, later))

    def limit(self, name: str) -> float:
        own, spare = self.seconds(name), self.spare(name)
        return min(self.end - time.monotonic(), max(own, spare) if SECTIONS[name].takes_rest else own)


def run_section(name: str, folder: Path, scale: str, dry: bool, clock: Clock) -> dict[str, Any]:
    """One section, and once more after each crash of it while there is time to spare."""
    if SECTIONS[name].needs_gpu and dry:
        return {"status": "skipped", "seconds": 0.0, "reason": "needs a GPU; this is a dry run on a CPU"}
    limit = clock.limit(name)
    if limit < LEAST:
        return {"status": "skipped", "seconds": 0.0, "reason": f"{max(limit, 0):.0f} s are left"}
    found = process.section(name, folder, scale, dry, limit)
    for _ in range(AGAIN if SECTIONS[name].again else 0):
        known, spare = len(read(folder)), min(clock.spare(name), clock.seconds(name))
        if found["status"] == "done" or spare < LEAST:
            break
        again = process.section(name, folder, scale, dry, spare)
        reasons = "; then ".join(filter(None, (found["reason"] or found["status"], again["reason"])))
        found = {"status": again["status"], "seconds": round(found["seconds"] + again["seconds"], 1), "reason": reasons}
        if len(read(folder)) == known:
            break
    return found if found["status"] != "done" or SECTIONS[name].tells else found | {"reason": None}


def run(folder: Path, names: list[str], dry: bool, scale: str, minutes: float) -> int:
    """All sections in order; the exit code is 1 if one did not end well."""
    print("order: " + ", ".join(f"{name} ({SECTIONS[name].seconds:.0f} s)" for name in names), flush=True)
    job, clock = Job(folder, scale, "cpu" if dry else "cuda:0", 0), Clock(names, minutes, PATIENCE if dry else 1)
    for name in names:
        found = run_section(name, folder, scale, dry, clock)
        job.append(sections={name: found})
        write_json(folder / "gpu.json", merge(read(folder)))
        print(f"[{clock.spent():4.0f} s] {name}: {found['status']}" + (f": {found['reason']}" if found["reason"] else ""), flush=True)
    result = merge(read(folder))
    print("\n" + gpu_short(result))
    return int(any(result["sections"][name]["status"] not in ("done", "skipped") for name in names))


def _dry(wanted: bool) -> bool:
    if wanted:
        return True
    found = subprocess.run([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], capture_output=True, text=True)
    if found.stdout.strip() == "True":
        return False
    print("PyTorch finds no CUDA device: dry run")
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("call", nargs="?", choices=CALLS, default="all", help="which of the two calls; default both in one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results, outside the checkout")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="these instead, in this order")
    parser.add_argument("--resume", action="store_true", help="keep what the folder holds, and measure only what has no row there")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--scale", choices=("gpu", "full"), default="gpu", help="sizes (%(default)s)")
    parser.add_argument("--minutes", type=float, help="for everything; default 8 for a call, 16 for both")
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=600, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    folder = args.out.resolve()
    if folder.is_relative_to(ROOT):
        parser.error(f"--out {args.out} is inside the checkout {ROOT}; expected a folder outside it")
    if args.child:
        SECTIONS[args.child].run(Job(folder, "tiny" if args.dry_run else args.scale, "cpu" if args.dry_run else "cuda:0", args.limit))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    for file in () if args.resume else ("rows.jsonl", "log.txt"):
        (folder / file).unlink(missing_ok=True)
    dry, minutes = _dry(args.dry_run), args.minutes or (16 if args.call == "all" else 8)
    return run(folder, args.sections or list(CALLS[args.call]), dry, "tiny" if dry else args.scale, minutes)


if __name__ == "__main__":
    sys.exit(main())
