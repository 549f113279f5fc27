"""Single images: PNG and JPEG (OpenCV), TIFF (tifffile), NumPy. RGB order; nothing is allocated before the header is checked.

JPEG orientation tags are applied, so that a picture stands as a viewer shows it and stays so when it is written without the tag.
PNG colour chunks (gAMA, iCCP, sRGB) are ignored: pixel values are those of the file.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from math import prod
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.atomic import atomic_file, read_bytes, write_bytes

MAX_PIXELS = 2**28  # 16384 x 16384; per image, or per page of a stack
MAX_FILE = 2**34  # bytes
DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
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
_MAX_DEFLATE = 1032  # bytes that one byte of deflate can stand for
_MAX_SCANS = 100  # of a progressive JPEG; each one costs a pass over the image
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # the next marker in entropy-coded data
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The images directly in `folder`, by suffix, sorted by name; hidden files are left out.

    Raises:
        InputError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the name")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in FORMATS and p.name[0] != "." and p.is_file())


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels or with more than `max_pixels`."""
    if width < 1 or height < 1 or width * height > max_pixels:
        raise FileFormatError(
            f"the header says {width} x {height} pixels; expected 1 to {max_pixels}: if the file is trusted, pass a larger max_pixels"
        )


def check_dtype(dtype: np.dtype) -> None:
    """Refuse sample types that are not in DTYPES."""
    if dtype.name not in DTYPES:
        raise FileFormatError(f"samples are {dtype}; expected one of {', '.join(DTYPES)}: convert the file")


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray:
    """Read one image.

    Args:
        path: a file with one of SUFFIXES, whose content is what the suffix says.
        max_pixels: refuse larger images (by their header, before anything is allocated).

    Returns:
        [H, W] (gray) or [H, W, C] (RGB, RGBA) in the file's dtype; gray with alpha and palettes in a PNG become RGBA and RGB.

    Raises:
        InputError: no such file, or an unknown suffix.
        FileFormatError: truncated, damaged, too large, another format than the suffix says, or an unsupported kind of pixel.
    """
    path = Path(path)
    kind = _format(path)
    data = read_bytes(path, MAX_FILE)
    found = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "unknown")
    if found != kind:
        raise FileFormatError(f"{path}: content is {found}, and the name says {kind}; rename or convert the file")
    read = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff, "NPY": _read_npy}[kind]
    try:
        return read(data, max_pixels)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except Exception as error:  # the decoders document no exceptions, and a hostile file can provoke any
        raise FileFormatError(f"{path}: damaged {kind} file ({type(error).__name__}: {error}); copy or export it again") from error


def write_image(path: str | os.PathLike[str], array: NDArray, quality: int = 95) -> None:
    """Write one image atomically, in the format of the suffix; `read_image` gives the same array back (JPEG: nearly).

    Args:
        path: with one of SUFFIXES.
        array: [H, W], [H, W, 3] RGB or [H, W, 4] RGBA, not empty. PNG: uint8, uint16; JPEG: uint8, no alpha; TIFF and .npy: all DTYPES.
        quality: of a JPEG, 0 to 100.

    Raises:
        InputError: an unknown suffix, or an array that the format cannot hold.
        StorageError: the write did not complete; the old file is intact.
    """
    path, array = Path(path), np.asarray(array)
    kind = _format(path)
    types = {"PNG": DTYPES[:2], "JPEG": DTYPES[:1]}.get(kind, DTYPES)
    channels = (3,) if kind == "JPEG" else (3, 4)
    if array.dtype.name not in types or not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in channels)):
        raise InputError(
            f"{path}: array is {array.dtype} {array.shape}; {kind} holds {', '.join(types)} as [H, W] or [H, W, C] with "
            f"C in {channels}: convert it, or write .tif or .npy"
        )
    if kind == "TIFF":
        with atomic_file(path, array.nbytes) as file:
            tifffile.imwrite(file, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None)
    elif kind == "NPY":
        with atomic_file(path, array.nbytes) as file:
            np.save(file, array, allow_pickle=False)
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "JPEG" else []
        write_bytes(path, cv2.imencode(path.suffix.lower(), _swap(array), options)[1].data)


def _format(path: Path) -> str:
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: suffix {path.suffix!r} is unknown; expected one of {', '.join(SUFFIXES)}")
    return FORMATS[path.suffix.lower()]


def _swap(array: NDArray) -> NDArray:
    """RGB(A) <-> BGR(A)."""
    if array.ndim == 2:
        return array
    return np.ascontiguousarray(array[..., [2, 1, 0, 3][: array.shape[2]]])


def _decode(data: bytes, flags: int) -> NDArray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise FileFormatError("OpenCV cannot decode it; the file is damaged or of an unsupported kind")
    return _swap(image)


