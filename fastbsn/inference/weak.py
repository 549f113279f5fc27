"""Weak noise: how much of the input to keep, so that a network which knows stronger noise does no harm.

Let y = x + n be the image, f(y) the network's result, d = y - f(y), and s the level of white noise, which is measured. Where d holds more
than s explains, it was part of the picture, and is put back; twice:

- around every pixel, from the power of d there, at two scales: none of it up to TOLD s^2, all of it from ALL s^2 on. s is that of the
  pixel's brightness, since the noise of sensors grows with light. And d is no noise where it changes less in one direction than across
  it, as lines and rings do;
- everywhere alike, where the noise is next to nothing. Of all blends f(y) + w d the best has w = 1 - s^2 (1 - div f) / E[d^2], by Stein's
  lemma (Annals of Statistics, 1981); the divergence per pixel, div f, is measured with one random probe (Ramani, Blu, Unser, IEEE TIP
  2008). On texture s is too large and w too small, so from about 1/2 on all of it is kept.

Noise that is not white (JPEG, cameras) is no business of models of white noise: the little that they take of it may be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.inference.frames import GLANCE, SAMPLES, Frames
from fastbsn.nets import noise_levels

LOOK = 5 / 255  # noise from which networks are trusted everywhere
TOLD, ALL = 2.0, 4.0  # power of what is removed, in units of the noise's variance
ACROSS = (((0, 1), (1, 0)), ((1, 1), (1, -1)), ((1, 2), (2, -1)), ((2, 1), (1, -2)))  # steps of the same length
FAR = 2  # pixels, of these
REACH = 7  # pixels: the power is that of 15 x 15
NEAR, CHANCE = 1, 2.0  # 3 x 3 as well, whose power may be so much more by chance
STRIP = 2**18  # pixels that are worked on at a time
GROUPS = 5  # of brightness
DARKER = 1.5  # times as noisy as brighter parts is the most that a darker part may be: it often is ink, or a pattern
SPREAD = 1.2  # of the noise, over what is removed in flat areas of the same brightness
FLAT, STEP = 0.1, 4  # of the pixels, every fourth of which is looked at in both directions
WEAK = 1.25 / 255  # noise from which the bundled networks gain on nearly all images, and nothing is kept everywhere
HALF, HALF_GRAY = 0.5, 0.4  # part from which all is kept; in gray texture and noise are told apart less well
SMALLEST = 32  # pixels on a side of an image that can tell
SIDE, WINDOWS = 256, 4  # pixels on a side, and number, of the windows that speak for an image
_BLOCK, _FLATTEST = 8, 0.03
_PROBE = 1 / 255


class Kept(NamedTuple):
    """What is put back into the images of one frame.

    part: of all that is removed, [batch, 1, 1, 1] in 0 to 1. brightness, level: ascending brightness, and standard deviation of the noise
    there, [batch, GROUPS].
    """

    part: Tensor
    brightness: Tensor
    level: Tensor

    def restore(self, y: Tensor, clean: Tensor) -> Tensor:
        """`clean` [batch, C, h, w], with what is kept of the input `y`; a few rows at a time, which take little memory."""
        height, rows = y.shape[2], max(1, STRIP // y.shape[3])
        result = torch.empty_like(clean)
        for top in range(0, height, rows):
            first, last = max(0, top - REACH - FAR), min(height, top + rows + REACH + FAR)
            strip = self._restore(y[:, :, first:last], clean[:, :, first:last])
            result[:, :, top : top + rows] = strip[:, :, top - first : top - first + rows]
        return result

    def _restore(self, y: Tensor, clean: Tensor) -> Tensor:
        removed = y - clean
        shade = _around(clean)
        b, v = (x.to(y)[:, :, None, None, None] for x in (self.brightness, self.level**2))
        variance = v[:, 0].expand_as(shade).clone()
        for i in range(v.shape[1] - 1):  # piecewise linear
            variance += (v[:, i + 1] - v[:, i]) * ((shade - b[:, i]) / (b[:, i + 1] - b[:, i]).clamp(min=1e-6)).clamp(0, 1)
        power, variance = removed.square(), variance.clamp(min=1e-12)
        unexplained = torch.maximum(_around(power) / variance, _directed(removed))
        unexplained = torch.maximum(unexplained, _around(power, NEAR) / (CHANCE * variance))
        kept = ((unexplained - TOLD) / (ALL - TOLD)).clamp(0, 1)
        return clean + torch.maximum(kept, self.part.to(y)) * removed


def _around(x: Tensor, reach: int = REACH) -> Tensor:
    """Mean over the channels and a square around each pixel, [batch, 1, h, w]; at a border, over the part that is there."""
    side = 2 * reach + 1
    rows = F.avg_pool2d(x.mean(1, keepdim=True), (1, side), 1, (0, reach), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (reach, 0), count_include_pad=False)


def _directed(x: Tensor) -> Tensor:
    """How much more x changes across a direction than along it, [batch, 1, h, w]: the largest ratio around each pixel, of ACROSS."""
    h, w = x.shape[2:]
    wide, found = F.pad(x, (FAR, FAR, FAR, FAR), mode="replicate"), torch.ones_like(x[:, :1])
    for pair in ACROSS:
        one, other = (_around((x - wide[..., FAR + i : FAR + i + h, FAR + j : FAR + j + w]).square()) for i, j in pair)
        found = torch.maximum(found, torch.maximum(one, other) / torch.minimum(one, other).clamp(min=1e-12))
    return found


def _flattest(pieces: list[Tensor]) -> float:
    """Standard deviation of the diagonal differences in the flattest blocks of pieces [C, h, w]: a little less than that of white noise."""
    found = []
    for piece in pieces:
        if min(piece.shape[1:]) < _BLOCK:
            continue
        h, w = (size // _BLOCK * _BLOCK for size in piece.shape[1:])
        x = piece[:, :h, :w]
        diagonal = (x[:, 1:, 1:] - x[:, 1:, :-1] - x[:, :-1, 1:] + x[:, :-1, :-1]) / 2
        square = F.pad(diagonal.square().mean(0), (0, 1, 0, 1))  # differences between blocks are left out
        found.append(square.view(h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK)[:, :-1, :, :-1].mean((1, 3)).flatten())
    return float(torch.cat(found).quantile(_FLATTEST).sqrt())


def _removed_from_flat(windows: list[Tensor], cleaned: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Standard deviation of what is removed in the flattest areas of the result: of all, [batch, 1], and by brightness, [batch, GROUPS]."""
    looked = []
    for y, x in zip(windows, cleaned, strict=True):
        slopes = F.pad((x.diff(dim=2)[..., :-1].square() + x.diff(dim=3)[..., :-1, :].square()), (0, 1, 0, 1), mode="replicate")
        places = torch.cat([_around(x), _around(slopes), _around((y - x).square())], 1)[..., ::STEP, ::STEP]
        looked.append(places.flatten(2).float().cpu())
    found = []
    for shade, structure, power in torch.cat(looked, 2):
        for part in (torch.arange(len(shade)), *shade.argsort().chunk(GROUPS)):
            flat = part[structure[part].argsort()[: max(1, int(FLAT * len(part)))]]
            found.append(power[flat].median().sqrt())
    everywhere, parts = torch.stack(found).view(-1, 1 + GROUPS).tensor_split([1], dim=1)
    return everywhere, parts


