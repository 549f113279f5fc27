"""Image files: which format has which reader and writer. RGB order; nothing is decoded before the file is checked.

PNG by imagecodecs, which keeps 16 bits and gray with alpha; JPEG, WebP and BMP by Pillow, which keeps their metadata; TIFF by tifffile.
Pixel values are those in the file, colour profiles are not applied.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.atomic import atomic_file, read_bytes, write_bytes
from fastbsn.io.checks import DTYPES, check_dtype, check_size
from fastbsn.io.picture import Picture, interleaved
from fastbsn.io.pillow_files import encode_pillow, read_pillow
from fastbsn.io.png_files import encode_png, read_png
from fastbsn.io.tiff_files import read_tiff, write_tiff

MAX_PIXELS = 2**28  # 16384 x 16384
MAX_FILE = 2**34  # bytes
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
}
SUFFIXES = tuple(FORMATS)
NAMES = "PNG, JPEG, WebP, BMP, TIFF or .npy"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x93NUMPY": "NPY",
}
# Sample types, and numbers of channels beside one.
_WRITABLE = {
    "PNG": (("uint8", "uint16"), (2, 3, 4)),
    "JPEG": (("uint8",), (3,)),
    "WEBP": (("uint8",), (3, 4)),
    "BMP": (("uint8",), (3,)),
    "TIFF": (DTYPES, (3, 4)),
    "NPY": (DTYPES, None),
}


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images directly in `folder`, by suffix, sorted by name; hidden files are left out.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the name")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in FORMATS and p.name[0] != "." and p.is_file())


def read_picture(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a file with everything in it.

    Args:
        path: a file with one of SUFFIXES. A picture is read as what it is, with a warning where its name says otherwise.
        max_pixels: refuse larger images, by their header and before anything is allocated.

    Raises:
        InputError: no such file, or an unknown suffix.
        FileFormatError: truncated, damaged, too large, an unknown format, .npy by name or content only, or an unsupported kind of pixel.
    """
    path = Path(path)
    if not path.suffix and not path.exists():
        raise InputError(f"{path}: there is no such file or folder; check the name")
    if _format(path) != "TIFF":
        picture = decode_picture(io.BytesIO(read_bytes(path, MAX_FILE)), str(path), max_pixels)
    elif not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name")
    else:
        with open(path, "rb") as file:  # pages are read one by one
            picture = decode_picture(file, str(path), max_pixels)
    if picture.kind == "TIFF":
        picture.kept["source"] = path
    return picture


