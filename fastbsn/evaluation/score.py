"""PSNR and SSIM of a denoiser over a set, by the protocol that the README's tables name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fastbsn.errors import InputError
from fastbsn.evaluation.datasets import load_image
from fastbsn.evaluation.metrics import psnr, ssim
from fastbsn.evaluation.synthetic import NoiseSpec
from fastbsn.io.image_files import list_images

Image = NDArray[np.float32]  # [C, H, W] in [0, 1] units
Item = tuple[str, Image, Image]  # name, clean, noisy


def noisy_items(clean: str | Path, noise: NoiseSpec, seed: int = 0, channels: int | None = None) -> Iterator[Item]:
    """Clean images of a folder with synthetic noise; the same seed anew for every image, as the published tables do; `channels` as in
    `load_image`."""
    for path in list_images(clean):
        x = load_image(path, channels)
        yield path.name, x, noise.add(x, seed)


def paired_items(pairs: Iterable[tuple[str, Image, Image]]) -> Iterator[Item]:
    """(name, noisy, clean) pairs of real images as items."""
    for name, noisy, clean in pairs:
        yield name, clean, noisy


def evaluate(denoise: Callable[[Image], Image], items: Iterable[Item], progress: bool = True) -> dict[str, Any]:
    """Denoise every item and compare with the clean image.

    PSNR and SSIM of the output clipped to [0, 1], not rounded, data range 1, over all channels jointly; means over images.

    Returns:
        {"psnr", "ssim", "input_psnr", "seconds", "n", "images": [{"name", "psnr", "ssim", "input_psnr"}, ...]}

    Raises:
        InputError: no items.
    """
    rows, seconds = [], 0.0
    for name, clean, noisy in tqdm(items, unit="image", disable=None if progress else True):
        start = time.perf_counter()
        output = np.clip(denoise(noisy), 0, 1)
        seconds += time.perf_counter() - start
        rows.append(
            {
                "name": name,
                "psnr": psnr(clean, output),
                "ssim": ssim(clean, output),
                "input_psnr": psnr(clean, np.clip(noisy, 0, 1)),
            }
        )
    if not rows:
        raise InputError("nothing to evaluate: got no images; expected a folder of PNG, JPEG, TIFF or .npy files")
    mean = {key: float(np.mean([r[key] for r in rows])) for key in ("psnr", "ssim", "input_psnr")}
    return {**mean, "seconds": seconds, "n": len(rows), "images": rows}
