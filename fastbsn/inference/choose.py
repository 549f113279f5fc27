"""Which bundled model an image takes: by its channels, and by whether its noise is white.

White noise is as strong in the smallest eigenvalues of patch covariances, which `noise_level` reads, as in flat blocks. What a camera,
JPEG or a resampling has smoothed is not: its spectrum has valleys. Measured on 17 images of CBSD68 each: the ratio of the two is 0.8 to
1.05 for white noise of sigma 15 to 50, at most 0.45 for smoothed noise, and with few exceptions (0.64) for JPEG of quality 80 to 95; 0.55
or less on nine in ten photographs of PolyU. Noise that is alike in all channels is not white either.

Strong white noise, from which JPEG or a likeness of the channels took that, is still known by luma: with JPEG of quality 90 and sigma 10
the ratio there is 0.93 or more, on PolyU at most 0.41, of smoothed noise 0.47. Weaker noise, and that of lower quality, is better left to
the model of photographs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.inference.frames import Frames
from fastbsn.inference.ranges import DataRange
from fastbsn.nets import noise_level
from fastbsn.pixels import luma

BLOCK = 16  # pixels on a side of the blocks in which the noise is looked at
FLATTEST = 0.05
WHITE_RATIO = 0.6
LARGEST_CORRELATION = 0.15  # between channels, of noise that is taken for independent
LUMA_RATIO, STRONG = 0.85, 6.5 / 255  # in luma, from which noise is taken for white noise that was stored as JPEG
WEAKEST = 0.3 / 255  # white noise below this is no reason to take another model


class Choice(NamedTuple):
    model: str
    reason: str


def flat_noise(y: Tensor) -> tuple[float, float]:
    """What the flattest blocks of [C, H, W] hold besides their best planes: standard deviation, and the correlation between
    channels of its finest part.

    Both 0 where all blocks are constant.
    """
    c, h, w = y.shape
    x = F.pad(y[None], (0, max(0, BLOCK - w), 0, max(0, BLOCK - h)), mode="replicate")
    blocks = F.unfold(x, BLOCK, stride=BLOCK)[0].unflatten(0, (c, BLOCK**2))  # [C, B^2, n]
    axis = torch.linspace(-1, 1, BLOCK)
    basis = torch.stack([torch.ones(BLOCK, BLOCK), axis[:, None].expand(BLOCK, BLOCK), axis.expand(BLOCK, BLOCK)]).flatten(1)
    q = torch.linalg.qr(basis.T).Q.to(blocks)  # [B^2, 3]
    residual = blocks - q @ (q.T @ blocks)
    deviation = residual.square().mean((0, 1)).sqrt()
    alive = (deviation > 1e-6).nonzero().flatten()
    if not len(alive):
        return 0.0, 0.0
    flattest = alive[deviation[alive].argsort()[: max(4, int(FLATTEST * len(alive)))]]
    x = blocks[:, :, flattest].unflatten(1, (BLOCK, BLOCK))
    diagonal = x[:, 1:, 1:] - x[:, 1:, :-1] - x[:, :-1, 1:] + x[:, :-1, :-1]  # of a texture least is left in these differences
    correlation = torch.corrcoef(diagonal.flatten(1)) if c > 1 else torch.ones(1, 1)
    between = (correlation.sum() - c) / (c * (c - 1)) if c > 1 else torch.zeros(())
    return float(deviation[flattest].mean()), float(between.nan_to_num())


class Noise(NamedTuple):
    """level: as white noise; flat: standard deviation in flat areas; between: correlation between channels there."""

    level: float
    flat: float
    between: float

    @classmethod
    def of(cls, pieces: list[Tensor]) -> Noise:
        """The noise of one image, from windows of it, [C, h, w] in [0, 1] units."""
        return cls(noise_level(pieces), *min(flat_noise(p) for p in pieces))

    @property
    def is_white(self) -> bool:
        """Independent over pixels and channels, and more than hardly any."""
        return self.level >= max(WEAKEST, WHITE_RATIO * self.flat) and self.between < LARGEST_CORRELATION

    @property
    def was_white(self) -> bool:
        """Of luma: strong, and independent over pixels."""
        return self.level >= max(STRONG, LUMA_RATIO * self.flat)


def choose_for(values: Any, axes: str, colour: bool, data_range: DataRange | None = None, repair: str = "auto") -> Choice:
    """The bundled model for channels of a file, channels first: colour, or each by itself (see `inference.parts`)."""
    if colour:
        return choose_model(Frames(values, 3, axes, data_range=data_range, mend=repair))
    return _each_by_itself(len(values))


def _each_by_itself(channels: int) -> Choice:
    return Choice("gray-awgn", f"{channels} channel{'s' if channels != 1 else ''}, each by itself")


def choose_model(frames: Frames) -> Choice:
    """The bundled model for a picture or a stack, judged by its first frame, and why.

    Args:
        frames: opened for three channels where there are three, alpha aside.

    Gray and unrelated channels, and colour files whose channels are the same, take the gray model, channel by channel; colour takes
    `color-awgn` where the noise is white, else `color-photo`.
    """
    if frames.count == 0 or frames.depth != 3:
        return _each_by_itself(frames.depth)
    pieces = [p[0] for p in frames.samples(0)]
    if all(torch.equal(p[0], p[1]) and torch.equal(p[0], p[2]) for p in pieces):
        return Choice("gray-awgn", "gray, stored in three channels")
    noise = Noise.of(pieces)
    found = (
        f"{255 * noise.level:.1f} of 255 as white noise, {255 * noise.flat:.1f} in flat areas, channels correlated by {noise.between:.2f}"
    )
    if noise.is_white:
        return Choice("color-awgn", f"white noise: {found}")
    if (gray := Noise.of([luma(p) for p in pieces])).was_white:
        return Choice("color-awgn", f"white noise, {255 * gray.level:.1f} of 255 in luma: {found}")
    return Choice("color-photo", f"a photograph: {found}")
