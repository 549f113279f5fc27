"""What must be true of an image file before a decoder sees it. Decoders fill what is missing with gray, and allocate what is claimed."""

from __future__ import annotations

import re
import struct
import zlib
from typing import BinaryIO

import numpy as np
import tifffile

from fastbsn.errors import FileFormatError

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
# Bytes that one stored byte can stand for, by TIFF compression: none, LZW, deflate, deflate; others at most as zstd.
_TIFF_RATIOS = {1: 1, 5: 4096, 8: 1032, 32946: 1032}
_MAX_RATIO = 2**15
_TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes, by type
_MAX_PAGES = 2**16
_MAX_TAGS = 2**12
_MAX_SCANS = 100  # of a progressive JPEG; each one costs a pass over the image
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # the next marker in entropy-coded data
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MAX_SAMPLES = 2**10  # of a TIFF pixel


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels or with more than `max_pixels`."""
    if width < 1 or height < 1 or width * height > max_pixels:
        raise FileFormatError(
            f"the header says {width} x {height} pixels; expected 1 to {max_pixels} in all: pass a larger max_pixels if you trust the file"
        )


def check_dtype(dtype: np.dtype | None) -> None:
    """Refuse sample types that are not in DTYPES."""
    if dtype is None or dtype.name not in DTYPES:
        raise FileFormatError(f"samples are {dtype or 'of an unknown type'}; expected one of {', '.join(DTYPES)}: convert the file")


def check_png(data: bytes, max_pixels: int) -> list[tuple[bytes, bytes]]:
    """Every chunk with its checksum up to IEND, and pixel data that inflate to the size in the header; returns the other chunks."""
    position, name, header, packed, others = 8, b"", b"", [], []
    while name != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) != 4:
            raise FileFormatError(f"truncated: {len(data)} bytes, and a chunk that ends at {position + 12 + length}")
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise FileFormatError(f"the checksum of chunk {name!r} at byte {position} is wrong")
        if position == 8:
            if name != b"IHDR" or length != 13 or body[9] not in _PNG_CHANNELS:
                raise FileFormatError(f"the first chunk is {name!r} with {length} bytes; expected a PNG header")
            header = body
            check_size(int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big"), max_pixels)
        if name == b"acTL":
            raise FileFormatError("an animated PNG; expected one picture: save its frames as files, or as pages of a TIFF")
        if name == b"IDAT":
            packed.append(body)
        else:
            others.append((name, body))
        position += 12 + length
    _check_pixel_data(header, packed)
    return others


def _check_pixel_data(header: bytes, packed: list[bytes]) -> None:
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _PNG_CHANNELS[header[9]]
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    expected = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    inflate, total = zlib.decompressobj(), 0
    for piece in packed:
        while piece and total <= expected:
            total += len(inflate.decompress(piece, 2**20))
            piece = inflate.unconsumed_tail
    if total < expected or (total == expected and not inflate.eof):
        raise FileFormatError(f"the pixel data end after {total} bytes; {width} x {height} pixels need {expected} and a checksum")


def check_jpeg(data: bytes, max_pixels: int) -> bool:
    """Every marker up to the end of the image: one frame, few scans, and enough bytes for the size in the header.

    Returns:
        Whether there is an end-of-image marker; without one, the file must have a single scan, as all sequential ones with
        interleaved components do: whether further scans are missing could not be known.
    """
    position, scans, frame, frame_marker, whole, ended = 2, 0, b"", 0, False, False
    while match := _JPEG_MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == 0xD9:
            ended = True
            break
        length = int.from_bytes(data[position : position + 2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame:
                raise FileFormatError("two frame headers; expected one")
            frame, frame_marker = data[position + 2 : position + length], marker
            check_size(int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"), max_pixels)
        scans += marker == 0xDA
        if marker == 0xDA:  # sequential, with all components interleaved: the only scan
            whole = frame_marker in (0xC0, 0xC1) and data[position + 2 : position + 3] == frame[5:6]
        position += max(length, 2)
    if not ended and not (scans == 1 and whole):
        raise FileFormatError(f"truncated: {len(data)} bytes, {scans} scans and no end-of-image marker")
    if len(frame) < 9 or not 1 <= scans <= _MAX_SCANS:
        raise FileFormatError(f"{scans} scans and {len(frame)} bytes of frame header; expected 1 to {_MAX_SCANS}, and at least 9")
    factors = frame[7::3]
    block = 64 * max(f >> 4 for f in factors) * max(f & 15 for f in factors)  # pixels, coded in at least one bit
    width, height = int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
    if width * height > len(data) * 8 * block:
        raise FileFormatError(f"{len(data)} bytes cannot hold {width} x {height} pixels")
    return ended


def check_tiff(file: BinaryIO) -> None:
    """A chain of directories that ends, with every value inside the file: tifffile follows a loop for ever."""
    size = file.seek(0, 2)
    file.seek(0)
    magic = file.read(4)
    start, number, entry, offset_type = (8, "Q", "HHQQ", "Q") if b"+" in magic else (4, "H", "HHII", "I")
    order, inline = "<" if magic[:2] == b"II" else ">", struct.calcsize(offset_type)

    def read(position: int, kind: str) -> tuple[int, ...]:
        file.seek(position)
        data = file.read(struct.calcsize(order + kind))
        if len(data) < struct.calcsize(order + kind):
            raise FileFormatError(f"truncated: {size} bytes, and a directory at {position}")
        return struct.unpack(order + kind, data)

    (offset,), seen = read(start, offset_type), set[int]()
    while offset:
        if offset in seen or len(seen) == _MAX_PAGES:
            raise FileFormatError(f"its {len(seen)} pages form a loop, or are more than {_MAX_PAGES}")
        seen.add(offset)
        (tags,) = read(offset, number)
        if tags > _MAX_TAGS:
            raise FileFormatError(f"{tags} tags in one directory; expected at most {_MAX_TAGS}")
        *values, next_offset = read(offset + struct.calcsize(number), entry * tags + offset_type)
        for tag, kind, count, value in zip(*(values[i::4] for i in range(4)), strict=True):
            width = _TIFF_WIDTHS.get(kind, 0)  # tifffile skips unknown types, as it should
            if count * width > inline and value + count * width > size:
                raise FileFormatError(f"tag {tag} has {count} values of type {kind} at {value}; the file has {size} bytes")
        offset = next_offset


def check_page(page: tifffile.TiffPage, file_size: int, max_pixels: int) -> int:
    """Size, sample type, kind of colour, and segments inside a file of `file_size` bytes; returns the bytes they take."""
    check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.dtype is None or page.dtype != np.bool_:  # one bit
        check_dtype(page.dtype)
    assert page.dtype is not None
    if page.imagedepth != 1 or not 1 <= page.samplesperpixel <= _MAX_SAMPLES:
        raise FileFormatError(f"depth {page.imagedepth} and {page.samplesperpixel} samples per pixel; expected 1, and 1 to {_MAX_SAMPLES}")
    kinds = tifffile.PHOTOMETRIC
    if page.photometric not in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB, kinds.YCBCR, kinds.PALETTE, kinds.SEPARATED):
        raise FileFormatError(f"photometric interpretation {page.photometric!r}; expected gray, RGB, palette or CMYK: convert the file")
    if page.photometric == kinds.PALETTE and (page.dtype.itemsize > 2 or page.samplesperpixel > 1 or page.colormap is None):
        raise FileFormatError(f"a palette of {page.dtype} indices, {page.samplesperpixel} per pixel; expected one of at most 16 bits")
    stored = sum(page.databytecounts)
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    possible = stored * _TIFF_RATIOS.get(page.compression, _MAX_RATIO)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else min(page.bitspersample)
    packed = page.nbytes * bits // (8 * page.dtype.itemsize)  # of 12 bits, or 1
    if not all(o > 0 and n > 0 and o + n <= file_size for o, n in segments) or packed > possible:
        raise FileFormatError(f"truncated: {page.nbytes} bytes of pixels from {stored} stored ones, in a file of {file_size}")
    return stored
