"""MATLAB files of the two real-noise benchmarks, SIDD (version 5) and DND (version 7.3, which is HDF5). Only numeric arrays are read."""

from __future__ import annotations

import importlib
import os
import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.atomic import read_bytes
from fastbsn.io.checks import check_size
from fastbsn.io.image_files import MAX_FILE, MAX_PIXELS

SIDD_KEYS = ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb", "BenchmarkNoisyBlocksSrgb")
_MAX_BLOCKS = 2**31  # bytes of a block array; those of SIDD have 2**28
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {"uint8": (9, 2), "float32": (7, 7)}  # class of the array, and type of its stored values


def require(module: str, package: str) -> ModuleType:
    """Import an optional module, or say which package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f".mat files need {package}, which is not installed: pip install {package}") from error


def read_mat(path: str | os.PathLike[str], key: str, dtype: str, max_bytes: int = _MAX_BLOCKS) -> NDArray:
    """One uint8 or float32 array of a version 5 .mat file, in C order. Cells, structures and functions are not even parsed.

    The format is read here, because scipy's reader can crash the process on a damaged file.

    Raises:
        InputError: no such file.
        FileFormatError: damaged, no real array of that name and dtype, or more than `max_bytes`.
    """
    data = memoryview(read_bytes(path, MAX_FILE))
    try:
        return _find(data, key, dtype, max_bytes)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except (struct.error, zlib.error, ValueError) as error:
        raise FileFormatError(f"{path}: damaged .mat file ({type(error).__name__}: {error}); download it again") from error


def _find(data: memoryview, key: str, dtype: str, max_bytes: int) -> NDArray:
    if data[124:128] != b"\0\1IM":
        raise FileFormatError("not a little-endian MATLAB file of version 5")
    position, found = 128, {}
    while position < len(data):
        kind, size = struct.unpack_from("<II", data, position)
        body, position = data[position + 8 : position + 8 + size], position + 8 + size
        if len(body) < size or kind not in (_MATRIX, _COMPRESSED):
            raise FileFormatError(f"truncated or damaged: an element of type {kind} with {size} bytes ends at {position}")
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            body = memoryview(inflate.decompress(body, max_bytes + 2**16))[8:]  # after a tag of its own
            if not inflate.eof:
                raise FileFormatError(f"compressed data are incomplete, or more than {max_bytes} bytes")
        (_, flags), at = _element(body, 0)
        (_, dimensions), at = _element(body, at)
        (_, name), at = _element(body, at)
        kind = struct.unpack_from("<I", flags)[0] & 0x8FF  # class, and the bit for complex numbers
        shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
        found[bytes(name).decode("ascii")] = kind, shape
        if bytes(name) == key.encode():
            (storage, values), _ = _element(body, at)
            needed = prod(shape) * np.dtype(dtype).itemsize
            if (kind, storage) != _TYPES[dtype] or min(shape) < 1 or not len(values) == needed <= max_bytes:
                break
            array = np.frombuffer(values, f"<{np.dtype(dtype).str[1:]}").reshape(shape, order="F")
            return array.astype(dtype, order="C")
    raise FileFormatError(f"classes and shapes are {found}; expected {key} as {dtype}, complete and at most {max_bytes} bytes")


def _element(body: memoryview, position: int) -> tuple[tuple[int, memoryview], int]:
    """Type and bytes of the element at `position`, and where the next one begins."""
    kind, size = struct.unpack_from("<II", body, position)
    if kind >> 16:  # up to four bytes live in the tag itself
        return (kind & 0xFFFF, body[position + 4 : position + 4 + (kind >> 16)]), position + 8
    return (kind, body[position + 8 : position + 8 + size]), position + 8 + -(-size // 8) * 8


def read_sidd(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The blocks of a SIDD file, uint8 [images, blocks, H, W, 3]: [40, 32, 256, 256, 3] in those that are published.

    Args:
        path: `ValidationNoisyBlocksSrgb.mat`, `ValidationGtBlocksSrgb.mat` or `BenchmarkNoisyBlocksSrgb.mat`.

    Raises:
        InputError: another name, or no such file.
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
