"""Where models fail: drawn pictures with noise of many kinds. `python -m benchmarks.failures --models color-awgn gray-awgn -o FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.drawn import PICTURES, flat, fractal, letterboxed, smooth_noise, white_noise
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.atomic import write_json

SIDE = 256  # pixels
SIGMAS = (0.5, 2, 3, 5, 10, 25, 50, 75)
CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLAT = (2, 5)


def _cases(side: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(picture, noise, clean, noisy); the seed is the case's number, so a case is the same for every model."""
    seed = 0
    for name, draw in PICTURES.items():
        for sigma in SIGMAS:
            rng = np.random.default_rng(seed := seed + 1)
            x = draw(side, rng)
            yield name, f"white {sigma:g}", x, x + white_noise(x.shape, sigma, float(name == "gray"), rng)
        x = draw(side, rng := np.random.default_rng(seed := seed + 1))
        yield name, "smooth 6", x, x + smooth_noise(x.shape, 6, rng)
        yield name, "none", x, x
    for rho in CORRELATIONS:
        x = fractal(side, rng := np.random.default_rng(1000))
        yield "fractal", f"white 25, channels {rho:g}", x, x + white_noise(x.shape, 25, rho, rng)


def measure(model: str, side: int = SIDE) -> dict[str, Any]:
    """PSNR of input and output for every case, what a flat area keeps of its noise, and what bars cost their neighbours."""
    name, _, file = model.rpartition("=")
    d = Denoiser.from_pretrained(file, device="cpu")

    def run(y: np.ndarray) -> np.ndarray:
        y = y if d.channels == 3 else y[..., :1]
        return np.clip(np.asarray(d(np.ascontiguousarray(y), channel_axis=2, data_range=1.0)), 0, 1)

    def seen(x: np.ndarray) -> np.ndarray:
        return x if d.channels == 3 else x[..., :1]

    rows = []
    for picture, noise, x, y in _cases(side):
        if d.channels == 1 and ("channels" in noise or picture == "gray"):
            continue
        rows.append({"picture": picture, "noise": noise, "input": _psnr(seen(x), seen(y)), "output": _psnr(seen(x), run(y))})
    kept = {}
    for sigma in FLAT:
        x = flat(side, rng := np.random.default_rng(7))
        y = x + white_noise(x.shape, sigma, 0.0, rng)
        kept[str(sigma)] = float((run(y) - seen(x)).std() / (seen(y) - seen(x)).std())
    x = fractal(side, rng := np.random.default_rng(8))
    y = x + white_noise(x.shape, 25, 0.0, rng)
    middle = slice(side // 4, side - side // 4)
    box = {"alone": _psnr(seen(x)[middle], run(y[middle])), "boxed": _psnr(seen(x)[middle], run(letterboxed(y, 0.25))[middle])}
    return {"model": name or file, "rows": rows, "noise left in a flat area": kept, "letterbox": box}


def _psnr(x: np.ndarray, y: np.ndarray) -> float | None:
    found = psnr(x.transpose(2, 0, 1), np.clip(y, 0, 1).transpose(2, 0, 1))
    return None if np.isinf(found) else round(found, 3)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", nargs="+", default=["color-awgn", "gray-awgn"], help="bundled names or files, as NAME=FILE to give a name"
    )
    parser.add_argument("--side", type=int, default=SIDE, help="of the drawn pictures, in pixels (%(default)s)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    models = [measure(model, args.side) for model in args.models]
    result = {"machine": describe(), "models": models}
    write_json(args.out, result)
    print(render("failures", result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
