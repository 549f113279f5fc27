"""How often the automatic choice of a colour model is wrong, and what that costs.

    python -m benchmarks.choice --clean CBSD68 --pairs POLYU [--every 4] -o benchmarks/results/choice.json

Every image is denoised by both bundled models of colour images; a choice is wrong where the other one is better by more than 0.05 dB. CLEAN
gets white noise of several levels, smooth noise, and JPEG of quality 90 after white noise of sigma 10.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.camera.degrade import jpeg
from fastbsn.evaluation.datasets import load_image, load_pairs
from fastbsn.evaluation.drawn import smooth_noise
from fastbsn.evaluation.metrics import psnr
from fastbsn.inference.choose import choose_model
from fastbsn.inference.frames import Frames
from fastbsn.io.atomic import write_json
from fastbsn.io.image_files import list_images

Image = np.ndarray  # [H, W, 3] float32 in [0, 1] units
MODELS = ("color-awgn", "color-photo")
NOTICEABLE = 0.05  # dB


def white(sigma: float) -> Callable[[Image], Image]:
    return lambda x: x + np.float32(sigma / 255) * np.random.default_rng(0).standard_normal(x.shape, np.float32)


def smooth(sigma: float) -> Callable[[Image], Image]:
    return lambda x: x + smooth_noise(x.shape, sigma, np.random.default_rng(0))


NOISES: dict[str, Callable[[Image], Image]] = {
    **{f"white, sigma {sigma}": white(sigma) for sigma in (3, 5, 15, 25, 50)},
    **{f"smooth, sigma {sigma}": smooth(sigma) for sigma in (5, 15)},
    "white, sigma 10, JPEG 90": lambda x: jpeg(white(10)(x), 90),
}


def row(name: str, images: Iterator[tuple[Image, Image]], denoisers: dict[str, Callable[[Image], Image]]) -> dict[str, Any]:
    """Both models on every (noisy, clean) of one kind, and what the choice makes of it."""
    taken, scores = [], []
    for noisy, clean in images:
        taken.append(MODELS.index(choose_model(Frames(noisy, 3, "YXC", data_range=1.0)).model))
        scores.append([psnr(np.clip(denoisers[m](noisy), 0, 1), clean) for m in MODELS])
    found = np.array(scores)
    chosen = found[np.arange(len(taken)), taken]
    lost = found.max(1) - chosen
    return {
        "kind": name,
        "n": len(taken),
        "taken": {m: taken.count(i) for i, m in enumerate(MODELS)},
        "wrong": int((lost > NOTICEABLE).sum()),
        "lost": round(float(lost.mean()), 3),
        "psnr": {"auto": round(float(chosen.mean()), 2)} | {m: round(float(found[:, i].mean()), 2) for i, m in enumerate(MODELS)},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clean", type=Path, help="folder of clean images")
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="folders of photographs: NAME_real.* and NAME_mean.*")
    parser.add_argument("--every", type=int, default=1, help="use every n-th image")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)

    def ours(name: str) -> Callable[[Image], Image]:
        d = Denoiser.from_pretrained(name, device="cpu")
        return lambda y: np.asarray(d(y, channel_axis=2, data_range=1.0))

    denoisers, rows = {name: ours(name) for name in MODELS}, []
    if args.clean:
        clean = [load_image(p, 3).transpose(1, 2, 0) for p in list_images(args.clean)[:: args.every]]
        for name, add in NOISES.items():
            rows.append(row(name, ((np.ascontiguousarray(add(x)), x) for x in clean), denoisers))
            print(rows[-1], flush=True)
    for folder in args.pairs:
        pairs = islice(load_pairs(folder, channels=3), 0, None, args.every)
        both = ((np.ascontiguousarray(p.noisy.transpose(1, 2, 0)), p.clean.transpose(1, 2, 0)) for p in pairs)
        rows.append(row(f"photographs ({folder.name})", both, denoisers))
        print(rows[-1], flush=True)
    result = {"machine": describe(), "clean": args.clean.name if args.clean else "", "rows": rows}
    write_json(args.out, result)
    print(render("choice", result))


if __name__ == "__main__":
    main()
