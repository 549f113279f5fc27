"""The bundled models beside each other on a CPU, in turns: `python -m benchmarks.bundled -o benchmarks/results/bundled.json`.

Array in, array out, as `fastbsn.Denoiser` does it. A model whose name ends in "-fast" is compared with the one without; on a quiet machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.images import SIGMA, photograph
from benchmarks.harness.machine import describe
from benchmarks.harness.timing import interleave
from benchmarks.render.tables import render
from fastbsn import Denoiser, list_models
from fastbsn.io.atomic import write_json

FAST = "-fast"


def measure(size: str, threads: int, seconds: float) -> list[dict[str, Any]]:
    """Median seconds of every model on one image of "WIDTHxHEIGHT", and of a fast one the ratio to its larger sister's."""
    width, height = map(int, size.split("x"))
    torch.set_num_threads(threads)
    runs = {}
    for name in list_models():
        d = Denoiser.from_pretrained(name, device="cpu")
        clean = photograph(d.channels, height, width).numpy()
        noisy = clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
        runs[name] = lambda _, d=d, x=noisy: d(x, channel_axis=0, data_range=1.0)
        runs[name](None)
    median = {name: float(np.median(s)) for name, s in interleave(runs, [None], torch.device("cpu"), seconds).items()}
    rows = [{"size": size, "threads": threads, "model": name, "seconds": s} for name, s in median.items()]
    return [r | ({"ratio": median[r["model"].removesuffix(FAST)] / r["seconds"]} if r["model"].endswith(FAST) else {}) for r in rows]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bundled", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1920x1080"], help="width x height")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each size and number of threads, at least (%(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    before = torch.get_num_threads()
    rows = [row for size in args.sizes for threads in args.threads for row in measure(size, threads, args.seconds)]
    torch.set_num_threads(before)
    result = {"machine": describe(), "rows": rows}
    write_json(args.out, result)
    print(render("bundled", result))


if __name__ == "__main__":
    main()
