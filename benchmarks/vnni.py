"""INT8 on this CPU: what it costs in quality, and its speed against the fastest bfloat16 of fastbsn in the same run.

    python -m benchmarks.vnni quality --clean cbsd68 --pairs polyu -o benchmarks/results/vnni.json
    python -m benchmarks.vnni speed -o benchmarks/results/vnni.json       # on a quiet machine

The model's file has ranges (`fastbsn export --ranges`). Each part replaces its own of the JSON file. Quality: mean PSNR and the smallest
difference of one image. Speed: versions in turns, wall time of a prepared network on float32 [1, C, H, W], median; ratios are against the
faster of the two bfloat16 versions with as many threads. The gate is a loss of at most 0.02 dB, of the image that is timed too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.images import SIGMA, photograph
from benchmarks.harness.machine import describe
from benchmarks.qat import GATE, Images, scores
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import load_clean, load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.io.atomic import write_json

VERSIONS = {
    "reference, bf16": ("reference", "bfloat16"),
    "openvino, bf16": ("openvino", "bfloat16"),
    "openvino, INT8": ("openvino", "int8"),
}
INT8 = "openvino, INT8"


def prepared(model: str, version: str) -> Callable[[Tensor], Tensor]:
    """float32 [N, C, H, W] -> the same; with as many threads as PyTorch has now."""
    backend, dtype = VERSIONS[version]
    return Denoiser.from_pretrained(model, device="cpu", backend=backend, dtype=dtype).prepared_.run


def quality(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for model in args.model:
        channels = Denoiser.from_pretrained(model, device="cpu").channels
        clean = [x for _, x in load_clean(args.clean, channels)][:: args.every]
        sets: dict[str, Images] = {
            f"sigma {s}": [(np.float32(parse_noise(f"gaussian:{s}").add(x, 0)), x) for x in clean] for s in args.sigma
        }
        if args.pairs:
            sets["photographs"] = [(p.noisy, p.clean) for p in load_pairs(args.pairs, channels=channels)][:: args.every]
        runs = {dtype: prepared(model, f"openvino, {dtype}") for dtype in ("bf16", "INT8")}
        for name, images in sets.items():
            found = {dtype: np.array([scores(run, {name: [pair]})[name] for pair in images]) for dtype, run in runs.items()}
            difference = found["INT8"] - found["bf16"]
            row = {"model": model, "set": name, "n": len(images), "bf16": float(found["bf16"].mean())}
            row |= {"difference": float(difference.mean()), "smallest": float(difference.min())}
            rows.append(row | {"passes": bool(difference.mean() >= -GATE)})
            print(rows[-1], flush=True)
    return rows


def speed(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        clean = photograph(Denoiser.from_pretrained(args.model[0], device="cpu").channels, height, width)[None]
        noisy = clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        for threads in args.threads:
            torch.set_num_threads(threads)
            runs = {version: prepared(args.model[0], version) for version in VERSIONS}
            value = {version: psnr(clean[0].numpy(), run(noisy)[0].clamp(0, 1).numpy()) for version, run in runs.items()}
            seconds: dict[str, list[float]] = {version: [] for version in runs}
            for _ in range(args.rounds):
                for version, run in runs.items():
                    start = time.perf_counter()
                    run(noisy)
                    seconds[version].append(time.perf_counter() - start)
            median = {version: float(np.median(s)) for version, s in seconds.items()}
            ratio = min(s for version, s in median.items() if version != INT8) / median[INT8]
            best = max(v for version, v in value.items() if version != INT8)
            row = {"size": size, "threads": threads, "rounds": args.rounds, "seconds": median, "psnr": value, "ratio": ratio}
            rows.append(row | {"passes": value[INT8] - best >= -GATE})
            print(rows[-1], flush=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vnni", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("quality", "speed"))
    parser.add_argument("--model", nargs="+", default=["color-awgn"], help="bundled names or files, with ranges; speed: the first")
    parser.add_argument("--clean", type=Path, help="quality: folder of clean test images; noise is added")
    parser.add_argument("--pairs", type=Path, help="quality: folder of pairs of photographs")
    parser.add_argument("--every", type=int, default=1, help="quality: take every n-th image (%(default)s)")
    parser.add_argument("--sigma", type=int, nargs="+", default=[15, 25, 50], help="quality: of the noise")
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1920x1088"], help="speed: width x height, multiples of 32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="speed")
    parser.add_argument("--rounds", type=int, default=5, help="speed (%(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    if args.part == "quality" and not args.clean:
        parser.error("quality needs --clean: a folder of clean test images")
    rows = quality(args) if args.part == "quality" else speed(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(args.out.read_text()) if args.out.exists() else {"gate_db": GATE}
    result[args.part] = {"machine": describe(), "model": args.model[0], "rows": rows}
    write_json(args.out, result)
    print(render("vnni", result))


if __name__ == "__main__":
    main()
