"""`make bench`: the student against eager PyTorch and the classical denoisers, on this CPU, in one run of under 5 minutes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.ceilings import measure as measure_ceilings
from benchmarks.harness.images import SIGMA, photograph
from benchmarks.harness.machine import describe
from benchmarks.harness.measure import Unavailable, measure
from benchmarks.render.tables import render, skipped
from benchmarks.subjects import cases, classical
from benchmarks.subjects.networks import student
from fastbsn import Denoiser
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.io.atomic import write_json

LOCAL = Path(__file__).parent / "results" / "local"
CPU = torch.device("cpu")


def methods(side: int, repeat: int) -> list[dict[str, Any]]:
    """PSNR and seconds of the bundled student (blind) and of the classical methods (told sigma) on one colour photograph."""
    clean = photograph(3, side, side).numpy()
    noisy = parse_noise("gaussian:25").add(clean)
    net, weights = student(3)
    d = Denoiser({"student": net}, device="cpu")
    runs = {f"fastbsn ({weights})": lambda: d(noisy, channel_axis=0, data_range=1.0)}
    image = np.ascontiguousarray(noisy.transpose(1, 2, 0))
    runs |= {name: lambda f=f: f(image, SIGMA).transpose(2, 0, 1) for name, f in classical.METHODS.items()}
    rows = []
    for name, run in runs.items():
        row: dict[str, Any] = {"method": name, "told_sigma": name in classical.METHODS}
        try:
            seconds = []
            for _ in range(repeat + 1 if repeat > 1 else 1):
                start = time.perf_counter()
                output = run()
                seconds.append(time.perf_counter() - start)
                if sum(seconds) > 20:
                    break
            row |= {"psnr": round(psnr(clean, np.clip(output, 0, 1)), 3), "seconds": round(float(np.median(seconds[1:] or seconds)), 4)}
        except Unavailable as reason:
            row["reason"] = str(reason)
        rows.append(row)
    return rows


def run(scale: str, seconds: float, compiled: bool) -> dict[str, Any]:
    tiny = scale == "tiny"
    result: dict[str, Any] = {"machine": describe(), "ceilings": measure_ceilings(CPU, tiny), "weights": student(3)[1], "rows": []}
    for case in cases("student", scale):
        wanted = [name for name, v in case.versions.items() if compiled or v.section != "compile"]
        result["rows"] += measure(case, CPU, seconds, result["ceilings"], wanted)
    result["methods"] = methods(64 if tiny else 512, 1 if tiny else 3)
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=LOCAL / "cpu.json", help="result file (%(default)s)")
    parser.add_argument("--scale", choices=("tiny", "cpu"), default="cpu", help="tiny: a dry run of seconds")
    parser.add_argument("--seconds", type=float, default=25.0, help="of timing per case (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="also the torch.compile baselines")
    parser.add_argument("--threads", type=int, help="of PyTorch; default its own choice")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    result = run(args.scale, min(args.seconds, 0.2) if args.scale == "tiny" else args.seconds, args.compile)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(render("cpu", result), skipped(result["rows"]), args.out, sep="\n\n")


if __name__ == "__main__":
    main()
