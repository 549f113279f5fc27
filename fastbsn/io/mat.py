"""MATLAB files of the two real-noise benchmarks, SIDD (scipy) and DND (h5py). Only numeric arrays are ever read from them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.checks import check_size
from fastbsn.io.images import MAX_PIXELS

SIDD_KEYS = ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb", "BenchmarkNoisyBlocksSrgb")
_MAX_BLOCKS = 2**32  # bytes of a block array; those of SIDD have 2**28


def require(module: str, package: str) -> ModuleType:
    """Import an optional module, or say which package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f".mat files need {package}, which is not installed: pip install {package}") from error


def read_mat(path: str | os.PathLike[str], key: str, dtype: str, max_bytes: int = _MAX_BLOCKS) -> NDArray:
    """One numeric array of a version 5 .mat file; its type and size are checked before it is read.

    Raises:
        InputError: no such file, or scipy is not installed.
        FileFormatError: damaged, no array of that name and dtype, or too large.
    """
    scipy_io = require("scipy.io", "scipy")
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name")
    try:
        found = {name: (shape, kind) for name, shape, kind in scipy_io.whosmat(path)}
        shape, kind = found.get(key, ((), "nothing"))
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if kind != {"float32": "single", "float64": "double"}.get(dtype, dtype) or not 0 < size <= max_bytes:
            raise FileFormatError(f"{path}: {key} is {kind} {shape}; expected {dtype}, at most {max_bytes} bytes; names: {sorted(found)}")
        array = scipy_io.loadmat(path, variable_names=[key])[key]
    except FileFormatError:
        raise
    except Exception as error:  # scipy documents no exceptions, and a damaged file provokes any
        raise FileFormatError(f"{path}: damaged .mat file ({type(error).__name__}: {error}); download it again") from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise FileFormatError(f"{path}: {key} holds {array.dtype} {array.shape}, and its header says {dtype} {shape}")
    return array


def read_sidd(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The blocks of a SIDD file, uint8 [images, blocks, H, W, 3]: [40, 32, 256, 256, 3] in those that are published.

    Args:
        path: `ValidationNoisyBlocksSrgb.mat`, `ValidationGtBlocksSrgb.mat` or `BenchmarkNoisyBlocksSrgb.mat`.

    Raises:
        InputError: another name, no such file, or scipy is not installed.
        FileFormatError: damaged, or without such blocks.
    """
    key = Path(path).stem
    if key not in SIDD_KEYS:
        raise InputError(f"{path}: expected one of {', '.join(SIDD_KEYS)} with suffix .mat, as SIDD names them")
    blocks = read_mat(path, key, "uint8")
    if blocks.ndim != 5 or blocks.shape[-1] != 3:
        raise FileFormatError(f"{path}: {key} has shape {blocks.shape}; expected [images, blocks, H, W, 3]")
    return blocks


def read_dnd(folder: str | os.PathLike[str]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """The crops of DND sRGB, in order: (image, crop, float32 [H, W, 3] in [0, 1]), both numbers from 1 as in its file names.

    Args:
        folder: with `info.mat` and `images_srgb/0001.mat` and so on, as DND is published (50 images of 20 crops, 512 x 512).

    Raises:
        InputError: a file is missing, or h5py is not installed.
        FileFormatError: damaged, or a box lies outside its image.
    """
    h5py = require("h5py", "h5py")
    folder = Path(folder)
    boxes = _read_hdf5(h5py, folder / "info.mat", _boxes)
    for image, corners in enumerate(boxes, 1):
        path = folder / "images_srgb" / f"{image:04d}.mat"
        pixels = _read_hdf5(h5py, path, lambda file: _numeric(file["InoisySRGB"], 3))
        pixels = np.ascontiguousarray(pixels.T, np.float32)  # MATLAB stores [3, W, H]
        height, width, channels = pixels.shape
        for crop, (top, left, bottom, right) in enumerate(corners, 1):
            if channels != 3 or not (1 <= top <= bottom <= height and 1 <= left <= right <= width):
                raise FileFormatError(f"{path}: crop {crop} is {top, left, bottom, right} of an image {pixels.shape}")
            yield image, crop, pixels[top - 1 : bottom, left - 1 : right].copy()


def _read_hdf5(h5py: ModuleType, path: Path, read: Any) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; DND has info.mat and images_srgb/0001.mat to 0050.mat")
    try:
        with h5py.File(path, "r") as file:
            return read(file)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except Exception as error:  # h5py documents no exceptions, and a damaged file provokes any
        raise FileFormatError(f"{path}: damaged HDF5 file ({type(error).__name__}: {error}); download it again") from error


def _numeric(dataset: Any, dimensions: int) -> NDArray:
    """A checked numeric dataset; one whose data lie in other files is refused."""
    if len(dataset.shape) != dimensions or dataset.dtype.kind not in "uif" or dataset.external or dataset.is_virtual:
        raise FileFormatError(f"{dataset.name} is {dataset.dtype} {dataset.shape}; expected {dimensions} dimensions of numbers")
    check_size(dataset.shape[-1], dataset.shape[-2], MAX_PIXELS)
    if dimensions == 3 and dataset.shape[0] != 3:
        raise FileFormatError(f"{dataset.name} has shape {dataset.shape}; expected [3, W, H]")
    return dataset[()]


def _boxes(file: Any) -> list[list[tuple[int, ...]]]:
    """Corners (top, left, bottom, right), from 1 and inclusive, of every crop of every image."""
    references = file["info"]["boundingboxes"]
    if references.dtype.kind != "O" or not 0 < references.size <= 10_000:
        raise FileFormatError(f"boundingboxes is {references.dtype} {references.shape}; expected references to one box array per image")
    arrays = [_numeric(file[reference], 2) for reference in references[()].ravel()]
    if any(len(array) != 4 for array in arrays):
        raise FileFormatError(f"box arrays have shapes {[array.shape for array in arrays]}; expected [4, crops]")
    return [[tuple(int(v) for v in column) for column in array.T] for array in arrays]
