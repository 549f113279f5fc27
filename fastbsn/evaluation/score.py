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
from fastbsn.evaluation.datasets import Pair, load_image, usable
from fastbsn.evaluation.metrics import psnr, ssim
from fastbsn.evaluation.synthetic import NoiseSpec
from fastbsn.inference.ranges import DataRange
from fastbsn.io.image_files import list_images

Image = NDArray[np.float32]  # [C, H, W] in [0, 1] units


def synthetic_pairs(
    clean: str | Path,
    noise: NoiseSpec,
    seed: int = 0,
    channels: int | None = None,
    data_range: DataRange | None = None,
    failed: list[str] | None = None,
) -> Iterator[Pair]:
    """Clean images of a folder with synthetic noise; the same seed anew for every image, as the published tables do; the other
    arguments as in `load_pairs`."""

    def load(path: Path) -> Pair:
        x = load_image(path, channels, data_range)
        try:
            return Pair(path.name, noise.add(x, seed), x)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    return usable(list_images(clean), load, failed)


def evaluate(
    denoise: Callable[[Image], Image],
    pairs: Iterable[Pair],
    progress: bool = True,
    on_image: Callable[[Pair, Image], None] | None = None,
) -> dict[str, Any]:
    """Denoise the noisy image of every pair and compare with the clean one.

    PSNR and SSIM of the output clipped to [0, 1], not rounded, data range 1, over all channels jointly; means over images.

    Args:
        denoise: float32 [C, H, W] -> the same.
        pairs: noisy and clean images.
        progress: show a progress bar.
        on_image: called with every pair and its clipped output.

    Returns:
        {"psnr", "ssim", "input_psnr", "seconds", "n", "images": [{"name", "psnr", "ssim", "input_psnr"}, ...]}

    Raises:
        InputError: no pairs.
    """
    rows, seconds = [], 0.0
    for pair in tqdm(pairs, unit="image", disable=None if progress else True):
        start = time.perf_counter()
        output = np.clip(denoise(pair.noisy), 0, 1)
        seconds += time.perf_counter() - start
        rows.append(
            {
                "name": pair.name,
                "psnr": psnr(pair.clean, output),
                "ssim": ssim(pair.clean, output),
                "input_psnr": psnr(pair.clean, np.clip(pair.noisy, 0, 1)),
            }
        )
        if on_image:
            on_image(pair, output)
    if not rows:
        raise InputError("nothing to evaluate: got no images; expected a folder of PNG, JPEG, TIFF or .npy files")
    mean = {key: float(np.mean([r[key] for r in rows])) for key in ("psnr", "ssim", "input_psnr")}
    return {**mean, "seconds": seconds, "n": len(rows), "images": rows}
