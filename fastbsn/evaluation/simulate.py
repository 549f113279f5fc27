"""A folder of clean images as a folder of noisy ones, the noise frozen: for training on data whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from fastbsn.errors import InputError
from fastbsn.evaluation.synthetic import NoiseSpec
from fastbsn.io.image_files import list_images, read_image, write_image
from fastbsn.pixels import as_unit


def simulate(clean: str | Path, output: str | Path, noise: NoiseSpec, seed: int = 0, gray: bool = False, progress: bool = True) -> int:
    """Write one noisy float16 .npy per clean image, not clipped; image i in name order gets the seed `seed + i`.

    Returns:
        Number of images written.
    """
    output, paths = Path(output), list_images(clean)
    if not paths:
        raise InputError(f"{clean}: no images found; expected PNG, JPEG, TIFF or .npy files")
    output.mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(tqdm(paths, unit="image", disable=None if progress else True)):
        noisy = noise.add(as_unit(read_image(path), gray), seed + i).astype(np.float16)
        write_image(output / f"{path.stem}.npy", noisy[0] if len(noisy) == 1 else noisy.transpose(1, 2, 0))
    return len(paths)
