"""PNG (imagecodecs): pixels are decoded and encoded, every other chunk that holds for the new pixels too is copied."""

from __future__ import annotations

import zlib

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from fastbsn.io.checks import check_png
from fastbsn.io.picture import Picture, interleaved

_COLOUR = (b"gAMA", b"cHRM", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI")  # not safe to copy in general, but values keep their meaning
_LEVEL = 1  # of deflate: noise is hardly compressed better by a higher one
_HEADER_END = 33  # signature and IHDR


def read_png(data: bytes, max_pixels: int) -> Picture:
    """Palettes and fewer than 8 bits are expanded; gray with alpha stays gray with alpha."""
    chunks = check_png(data, max_pixels)
    safe = [(name, body) for name, body in chunks if name in _COLOUR or (name[0] & 32 and name[3] & 32)]  # lower case: PNG, section 5.4
    return interleaved(imagecodecs.png_decode(data), "PNG", {"chunks": safe})


def encode_png(image: NDArray, picture: Picture | None = None) -> bytes:
    """[H, W] or [H, W, C] of uint8 or uint16 with C up to 4; with the chunks that `picture` keeps."""
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(image), level=_LEVEL))
    chunks = picture.kept.get("chunks", []) if picture else []
    copied = b"".join(len(b).to_bytes(4, "big") + n + b + zlib.crc32(b, zlib.crc32(n)).to_bytes(4, "big") for n, b in chunks)
    return data[:_HEADER_END] + copied + data[_HEADER_END:]
