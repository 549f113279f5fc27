"""Pairs of another camera than those at hand, made from clean images; or of no noise at all.

    python -m benchmarks.simulated_camera CLEAN PAIRS [--kind camera] [--iso 1.0]

Writes NAME_real.png and NAME_mean.png for `fastbsn evaluate --pairs`, `benchmarks.own_camera` and `benchmarks.photographs`. Kind "camera"
is no part of `fastbsn.camera`, which students are trained with: the whole picture goes through the mosaic, OpenCV's edge-aware
demosaicking, a chroma filter, a tone curve, sharpening and JPEG of quality 92, once with the noise of a sensor and once, the mean, without
noise and JPEG. Kind "clean" is the image itself, and as JPEG of quality 95.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from fastbsn.camera.degrade import jpeg, to_bytes
from fastbsn.evaluation.datasets import load_clean
from fastbsn.io.image_files import write_image

Image = np.ndarray  # [H, W, 3] float32 in [0, 1]
GAMMA, WHITE = 2.2, 4095  # tone curve; of a sensor of 12 bits
BALANCE = np.array([2.0, 1.0, 1.5], np.float32)  # gains of red, green and blue
SHOT, READ = 1.2e-3, 2.5e-3  # variance per unit of light, standard deviation in the dark; of white, at --iso 1


def photograph(x: Image, iso: float, rng: np.random.Generator | None) -> Image:
    """What the camera makes of a scene [H, W, 3], both sides even; `rng` None: without noise."""
    light = np.clip(x, 0, 1) ** GAMMA / BALANCE
    mosaic = np.empty(x.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = light[row::2, column::2, channel]
    if rng is not None:
        mosaic += rng.standard_normal(mosaic.shape, np.float32) * np.sqrt(iso * SHOT * mosaic + iso * READ**2)
    raw = np.rint(np.clip(mosaic + 0.02, 0, 1) * WHITE).astype(np.uint16)  # the black level keeps the noise of the dark
    rgb = cv2.cvtColor(raw, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float32) / WHITE - 0.02
    y = np.clip(rgb * BALANCE, 0, 1) ** (1 / GAMMA)
    luma, *chroma = cv2.split(cv2.cvtColor(y, cv2.COLOR_RGB2YCrCb))
    luma = luma + 0.5 * (luma - cv2.GaussianBlur(luma, (0, 0), 1.2))
    y = cv2.cvtColor(cv2.merge([luma, *(cv2.GaussianBlur(c, (0, 0), 1.0) for c in chroma)]), cv2.COLOR_YCrCb2RGB)
    return np.asarray(np.clip(y, 0, 1), np.float32)


def pair(x: Image, kind: str, iso: float, seed: int) -> tuple[Image, Image]:
    """Noisy (or compressed) and clean image."""
    if kind == "clean":
        return jpeg(x, 95), x
    x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return jpeg(photograph(x, iso, np.random.default_rng(seed)), 92), photograph(x, iso, None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulated_camera", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clean", type=Path)
    parser.add_argument("pairs", type=Path, help="folder to write")
    parser.add_argument("--kind", choices=("camera", "clean"), default="camera")
    parser.add_argument("--iso", type=float, default=1.0, help="factor on the variance of the sensor's noise (%(default)s)")
    args = parser.parse_args(argv)
    args.pairs.mkdir(parents=True)
    for seed, (name, x) in enumerate(load_clean(args.clean, 3)):
        noisy, clean = pair(np.ascontiguousarray(x.transpose(1, 2, 0)), args.kind, args.iso, seed)
        # Lossless: `noisy` is what the decoder makes of the JPEG file already.
        write_image(args.pairs / f"{Path(name).stem}_real.png", to_bytes(noisy))
        write_image(args.pairs / f"{Path(name).stem}_mean.png", to_bytes(clean))


if __name__ == "__main__":
    main()
