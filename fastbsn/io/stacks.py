"""Multi-page TIFF: time series, z-stacks and hyperstacks with their axes (ImageJ, OME and tifffile metadata are understood)."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.atomic import atomic_file
from fastbsn.io.checks import DTYPES, check_tiff
from fastbsn.io.image_files import MAX_PIXELS, decode_picture
from fastbsn.io.tiff_files import AXES

_IMAGEJ_ORDER = "TZCYXS"
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")


def read_stack(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[NDArray, str]:
    """Read all pages of a TIFF file.

    Args:
        path: of the file. OME metadata that point to other files are not followed.
        max_pixels: refuse larger pages, by their header and before anything is allocated.

    Returns:
        the array in the file's dtype, and one letter per dimension: T, Z, C (channels or samples), Y, X. Pages of unknown
        meaning are T; ImageJ files lose dimensions of length 1.

    Raises:
        InputError: no such file.
        FileFormatError: truncated, damaged, too large, several image series, or an unsupported kind of pixel.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name")
    with open(path, "rb") as file:
        return decode_stack(file, str(path), max_pixels)


def decode_stack(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> tuple[NDArray, str]:
    """`read_stack` of an open file; the name stands in the messages."""
    part, *others = decode_picture(file, name, max_pixels).parts
    if others:
        raise FileFormatError(f"{name}: {len(others) + 1} image series; expected 1: use fastbsn.io.image_files.read_picture")
    return part.array, part.axes


def count_pages(data: bytes) -> int:
    """Pages of a TIFF file that is in memory; 1 where it is damaged, for its reader to say so."""
    try:
        check_tiff(io.BytesIO(data))
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            return len(tiff.pages)
    except Exception:  # tifffile documents no exceptions
        return 1


def write_stack(path: str | os.PathLike[str], array: NDArray, axes: str) -> None:
    """Write a TIFF stack atomically, as an ImageJ hyperstack where that format can hold it.

    Args:
        path: .tif or .tiff.
        array: integers of 8 to 32 bits, float16, float32 or float64, not empty.
        axes: one letter of T, Z, C, Y, X per dimension; a last C of 3 or 4 is colour.

    Raises:
        InputError: array and axes do not fit, or a wrong suffix.
        StorageError: the write did not complete; the old file is intact.
    """
    path, array = Path(path), np.asarray(array)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path}: suffix {path.suffix!r}; a stack is written to .tif or .tiff")
    if array.dtype.name not in DTYPES or not array.size:
        raise InputError(f"{path}: the array is {array.dtype} {array.shape}; expected one of {', '.join(DTYPES)}, not empty")
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set(AXES):
        raise InputError(f"{path}: axes {axes!r} for shape {array.shape}; expected one letter of {AXES} per dimension, with Y and X")
    colour = axes.endswith("YXC") and array.shape[-1] in (3, 4)
    stored = axes[:-1] + "S" if colour else axes
    order = [_IMAGEJ_ORDER.index(a) for a in stored]
    imagej = order == sorted(order) and array.dtype.name in (_IMAGEJ_DTYPES[:1] if colour else _IMAGEJ_DTYPES)
    with atomic_file(path, array.nbytes) as file:
        tifffile.imwrite(file, array, imagej=imagej, photometric="rgb" if colour else "minisblack", metadata={"axes": stored})
