"""What a person sees of an image: one picture of 8 bits, the noise in it, and before | after under a slider."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from fastbsn.nets import noise_level

WINDOW, WINDOWS = 512, 16  # pixels on a side, and number, of the windows that the noise is measured on


class View(NamedTuple):
    """Two pictures of one size, uint8 [H, W] or [H, W, 3]."""

    before: NDArray
    after: NDArray


def picture(x: NDArray, axes: str) -> NDArray:
    """One picture [H, W, C] of 1 or 3 channels: the middle of a stack; without alpha; the first of channels that are no colours."""
    middle = tuple(slice(None) if a in "YXC" else n // 2 for a, n in zip(axes, x.shape, strict=True))
    left = [a for a in axes if a in "YXC"]
    flat = np.atleast_3d(x[middle].transpose([left.index(a) for a in "YXC" if a in left]))
    return flat[..., :3] if flat.shape[2] in (3, 4) else flat[..., :1]


def view(before: NDArray, after: NDArray) -> View:
    """Two pictures [H, W, C] as they are shown: 8 bits as they are, all else from the darkest to the brightest 0.1 % of the result."""
    low, high = (0.0, 255.0) if before.dtype == np.uint8 else map(float, np.nanquantile(after, (0.001, 0.999)))
    scale = 255 / (high - low) if high > low else 0.0

    def show(x: NDArray) -> NDArray:
        shown = np.rint(np.clip((np.nan_to_num(x.astype(np.float32)) - low) * scale, 0, 255)).astype(np.uint8)
        return shown[..., 0] if shown.shape[2] == 1 else shown

    return View(show(before), show(after))


def noise_found(x: NDArray) -> float:
    """Standard deviation of the white noise in a picture [H, W, C], in its own units; see `fastbsn.nets.noise_level`."""
    windows = [(top, left) for top in range(0, x.shape[0], WINDOW) for left in range(0, x.shape[1], WINDOW)]
    pieces = [x[top : top + WINDOW, left : left + WINDOW] for top, left in windows[:: -(-len(windows) // WINDOWS)]]
    return noise_level([torch.from_numpy(np.nan_to_num(p.transpose(2, 0, 1).astype(np.float32))) for p in pieces])


def encode(x: NDArray, suffix: str = ".jpg") -> bytes:
    """A shown picture as a JPEG without subsampling, or as a PNG."""
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    }
    return cv2.imencode(suffix, np.ascontiguousarray(x[..., ::-1] if x.ndim == 3 else x), options[suffix])[1].tobytes()


def data_url(x: NDArray) -> str:
    """A shown picture as an address that holds it."""
    return "data:image/jpeg;base64," + b64encode(encode(x)).decode()


@cache
def templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def slider(name: str, before: str, after: str, height: int, width: int) -> str:
    """HTML of two pictures, one over the other at 100 %, and the slider between them.

    Args:
        name: of the image, for people who cannot see it.
        before, after: addresses of the pictures.
        height, width: of both, in pixels.
    """
    return templates().get_template("slider.html").render(name=name, before=before, after=after, height=height, width=width)
