"""JPEG, WebP and BMP (Pillow): pixels, EXIF, XMP, IPTC, ICC profile, resolution, comment.

An orientation in the EXIF data is applied and taken out of them, so that a picture stands as viewers show it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.WebPImagePlugin import WebPImageFile

from fastbsn.errors import FileFormatError
from fastbsn.io.checks import check_jpeg, check_size
from fastbsn.io.picture import Picture, interleaved

QUALITY = 95  # where the input had no lossy compression to be kept
# Opened by class: `Image.open` refuses what is above its own limit of pixels, which is one for the whole process.
_OPEN: dict[str, type[ImageFile]] = {"JPEG": JpegImageFile, "WEBP": WebPImageFile, "BMP": BmpImageFile}
_KEPT = ("exif", "xmp", "icc_profile", "dpi", "comment")
_END = b"\xff\xd9"


def read_pillow(data: bytes, kind: str, max_pixels: int) -> Picture:
    """L, RGB, RGBA and CMYK as they are, palettes and bits expanded."""
    warnings = []
    if kind == "JPEG" and not check_jpeg(data, max_pixels):
        data += _END
        _check_complete(data)
        warnings.append("no end-of-image marker; all pixels are there and were decoded")
    if kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise FileFormatError(f"truncated: {len(data)} bytes of {int.from_bytes(data[4:8], 'little') + 8}")
    with _OPEN[kind](io.BytesIO(data)) as image:
        check_size(image.width, image.height, max_pixels)
        if getattr(image, "n_frames", 1) > 1:
            raise FileFormatError(f"{image.n_frames} frames; expected one picture: save them as files, or as pages of a TIFF")  # type: ignore[attr-defined]
        kept = _compression(image, data)
        if "mp" in image.info:
            warnings.append("further pictures behind the first (a depth or gain map, a second view) are not kept")
        turned = ImageOps.exif_transpose(image)
        kept |= {name: turned.info[name] for name in _KEPT if turned.info.get(name)}
        if turned.mode in ("1", "P", "PA"):
            turned = turned.convert(
                "L" if turned.mode == "1" else "RGBA" if turned.mode == "PA" or "transparency" in turned.info else "RGB"
            )
        picture = interleaved(np.array(turned), kind, kept, warnings)
    if turned.mode == "CMYK":
        picture.parts[0].channels = "XXXX"
    return picture


def _check_complete(data: bytes) -> None:
    """Refuse JPEG data, given an end, whose pixels are not all there: decoders fill them with gray; this one can say so."""
    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=True, strict=True)
    except ValueError as error:
        if "extraneous" not in str(error):  # bytes behind the last pixel: a trailer
            raise FileFormatError(f"truncated: {len(data) - len(_END)} bytes, no end-of-image marker, pixels missing") from error


def _compression(image: ImageFile, data: bytes) -> dict[str, Any]:
    """Arguments of `Image.save` for the same compression."""
    if isinstance(image, JpegImageFile):
        sampling = get_sampling(image)
        segments = [body for name, body in image.applist if name == "APP13"]  # IPTC
        extra = b"".join(b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body for body in segments)
        kept: dict[str, Any] = {"qtables": image.quantization, "progressive": bool(image.info.get("progressive")), "extra": extra}
        return kept | ({"subsampling": sampling} if sampling >= 0 else {})
    lossless = isinstance(image, WebPImageFile) and b"VP8L" in data[:64]
    return {"lossless": True, "exact": True} if lossless else {}  # exact: under full transparency too


def encode_pillow(image: NDArray, kind: str, picture: Picture | None = None, quality: int | None = None) -> bytes:
    """[H, W] or [H, W, C] of uint8.

    Args:
        image: four channels are RGBA in a WebP, CMYK in a JPEG.
        kind: "JPEG", "WEBP" or "BMP".
        picture: whose metadata and compression are kept.
        quality: of JPEG and WebP, 0 to 100; None: as compressed before, or QUALITY.
    """
    options = dict(picture.kept) if picture else {}
    if quality is not None or "qtables" not in options:
        for name in ("qtables", "subsampling"):
            options.pop(name, None)
        options["quality"] = QUALITY if quality is None else quality
    if quality is not None:
        options |= {"lossless": False}
    mode = "CMYK" if kind == "JPEG" and image.ndim == 3 and image.shape[2] == 4 else None
    file = io.BytesIO()
    made = Image.fromarray(np.ascontiguousarray(image)) if mode is None else _cmyk(image)
    made.save(file, kind, **options)
    return file.getvalue()


def _cmyk(image: NDArray) -> Image.Image:
    return Image.frombytes("CMYK", (image.shape[1], image.shape[0]), np.ascontiguousarray(image).tobytes())