def decode_picture(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """`read_picture` of an open file; its name has one of SUFFIXES and stands in the messages."""
    kind, start = _format(Path(name)), file.read(16)
    if not start:
        raise FileFormatError(f"{name}: holds 0 bytes; copy or export it again")
    found = next((format for magic, format in _MAGIC.items() if start.startswith(magic)), "unknown")
    if found == "unknown" or (found != kind and "NPY" in (found, kind)):
        raise FileFormatError(f"{name}: the content is {found} and the name says {kind}; rename or convert the file")
    file.seek(0)
    try:
        if found == "TIFF":
            picture = read_tiff(file, max_pixels)
        elif found in ("PNG", "NPY"):
            picture = (read_png if found == "PNG" else _read_npy)(file.read(), max_pixels)
        else:
            picture = read_pillow(file.read(), found, max_pixels)
    except FileFormatError as error:
        raise FileFormatError(f"{name}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{name}: too large for the memory of this machine; cut the image into parts") from error
    except Exception as error:  # the decoders document no exceptions, and a damaged file provokes any
        raise FileFormatError(f"{name}: damaged {found} file ({type(error).__name__}: {error}); copy or export it again") from error
    if found != kind:
        picture.warnings.append(f"the content is {found} and the name says {kind}; read and written as {found}")
    return picture


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray:
    """Read a file of one image.

    Args:
        path, max_pixels: see `read_picture`.

    Returns:
        [H, W] (gray) or [H, W, C] (gray and alpha, RGB, RGBA, or channels of any other meaning) in the file's dtype.

    Raises:
        InputError, FileFormatError: see `read_picture`; or more than one image.
    """
    return _single(read_picture(path, max_pixels), str(path))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray:
    """`read_image` of a file that is in memory; its name has one of SUFFIXES and stands in the messages."""
    return _single(decode_picture(io.BytesIO(data), name, max_pixels), name)


def _single(picture: Picture, name: str) -> NDArray:
    part, *others = picture.parts
    if others or set(part.axes) & set("TZ"):
        raise FileFormatError(f"{name}: a stack, {part.axes} of shape {part.array.shape}, or images of several sizes; expected one image")
    return np.ascontiguousarray(part.pixels)


def write_picture(path: str | os.PathLike[str], picture: Picture, arrays: Sequence[NDArray], quality: int | None = None) -> None:
    """Write results as a file like the one that was read: metadata, compression, bit depth, pages and their order.

    Args:
        path: of the same format, or named as the file that was read.
        picture: from `read_picture`; of a TIFF, its file must still be there.
        arrays: one for each of its parts, of the same shapes and dtypes.
        quality: of JPEG and WebP, 0 to 100; None: as the input was compressed.

    Raises:
        StorageError: the write did not complete; the old file is intact.
    """
    path = Path(path)
    if picture.kind == "TIFF":
        write_tiff(path, picture, list(arrays))
    elif picture.kind == "NPY":
        write_image(path, arrays[0])
    elif picture.kind == "PNG":
        write_bytes(path, encode_png(arrays[0], picture))
    else:
        write_bytes(path, encode_pillow(arrays[0], picture.kind, picture, quality))


def write_image(path: str | os.PathLike[str], array: NDArray, quality: int | None = None) -> None:
    """Write one image atomically, in the format of the suffix. `read_image` gives the same array back, except from a JPEG.

    Args:
        path: with one of SUFFIXES.
        array: [H, W], [H, W, 3] (RGB), [H, W, 4] (RGBA; PNG, WebP, TIFF) or [H, W, 2] (gray and alpha; PNG), not empty; .npy takes any
            number of channels. PNG holds uint8 and uint16, JPEG, WebP and BMP uint8, TIFF and .npy integers to 32 bits and floats.
        quality: of a JPEG or WebP, 0 to 100, 95 by default.

    Raises:
        InputError: an unknown suffix, or an array that the format cannot hold.
        StorageError: the write did not complete; the old file is intact.
    """
    path, array = Path(path), np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    kind = _format(path)
    dtypes, channels = _WRITABLE[kind]
    shape_fits = array.ndim == 2 or (array.ndim == 3 and (channels is None or array.shape[2] in channels))
    if array.dtype.name not in dtypes or not array.size or not shape_fits:
        raise InputError(
            f"{path}: the array is {array.dtype} {array.shape}; {kind} holds {', '.join(dtypes)} as [H, W] or [H, W, C] "
            f"with C in {channels}: convert it, or write .npy"
        )
    if kind == "TIFF":
        with atomic_file(path, array.nbytes) as file:
            tifffile.imwrite(file, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None)
    elif kind == "NPY":
        with atomic_file(path, array.nbytes) as file:
            np.save(file, array, allow_pickle=False)
    else:
        write_bytes(path, encode_png(array) if kind == "PNG" else encode_pillow(array, kind, None, quality))


def _format(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: suffix {path.suffix!r} is unknown; expected one of {', '.join(SUFFIXES)}")
    return FORMATS[path.suffix.lower()]


def _read_npy(data: bytes, max_pixels: int) -> Picture:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FileFormatError(f"NumPy format version {version}; expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    check_dtype(dtype)
    if len(shape) not in (2, 3):
        raise FileFormatError(f"the array has shape {shape}; expected [H, W] or [H, W, C]")
    check_size(shape[1], shape[0], max_pixels)
    start, needed = file.tell(), prod(shape) * dtype.itemsize
    if not needed or len(data) - start != needed:
        raise FileFormatError(f"{len(data) - start} bytes of values; {dtype} {shape} needs {needed}")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    picture = interleaved(array.astype(dtype.newbyteorder("="), order="C"), "NPY")
    if picture.parts[0].channels.endswith("A"):  # nothing says so
        picture.parts[0].channels = "X" * len(picture.parts[0].channels)
    return picture
