"""Denoisers of real photographs on the same pairs, none of them told the noise.

    python -m benchmarks.photographs PAIRS --models color-photo color-awgn [--every 4] -o benchmarks/results/photographs.json

PAIRS holds NAME_real.* and NAME_mean.* images. The classical methods get sigma from scikit-image's estimator (median absolute deviation of
wavelet coefficients), as somebody who has only the photograph would do. Rows of an existing file for the same pairs stay, where `--methods`
leaves them out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import describe
from benchmarks.harness.measure import Unavailable
from benchmarks.render.tables import render
from benchmarks.subjects import classical
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import Pair, load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.atomic import write_json

Image = np.ndarray  # [H, W, 3] float32 in [0, 1]
STRENGTHS = {"color-awgn": 2.0}  # also measured with this strength


def opencv_colored(noisy: Image, sigma: float) -> Image:
    """`cv2.fastNlMeansDenoisingColored`, h = 3 as its documentation suggests, since the estimate of sigma would make it do nothing."""
    import cv2

    image = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(image[..., ::-1]), None, 3, 3, 7, 21)[..., ::-1] / np.float32(255)


def methods(models: list[str]) -> dict[str, Callable[[Image], Image]]:
    """Denoisers by name, each [H, W, 3] -> [H, W, 3]."""
    from skimage.restoration import estimate_sigma

    def ours(name: str, strength: float) -> Callable[[Image], Image]:
        d = Denoiser.from_pretrained(name, device="cpu")
        return lambda y: np.asarray(d(y, channel_axis=2, data_range=1.0, strength=strength))

    def blind(f: Callable[[Image, float], Image]) -> Callable[[Image], Image]:
        return lambda y: f(y, float(np.mean(estimate_sigma(y, channel_axis=2))))

    found = {f"fastbsn ({name})": ours(name, 1.0) for name in models}
    found |= {f"fastbsn ({name}), strength {s:g}": ours(name, s) for name, s in STRENGTHS.items() if name in models}
    names = ("BM3D", "scikit-image nl_means", "scikit-image wavelet")
    found |= {f"{name}, sigma estimated": blind(classical.METHODS[name]) for name in names}
    return found | {"OpenCV fastNlMeansDenoisingColored": lambda y: opencv_colored(y, 0.0)}


def measure(name: str, denoise: Callable[[Image], Image], pairs: Iterator[Pair]) -> dict[str, Any]:
    """Mean PSNR and the smallest gain over the input; or why there is none."""
    gains, outputs = [], []
    try:
        for pair in pairs:
            output = np.clip(denoise(np.ascontiguousarray(pair.noisy.transpose(1, 2, 0))), 0, 1).transpose(2, 0, 1)
            outputs.append(psnr(pair.clean, output))
            gains.append(outputs[-1] - psnr(pair.clean, pair.noisy))
    except Unavailable as reason:
        return {"method": name, "reason": str(reason)}
    return {
        "method": name,
        "psnr": round(float(np.mean(outputs)), 3),
        "smallest gain": round(min(gains), 2),
        "worse than input": sum(g < 0 for g in gains),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photographs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--models", nargs="+", default=["color-photo", "color-awgn"], help="bundled names or files")
    parser.add_argument("--methods", nargs="*", help="only methods whose names contain one of these")
    parser.add_argument("--every", type=int, default=1, help="use every n-th pair")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)

    def pairs() -> Iterator[Pair]:
        return islice(load_pairs(args.pairs, channels=3), 0, None, args.every)

    noisy = [psnr(p.clean, p.noisy) for p in pairs()]
    settings = {"pairs": args.pairs.name, "n": len(noisy), "every": args.every}
    before = json.loads(args.out.read_text()) if args.methods and args.out.exists() else {}
    kept = {r["method"]: r for r in before["methods"]} if before.get("settings") == settings else {}
    rows: list[dict[str, Any]] = [{"method": "input", "psnr": round(float(np.mean(noisy)), 3)}]
    for name, denoise in methods(args.models).items():
        if args.methods is None or any(part in name for part in args.methods):
            rows.append(measure(name, denoise, pairs()))
            print(rows[-1], flush=True)
        elif name in kept:
            rows.append(kept[name])
    result = {"machine": describe(), "settings": settings, "methods": rows}
    write_json(args.out, result)
    print(render("photographs", result))


if __name__ == "__main__":
    main()
