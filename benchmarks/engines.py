"""Our student on a CPU in fastbsn, OpenVINO and onnxruntime, and OIDN with its own network: array in, array out, a process each.

    python -m benchmarks.engines --out engines.json [--sizes 512x512 1920x1080] [--threads 1 2] [--add] [--python INTERPRETER]

Every row has wall and CPU seconds (their median), peak memory, and what the output is worth: PSNR, and its difference from fastbsn in
float32, which is refused above 0.01 dB. The packages openvino and pyoidn are optional; another interpreter may hold them. The default takes
30 to 40 minutes on two idle cores, most of it at 3840 x 2160 and above; `--sizes 512x512 1920x1080` takes 8. With --add a call measures
some sizes or threads and leaves the other rows of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.images import SIGMA, photograph
from benchmarks.harness.machine import ROOT, describe
from benchmarks.harness.parity import check
from benchmarks.render.tables import render
from benchmarks.subjects import engine_worker
from fastbsn import Denoiser
from fastbsn.io.atomic import write_json

SIZES = {"512x512": 5, "1920x1080": 3, "3840x2160": 2, "6000x4000": 0, "12000x10000": 0}  # width x height: rounds after the first
MODEL = "color-awgn"


def images(size: str, folder: Path) -> torch.Tensor:
    """Write noisy.npy; return the clean image [3, H, W]."""
    width, height = map(int, size.split("x"))
    clean = photograph(3, height, width)
    noisy = clean.permute(1, 2, 0).numpy() + SIGMA * np.random.default_rng(0).standard_normal((height, width, 3), np.float32)
    np.save(folder / "noisy.npy", noisy)
    return clean


def one(name: str, python: str, folder: Path, threads: int, rounds: int, gibibytes: float) -> dict[str, Any]:
    """What the worker says of one engine, or why it says nothing."""
    arguments = [name, str(folder / "student.onnx"), str(folder), str(threads), str(rounds), str(gibibytes)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    ours = name.startswith("fastbsn")
    done = subprocess.run([sys.executable if ours else python, engine_worker.__file__, *arguments], env=env, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"status": "failed", "reason": said[:200]}
    found = json.loads(lines[-1])
    if "skipped" in found:
        return {"status": "skipped", "reason": found["skipped"]}
    times = {f"{key}_s": round(float(np.median(found[key])), 4) for key in ("wall", "cpu")}
    return {"status": "measured", **times, "peak_mib": round(found["peak_mib"]), "n": len(found["wall"])}


def measure(size: str, rounds: int, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All engines on one image; the first, ours in float32, gives the result that the others are compared with."""
    clean, rows, reference = images(size, folder), [], None
    for threads in args.threads:
        for name in args.engines:
            row: dict[str, Any] = {"size": size, "threads": threads, "engine": name}
            row |= one(name, args.python, folder, threads, rounds, args.memory)
            if row["status"] == "measured":
                output = torch.from_numpy(np.load(folder / "output.npy", allow_pickle=False)).permute(2, 0, 1)
                reference = output if reference is None else reference
                parity = check(output, reference, clean, None)
                row |= {"psnr": parity.row()["psnr"]}
                if "own network" not in name:
                    row |= {"psnr_difference": parity.row()["psnr_difference"], "error": parity.row()["error"]}
                    row |= {"status": "refused", "reason": parity.reason} if parity.reason else {}
            rows.append(row)
            print(row, flush=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--model", default=MODEL, help="a student of colour images (%(default)s)")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="width x height; default %(default)s")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    engines = list(engine_worker.ENGINES)
    parser.add_argument(
        "--engines", nargs="+", default=engines, choices=engines, help="the first one is what others are compared with (all)"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter with openvino, onnxruntime and pyoidn; default this one")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parser.add_argument("--memory", type=float, default=round(0.75 * whole, 1), help="GiB of addresses for an engine (%(default)s)")
    parser.add_argument("--add", action="store_true", help="to the rows that the file has, in place of those of the same image and threads")
    args = parser.parse_args(argv)
    before = json.loads(args.out.read_text()) if args.add and args.out.exists() else {"rows": [], "model": args.model}
    if before["model"] != args.model:
        parser.error(f"--add: {args.out} has rows of {before['model']}; expected {args.model}")
    rows = [row for row in before["rows"] if row["size"] not in args.sizes or row["threads"] not in args.threads]
    with tempfile.TemporaryDirectory(prefix="fastbsn-engines-") as name:
        folder, d = Path(name), Denoiser.from_pretrained(args.model, device="cpu")
        d.save(folder / "student.safetensors")
        d.export(folder / "student.onnx")
        for size in args.sizes:
            rows += measure(size, SIZES.get(size, 3), args, folder)
    rows.sort(key=lambda row: (np.prod([int(n) for n in row["size"].split("x")]), row["threads"]))
    result = {"machine": describe(), "model": args.model, "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(render("engines", result))


if __name__ == "__main__":
    main()
