"""`make gpu`: everything a GPU is needed for, in under 9 minutes, on a machine with torch, triton, nvcc and pytest; installs nothing.

Writes gpu.json, two figures, rows.jsonl (every row as soon as it is measured) and log.txt into one folder. A section that hangs or
crashes is ended at its own limit and the next one goes on; what was measured stays. Without a GPU it is a dry run: tiny
sizes on the CPU, sections that need a GPU skipped.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.sections import SECTIONS, Job, find_nvcc, merge, read
from benchmarks.suites import SUITES
from benchmarks.tables import gpu_short
from fastbsn.io.atomic import write_json

RESERVE = 15  # seconds kept for the figures and the table


def _why_skip(name: str, dry: bool) -> str | None:
    if SECTIONS[name].needs_gpu and dry:
        return "needs a GPU; this is a dry run on a CPU"
    if name == "build" and find_nvcc() is None:
        return "no nvcc in CUDA_HOME, /usr/local/cuda or PATH"
    return None


def _run(name: str, job: Job) -> dict[str, object]:
    """One section in its own process group, ended at its limit."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", name, "--out", str(job.folder), "--limit", str(job.limit)]
    command += ["--dry-run"] if job.device == "cpu" else ["--scale", job.scale]
    command += ["--baselines"] if job.baselines else []
    log = job.folder / "log.txt"
    start, offset = time.monotonic(), log.stat().st_size if log.exists() else 0
    with open(log, "a") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = "done" if process.wait(job.limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = f"stopped after {job.limit:.0f} s"
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with open(log, errors="replace") as text:
        text.seek(offset)
        lines = [line.strip() for line in text if line.strip()]
    last = lines[-1][:300] if lines and (status != "done" or name == "tests") else None
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "reason": last}


def run(folder: Path, names: list[str], dry: bool, scale: str, minutes: float) -> int:
    """All sections in order; the exit code is 1 if one failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("rows.jsonl", "log.txt"):
        (folder / file).unlink(missing_ok=True)
    start, device = time.monotonic(), "cpu" if dry else "cuda:0"
    for name in names:
        left = 60 * minutes - (time.monotonic() - start) - (0 if name == "figures" else RESERVE)
        job = Job(folder, "tiny" if dry else scale, device, min(left, SECTIONS[name].seconds))
        reason = _why_skip(name, dry) or (f"{left:.0f} s are left" if left < 10 else None)
        found = {"status": "skipped", "seconds": 0.0, "reason": reason} if reason else _run(name, job)
        job.append(sections={name: found})
        if found["status"] not in ("done", "skipped") and name in SUITES:  # a kernel of ours may have taken the process with it
            left = 60 * minutes - (time.monotonic() - start) - RESERVE
            again = job._replace(baselines=True, limit=min(left, job.limit))
            job.append(sections={f"{name}, baselines only": _run(name, again)} if left > 10 else {})
        write_json(folder / "gpu.json", merge(read(folder)))
        print(
            f"[{time.monotonic() - start:4.0f} s] {name}: {found['status']}" + (f": {found['reason']}" if found["reason"] else ""),
            flush=True,
        )
    result = merge(read(folder))
    print("\n" + gpu_short(result))
    return int(any(s["status"] not in ("done", "skipped") for s in result["sections"].values()))


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
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="which, in this order; default all")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--scale", choices=("gpu", "full"), default="gpu", help="sizes (%(default)s)")
    parser.add_argument("--minutes", type=float, default=8.7, help="for everything (%(default)s)")
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--baselines", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=600, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    folder = args.out.resolve()
    if args.child:
        job = Job(folder, "tiny" if args.dry_run else args.scale, "cpu" if args.dry_run else "cuda:0", args.limit)
        SECTIONS[args.child].run(job._replace(baselines=args.baselines))
        return 0
    return run(folder, args.sections, _dry(args.dry_run), args.scale, args.minutes)


if __name__ == "__main__":
    sys.exit(main())
