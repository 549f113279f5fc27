"""Single images: PNG and JPEG (OpenCV), TIFF (tifffile), NumPy. RGB order; nothing is decoded before the file is checked.

JPEG orientation tags are applied, so that a picture stands as viewers show it and still does when it is written without the tag.
PNG colour chunks (gAMA, iCCP, sRGB) are ignored: pixel values are those in the file.
"""

from __future__ import annotations

import io
import os
from math import prod
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.atomic import atomic_file, read_bytes, write_bytes
from fastbsn.io.checks import DTYPES, check_dtype, check_jpeg, check_page, check_png, check_size, check_tiff

MAX_PIXELS = 2**28  # 16384 x 16384
MAX_FILE = 2**34  # bytes
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY"}
SUFFIXES = tuple(FORMATS)
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x93NUMPY": "NPY",
}
_WRITABLE = {"PNG": ("uint8", "uint16"), "JPEG": ("uint8",), "TIFF": DTYPES, "NPY": DTYPES}


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images directly in `folder`, by suffix, sorted by name; hidden files are left out.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the name")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in FORMATS and p.name[0] != "." and p.is_file())


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray:
    """Read one image.

    Args:
        path: a file with one of SUFFIXES, whose content is what the suffix says.
        max_pixels: refuse larger images, by their header and before anything is allocated.

    Returns:
        [H, W] (gray) or [H, W, C] (RGB, RGBA) in the file's dtype. In a PNG, gray with alpha becomes RGBA and a palette RGB(A).

    Raises:
        InputError: no such file, or an unknown suffix.
        FileFormatError: truncated, damaged, too large, another format than the suffix says, or an unsupported kind of pixel.
    """
    path = Path(path)
    _format(path)
    return decode_image(read_bytes(path, MAX_FILE), str(path), max_pixels)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray:
    """`read_image` of a file that is in memory; its name has one of SUFFIXES and stands in the messages."""
    kind = _format(Path(name))
    found = next((format for magic, format in _MAGIC.items() if data.startswith(magic)), "unknown")
    if found != kind:
        raise FileFormatError(f"{name}: the content is {found} and the name says {kind}; rename or convert the file")
    read = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff, "NPY": _read_npy}[kind]
    try:
        return read(data, max_pixels)
    except FileFormatError as error:
        raise FileFormatError(f"{name}: {error}") from error
    except Exception as error:  # the decoders document no exceptions, and a damaged file provokes any
        raise FileFormatError(f"{name}: damaged {kind} file ({type(error).__name__}: {error}); copy or export it again") from error


def write_image(path: str | os.PathLike[str], array: NDArray, quality: int = 95) -> None:
    """Write one image atomically, in the format of the suffix. `read_image` gives the same array back, except from a JPEG.

    Args:
        path: with one of SUFFIXES.
        array: [H, W], [H, W, 3] (RGB) or [H, W, 4] (RGBA; not for JPEG), not empty; .npy takes any number of channels.
            PNG holds uint8 and uint16, JPEG uint8, TIFF and .npy also float16, float32 and float64.
        quality: of a JPEG, 0 to 100.

    Raises:
        InputError: an unknown suffix, or an array that the format cannot hold.
        StorageError: the write did not complete; the old file is intact.
    """
    path, array = Path(path), np.asarray(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # OpenCV would take the bytes as they are
    kind = _format(path)
    channels = (3,) if kind == "JPEG" else (3, 4)
    shape_fits = array.ndim == 2 or (array.ndim == 3 and (array.shape[2] in channels or kind == "NPY"))
    if array.dtype.name not in _WRITABLE[kind] or not array.size or not shape_fits:
        raise InputError(
            f"{path}: the array is {array.dtype} {array.shape}; {kind} holds {', '.join(_WRITABLE[kind])} as [H, W] or [H, W, C] "
            f"with C in {channels}: convert it, or write .npy"
        )
    if kind == "TIFF":
        with atomic_file(path, array.nbytes) as file:
            tifffile.imwrite(file, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None)
    elif kind == "NPY":
        with atomic_file(path, array.nbytes) as file:
            np.save(file, array, allow_pickle=False)
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "JPEG" else []
        write_bytes(path, cv2.imencode(path.suffix.lower(), _swap(array), options)[1].tobytes())


def _format(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: suffix {path.suffix!r} is unknown; expected one of {', '.join(SUFFIXES)}")
    return FORMATS[path.suffix.lower()]


def _swap(array: NDArray) -> NDArray:
    """RGB(A) <-> BGR(A)."""
    return array if array.ndim == 2 else np.ascontiguousarray(array[..., [2, 1, 0, 3][: array.shape[2]]])


def _decode(data: bytes, flags: int) -> NDArray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise FileFormatError("OpenCV cannot decode it: damaged, or of an unsupported kind")
    return _swap(image)


def _read_png(data: bytes, max_pixels: int) -> NDArray:
    check_png(data, max_pixels)
    return _decode(data, cv2.IMREAD_UNCHANGED)


def _read_jpeg(data: bytes, max_pixels: int) -> NDArray:
    check_jpeg(data, max_pixels)
    return _decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)  # IMREAD_UNCHANGED would ignore the orientation


def _read_tiff(data: bytes, max_pixels: int) -> NDArray:
    file = io.BytesIO(data)
    check_tiff(file)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) != 1:
            raise FileFormatError(f"{len(tiff.pages)} pages; expected 1: use fastbsn.io.stacks.read_stack")
        page = tiff.pages.first
        check_page(page, len(data), max_pixels)
        image = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3:
        image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    return standard(image, page)


def standard(image: NDArray, page: tifffile.TiffPage) -> NDArray:
    """Samples of a TIFF page in the byte order of this machine, white above black."""
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind == "u":
        image = np.iinfo(image.dtype).max - image
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _read_npy(data: bytes, max_pixels: int) -> NDArray:
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
    return array.astype(dtype.newbyteorder("="), order="C")