def _read_png(data: bytes, max_pixels: int) -> NDArray:
    """Check every chunk and the length of the pixel data first: decoders fill what is missing with zeros."""
    position, chunks, packed = 8, [], []
    while not chunks or chunks[-1] != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) != 4:
            raise FileFormatError(f"truncated at {len(data)} bytes, in a chunk that ends at {position + 12 + length}")
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise FileFormatError(f"checksum of chunk {name!r} at byte {position} is wrong")
        if not chunks:
            if name != b"IHDR" or length != 13:
                raise FileFormatError("the first chunk is not a PNG header")
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            check_size(width, height, max_pixels)
            depth, colour, interlaced = body[8], body[9], body[12]
        if name == b"IDAT":
            packed.append(body)
        chunks.append(name)
        position += 12 + length
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    expected = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    stored = sum(map(len, packed))
    if expected > stored * _MAX_DEFLATE or (got := _inflated(packed, expected)) != expected:
        got = got if expected <= stored * _MAX_DEFLATE else stored * _MAX_DEFLATE
        raise FileFormatError(f"the pixel data hold at most {got} bytes; {width} x {height} pixels need {expected}")
    return _decode(data, cv2.IMREAD_UNCHANGED)


def _inflated(packed: list[bytes], expected: int) -> int:
    """Length of the deflated pixel data, without holding them; stops above `expected`."""
    inflate, total = zlib.decompressobj(), 0
    for piece in packed:
        while piece and total <= expected:
            total += len(inflate.decompress(piece, 2**20))
            piece = inflate.unconsumed_tail
    return total if inflate.eof or total > expected else -1


def _read_jpeg(data: bytes, max_pixels: int) -> NDArray:
    """Walk the markers to the end of the image first: decoders fill what is missing with gray."""
    position, scans, frame = 2, 0, None
    while True:
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise FileFormatError(f"truncated at {len(data)} bytes: no end-of-image marker")
        marker, position = match[1][0], match.end()
        if marker == 0xD9:
            break
        if marker == 0xD8:
            raise FileFormatError("a second image starts inside the first")
        length = int.from_bytes(data[position : position + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise FileFormatError("more than one frame header")
            frame = data[position + 2 : position + length]
            check_size(int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"), max_pixels)
        scans += marker == 0xDA
        position += max(length, 2)
    if frame is None or not 1 <= scans <= _MAX_SCANS:
        raise FileFormatError(f"{0 if frame is None else 1} frame headers and {scans} scans; expected 1, and 1 to {_MAX_SCANS}")
    height, width, components = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[7::3]
    horizontal, vertical = max(c >> 4 for c in components), max(c & 15 for c in components)
    possible = len(data) * 8 * (8 * horizontal) * (8 * vertical)  # at least one bit for every block of the smallest kind
    if width * height > possible:
        raise FileFormatError(f"{len(data)} bytes cannot hold {width} x {height} pixels")
    return _decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)


def _read_tiff(data: bytes, max_pixels: int) -> NDArray:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            raise FileFormatError(f"{len(tiff.pages)} pages; expected 1: use fastbsn.io.stacks.read_stack")
        return read_page(tiff.pages[0], len(data), max_pixels)


def read_page(page: tifffile.TiffPage, file_size: int, max_pixels: int) -> NDArray:
    """One checked page of a TIFF file of `file_size` bytes: [H, W] or [H, W, C]."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.imagedepth != 1 or not 1 <= page.samplesperpixel <= 4:
        raise FileFormatError(f"{page.imagedepth} planes deep with {page.samplesperpixel} samples per pixel; expected 1, and 1 to 4")
    if page.dtype is None:
        raise FileFormatError(f"samples have {page.bitspersample} bits; expected one of {', '.join(DTYPES)}")
    check_dtype(page.dtype)
    interpretation = tifffile.PHOTOMETRIC
    if page.photometric not in (interpretation.MINISBLACK, interpretation.MINISWHITE, interpretation.RGB, interpretation.YCBCR):
        raise FileFormatError(f"photometric interpretation {page.photometric!r}; expected gray or RGB: convert the file")
    stored = sum(page.databytecounts)
    inside = all(o > 0 and n > 0 and o + n <= file_size for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    ratio = {1: 1, 5: 4096, 8: _MAX_DEFLATE, 32946: _MAX_DEFLATE}.get(page.compression)  # none, LZW, deflate
    if not inside or (ratio and page.nbytes > stored * ratio):
        raise FileFormatError(f"truncated: {page.nbytes} bytes of pixels, {stored} bytes stored, file of {file_size} bytes")
    image = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3:
        image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    if page.photometric == interpretation.MINISWHITE:
        image = np.iinfo(image.dtype).max - image
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _read_npy(data: bytes, max_pixels: int) -> NDArray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise FileFormatError(f"NumPy format version {version}; expected 1.0 or 2.0")
    shape, fortran, dtype = read(file)
    check_dtype(dtype)
    if len(shape) not in (2, 3) or any(n < 1 for n in shape):
        raise FileFormatError(f"array has shape {shape}; expected [H, W] or [H, W, C], not empty")
    check_size(shape[1], shape[0], max_pixels)
    left = len(data) - file.tell()
    if left != prod(shape) * dtype.itemsize:
        raise FileFormatError(f"{left} bytes of values; shape {shape} of {dtype} needs {prod(shape) * dtype.itemsize}")
    array = np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C")
