"""A folder of clean images as a folder of noisy ones, the noise frozen: for training on data whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from fastbsn.errors import FastBSNError, InputError
from fastbsn.evaluation.synthetic import NoiseSpec
from fastbsn.inference.ranges import DataRange, split_range
from fastbsn.io.image_files import list_images, read_image, write_image
from fastbsn.pixels import as_unit


def simulate(
    clean: str | Path,
    output: str | Path,
    noise: NoiseSpec,
    seed: int = 0,
    gray: bool = False,
    progress: bool = True,
    data_range: DataRange | None = None,
) -> tuple[int, list[str]]:
    """Write one noisy float16 .npy per clean image, not clipped; image i in name order gets the seed `seed + i`.

    Returns:
        Number of images written, and one sentence per image that could not be read.

    Raises:
        InputError: no images, or two of one name with different suffixes.
    """
    output, paths, seen = Path(output), list_images(clean), dict[str, Path]()
    if not paths:
        raise InputError(f"{clean}: no images found; expected PNG, JPEG, TIFF or .npy files")
    for path in paths:
        if seen.setdefault(path.stem, path) != path:
            raise InputError(f"{path} and {seen[path.stem]} would both become {path.stem}.npy; rename one of them")
    output.mkdir(parents=True, exist_ok=True)
    failed = []
    for i, path in enumerate(tqdm(paths, unit="image", disable=None if progress else True)):
        try:
            noisy = noise.add(as_unit(read_image(path), gray, *split_range(data_range)), seed + i).astype(np.float16)
        except FastBSNError as error:
            failed.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        write_image(output / f"{path.stem}.npy", noisy[0] if len(noisy) == 1 else noisy.transpose(1, 2, 0))
    return len(paths) - len(failed), failed