def find_kept(frames: Frames, frame: int, run: Callable[[Tensor], Tensor], device: torch.device) -> Kept | None:
    """What is put back into a frame; None where the noise is not weak.

    Args:
        frames, frame: the image.
        run: the network on windows [batch, C, h, w] on `device`.
        device: of the network.
    """
    if min(frames.height, frames.width) < SMALLEST:
        return None
    glance = [frames.read(frame, box) for box in frames.boxes(GLANCE, SAMPLES)]
    if min(_flattest([window[i] for window in glance]) for i in range(frames.batch)) > LOOK:
        return None
    boxes = [box for box in frames.boxes(SIDE, WINDOWS) if min(box[1] - box[0], box[3] - box[2]) >= SMALLEST]
    windows = [frames.read(frame, box).to(device) for box in boxes]
    brightness, level = torch.tensor([noise_levels([w[i] for w in windows], GROUPS) for i in range(frames.batch)]).unbind(-1)
    if level.min() > LOOK:
        return None
    cleaned = [run(y) for y in windows]
    # Texture raises the level that is measured, and JPEG lowers it, which takes noise of the finest scale first; what is removed from flat
    # areas is noise all the same.
    everywhere, parts = _removed_from_flat(windows, cleaned)
    level = torch.minimum(level, SPREAD * parts)
    brighter = level.flip(1).cummin(1).values.flip(1)
    level[:, :-1] = torch.minimum(level[:, :-1], DARKER * brighter[:, 1:])
    level = level.maximum(everywhere)
    mean = level.square().mean(1).sqrt()  # the parts are equally large
    part = _part(windows, cleaned, mean, run) if mean.min() < WEAK else torch.zeros(frames.batch, 1, 1, 1)
    return Kept(part, brightness, level)


def _part(windows: list[Tensor], cleaned: list[Tensor], level: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """The part w of all that is removed, [batch, 1, 1, 1], from windows [batch, C, h, w] of noise of level [batch]."""
    generator = torch.Generator().manual_seed(0)
    removed, divergence = torch.zeros(2, len(level), dtype=torch.float64)
    for y, clean in zip(windows, cleaned, strict=True):
        probe = (2 * torch.randint(0, 2, y.shape, generator=generator) - 1).to(y)
        removed += (y - clean).double().square().sum((1, 2, 3)).cpu()
        divergence += (probe * (run(y + _PROBE * probe) - clean).double()).sum((1, 2, 3)).cpu() / _PROBE
    values = sum(window[0].numel() for window in windows)
    noise = torch.where(level < WEAK, level, torch.inf).double() ** 2
    explained = noise * (1 - divergence / values).clamp(0, 1) / (removed / values).clamp(min=1e-12)
    kept = (1 - explained).nan_to_num(0).clamp(0, 1).float()[:, None, None, None]
    half = HALF if windows[0].shape[1] > 1 else HALF_GRAY
    return torch.where(kept >= half, 1.0, kept)
