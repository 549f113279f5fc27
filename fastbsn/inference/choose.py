"""Which bundled model an image takes: by its channels, and by whether its noise is white.

White noise is as strong in the smallest eigenvalues of patch covariances, which `noise_level` reads, as in flat blocks. What a camera,
JPEG or a resampling has smoothed is not: its spectrum has valleys. Measured on 17 images of CBSD68 each: the ratio of the two is 0.8 to
1.05 for white noise of sigma 15 to 50, and at most 0.45 for smoothed noise and for JPEG of quality 80 to 95; 0.4 or less on most of PolyU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.inference.frames import Frames
from fastbsn.nets import noise_level

BLOCK = 16  # pixels on a side of the blocks in which the noise is looked at
FLATTEST = 0.05
WHITE_RATIO = 0.6
WEAKEST = 1.5 / 255  # white noise below this is no reason to take another model


class Choice(NamedTuple):
    model: str
    reason: str


def flat_deviation(y: Tensor) -> float:
    """Standard deviation in the flattest blocks of [C, H, W] less their best planes, in the image's units; 0 where all are constant."""
    c, h, w = y.shape
    x = F.pad(y[None], (0, max(0, BLOCK - w), 0, max(0, BLOCK - h)), mode="replicate")
    blocks = F.unfold(x, BLOCK, stride=BLOCK)[0].unflatten(0, (c, BLOCK**2))  # [C, B^2, n]
    axis = torch.linspace(-1, 1, BLOCK)
    basis = torch.stack([torch.ones(BLOCK, BLOCK), axis[:, None].expand(BLOCK, BLOCK), axis.expand(BLOCK, BLOCK)]).flatten(1)
    q = torch.linalg.qr(basis.T).Q.to(blocks)  # [B^2, 3]
    deviation = (blocks - q @ (q.T @ blocks)).square().mean((0, 1)).sqrt()
    deviation = deviation[deviation > 1e-6].sort().values
    return float(deviation[: max(4, int(FLATTEST * len(deviation)))].mean()) if len(deviation) else 0.0


def is_white(pieces: list[Tensor]) -> tuple[bool, float, float]:
    """Whether the noise of an image is white, its level as white noise, and its level in flat blocks.

    Args:
        pieces: windows of one image, [C, h, w] in [0, 1] units.
    """
    level, flat = noise_level(pieces), min(flat_deviation(p) for p in pieces)
    return level >= WEAKEST and level >= WHITE_RATIO * flat, level, flat


def choose_model(frames: Frames) -> Choice:
    """The bundled model for a picture or a stack, judged by its first frame, and why.

    Args:
        frames: opened for three channels where there are three, alpha aside.

    Gray and unrelated channels, and colour files whose channels are the same, take the gray model, channel by channel; colour takes
    `color-awgn` where the noise is white, else `color-photo`.
    """
    if frames.count == 0 or frames.depth != 3:
        return Choice("gray-awgn", f"{frames.depth} channel{'s' if frames.depth != 1 else ''}, each by itself")
    pieces = [p[0] for p in frames.samples(0)]
    if all(torch.equal(p[0], p[1]) and torch.equal(p[0], p[2]) for p in pieces):
        return Choice("gray-awgn", "gray, stored in three channels")
    white, level, flat = is_white(pieces)
    found = f"{255 * level:.1f} of 255 as white noise, {255 * flat:.1f} in flat areas"
    return Choice("color-awgn", f"white noise: {found}") if white else Choice("color-photo", f"a photograph: {found}")
