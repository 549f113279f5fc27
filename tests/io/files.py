"""Makers of unusual but valid image files, and of damage."""

from __future__ import annotations

import struct
import zlib

import numpy as np

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, dx, dy


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    array: np.ndarray, colour: int | None = None, extra: bytes = b"", interlaced: bool = False, size: tuple[int, int] | None = None
) -> bytes:
    """A PNG of [H, W] or [H, W, C], with `extra` chunks before the pixels, and perhaps another (width, height) in its header."""
    array = np.atleast_3d(array)
    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
    header = struct.pack(">IIBBBBB", *(size or (width, height)), 8 * array.itemsize, colour, 0, 0, interlaced)
    big = array.astype(array.dtype.newbyteorder(">"))
    parts = [big[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [big]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def repair_checksums(data: bytes) -> bytes:
    """Right checksums for every chunk of a damaged PNG, so that the damage reaches the decoder."""
    fixed, position = bytearray(data), 8
    while position + 12 <= len(fixed):
        end = position + 8 + int.from_bytes(fixed[position : position + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(fixed)


def exif(orientation: int) -> bytes:
    """A JPEG APP1 segment with one tag."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
