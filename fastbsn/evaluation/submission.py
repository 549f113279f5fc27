"""Files that the servers of SIDD and DND accept. Layouts as in the two benchmarks' own submission code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbsn.errors import InputError
from fastbsn.io.atomic import atomic_file
from fastbsn.io.mat import read_dnd, read_mat, read_sidd, require

PathLike = str | os.PathLike[str]


def _save(path: Path, contents: Mapping[str, Any], needed: int) -> None:
    scipy_io = require("scipy.io", "scipy")
    with atomic_file(path, needed) as file:
        scipy_io.savemat(file, dict(contents), do_compression=True)


def _cells(arrays: list[NDArray], shape: tuple[int, ...]) -> NDArray:
    """A MATLAB cell array; filled one by one, because numpy would join arrays of equal shape."""
    cells = np.empty(shape, object)
    for i, array in enumerate(arrays):
        cells.flat[i] = array
    return cells


def write_sidd(
    path: PathLike, denoised: NDArray[np.uint8], seconds_per_megapixel: float, description: Mapping[str, str] | None = None
) -> None:
    """Write `SubmitSrgb.mat` for the SIDD benchmark.

    Args:
        path: of the file.
        denoised: uint8 [40, 32, 256, 256, 3] RGB (other counts for trials), in the order of BenchmarkNoisyBlocksSrgb.
        seconds_per_megapixel: of the denoiser.
        description: texts that the server shows: MethodName, Authors, PaperTitle, Venue.

    Raises:
        InputError: blocks of another dtype or shape, or scipy is not installed.
        StorageError: the write did not complete.
    """
    if denoised.dtype != np.uint8 or denoised.ndim != 5 or denoised.shape[-1] != 3:
        raise InputError(f"blocks are {denoised.dtype} {denoised.shape}; expected uint8 [images, blocks, H, W, 3]")
    blocks = _cells(list(denoised.reshape(-1, *denoised.shape[2:])), denoised.shape[:2])
    contents = {"DenoisedBlocksSrgb": blocks, "TimeMPSrgb": float(seconds_per_megapixel), "OptionalData": dict(description or {})}
    _save(Path(path), contents, denoised.nbytes)


def write_dnd_crop(folder: PathLike, image: int, crop: int, denoised: NDArray) -> None:
    """Write one crop as `0001_01.mat`, single precision [H, W, 3] in [0, 1] under the key `Idenoised_crop`.

    Args:
        folder: that exists; the one given to `bundle_dnd` afterwards.
        image, crop: from 1, as `read_dnd` gives them.
        denoised: floating point [H, W, 3] in [0, 1].

    Raises:
        InputError: another dtype or shape, or scipy is not installed.
        StorageError: the write did not complete.
    """
    if denoised.dtype.kind != "f" or denoised.ndim != 3 or denoised.shape[-1] != 3:
        raise InputError(f"crop is {denoised.dtype} {denoised.shape}; expected floating point [H, W, 3] in [0, 1]")
    _save(Path(folder) / f"{image:04d}_{crop:02d}.mat", {"Idenoised_crop": denoised.astype(np.float32)}, denoised.nbytes)


def bundle_dnd(folder: PathLike, images: int = 50, crops: int = 20) -> Path:
    """Join the crops of `folder` into `folder/bundled/0001.mat` and so on; that folder is what DND accepts.

    Raises:
        InputError: a crop is missing, or scipy is not installed.
        FileFormatError: a crop is damaged.
        StorageError: a write did not complete.
    """
    folder = Path(folder)
    target = folder / "bundled"
    target.mkdir(exist_ok=True)
    for image in range(1, images + 1):
        arrays = [read_mat(folder / f"{image:04d}_{crop:02d}.mat", "Idenoised_crop", "float32") for crop in range(1, crops + 1)]
        contents = {"Idenoised": _cells(arrays, (crops,)), "israw": False, "eval_version": "1.0"}
        _save(target / f"{image:04d}.mat", contents, sum(array.nbytes for array in arrays))
    return target


def submit_sidd(
    denoise: Callable[[NDArray], NDArray], blocks: PathLike, path: PathLike, description: Mapping[str, str] | None = None
) -> int:
    """Denoise the blocks of a SIDD file and write the submission; returns the number of blocks.

    Args:
        denoise: uint8 [H, W, 3] -> the same.
        blocks: `BenchmarkNoisyBlocksSrgb.mat`.
        path, description: as for `write_sidd`.

    Raises:
        InputError, FileFormatError, StorageError: see `read_sidd` and `write_sidd`.
    """
    noisy = read_sidd(blocks)
    output, start = np.empty_like(noisy), time.perf_counter()
    for i in np.ndindex(*noisy.shape[:2]):
        output[i] = denoise(noisy[i])
    megapixels = noisy.size / noisy.shape[-1] / 1e6
    write_sidd(path, output, (time.perf_counter() - start) / megapixels, description)
    return int(np.prod(noisy.shape[:2]))


def submit_dnd(denoise: Callable[[NDArray], NDArray], data: PathLike, folder: PathLike) -> int:
    """Denoise the crops of DND sRGB into `folder` and bundle them; returns the number of crops.

    Args:
        denoise: float32 [H, W, 3] in [0, 1] -> the same.
        data: folder with `info.mat` and `images_srgb`.
        folder: made if needed; `folder/bundled` is what the server accepts.

    Raises:
        InputError, FileFormatError, StorageError: see `read_dnd` and `bundle_dnd`.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    counts: dict[int, int] = {}
    for image, crop, noisy in read_dnd(data):
        write_dnd_crop(folder, image, crop, np.clip(denoise(noisy), 0, 1))
        counts[image] = crop
    if len(set(counts.values())) != 1:
        raise InputError(f"{data}: images have {sorted(set(counts.values()))} crops; expected one count for all, as DND is published")
    bundle_dnd(folder, len(counts), counts[1])
    return sum(counts.values())
