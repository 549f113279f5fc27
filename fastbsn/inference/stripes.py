"""Stripes: rows or columns that are too bright or too dark as a whole, as sensors and scanners that read line by line leave them.

The difference between a row and the next, the mean over the middle half of the pixels, holds the stripes and little of the picture. That
of stripes is alike in all parts of the width and is that of white noise: the correlation at one row is -1/2, at two rows 0. Structure of a
picture that runs across its whole width is correlated over more rows, or stands in few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.inference.tiling import Box

_PARTS = 4  # of the width, which have to agree
_GLANCE = 256, 64  # rows, and columns of each part, that say whether a closer look is worth its time
_SMALLEST = 64  # pixels on a side
_COLUMNS = 512  # of each part, spread over it: more say nothing new
_CHUNK = 1024  # rows that are read at once
_LEAST = 1.5 / 255  # standard deviation of stripes that is worth it; without stripes at most 0.3 / 255 on 115 photographs, clean and noisy
_SPREAD = 0.4  # median over standard deviation, 0.67 of normal deviates: lines of a drawing stand in few rows
_CLIP = 4.0  # robust standard deviations of a difference: what is beyond is an edge of the picture
_EDGE = 0.1  # difference of two pixels that is an edge of the picture, at a glance
_SMOOTH = 2.5  # rows, standard deviation of a Gaussian: brightness that changes more slowly is the picture's


class Stripes(NamedTuple):
    """rows [C, H, 1], columns [C, 1, W]: what the stripes add, in [0, 1] units, or None for none."""

    rows: Tensor | None
    columns: Tensor | None

    def remove(self, x: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """A window [C, h, w] of the image without them."""
        h, w = x.shape[1:]
        x = x if self.rows is None else x - self.rows[:, top : top + h].to(x)
        return x if self.columns is None else x - self.columns[:, :, left : left + w].to(x)

    def __str__(self) -> str:
        found = [(name, v) for name, v in (("rows", self.rows), ("columns", self.columns)) if v is not None]
        return " and ".join(f"stripes along {name} (standard deviation {255 * float(v.std()):.1f} of 255)" for name, v in found)


def find_stripes(read: Callable[[Box], Tensor], height: int, width: int) -> Stripes | None:
    """The stripes of an image of height x width pixels; `read` gives windows [C, h, w] of it in [0, 1] units."""
    if min(height, width) < _SMALLEST:
        return None
    rows = _offsets(read, height, width)
    columns = _offsets(lambda box: read((*box[2:], *box[:2])).mT, width, height)
    if rows is None and columns is None:
        return None
    return Stripes(None if rows is None else rows[..., None], None if columns is None else columns[:, None])


def _offsets(read: Callable[[Box], Tensor], height: int, width: int) -> Tensor | None:
    """What the stripes add to each row, [C, height]."""
    part = width // _PARTS
    lefts, (rows, columns) = [k * part for k in range(_PARTS)], _GLANCE
    top, wide = max(0, (height - rows) // 2), min(part, columns)
    glance = [read((top, min(top + rows, height), left + (part - wide) // 2, left + (part + wide) // 2)) for left in lefts]
    if not _striped(torch.stack([(x[:, 1:] - x[:, :-1]).clamp_(-_EDGE, _EDGE).mean(2).cpu() for x in glance], 1)):  # nothing is sorted
        return None
    step, found = -(-part // _COLUMNS), []
    for top in range(0, height - 1, _CHUNK):
        box = top, min(top + _CHUNK + 1, height)
        found.append(torch.stack([_differences(read((*box, left, left + part))[..., ::step]) for left in lefts], 1))
    d = torch.cat(found, 2)
    if not _striped(d):
        return None
    d = d.mean(1)
    d = d - d.median(1, keepdim=True).values
    limit = _CLIP * 1.4826 * d.abs().median(1, keepdim=True).values
    walk = F.pad(torch.minimum(torch.maximum(d, -limit), limit).double().cumsum(1), (1, 0))
    reach = int(4 * _SMOOTH)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / _SMOOTH) ** 2).double()
    smooth = F.conv1d(F.pad(walk[:, None], (reach, reach), "reflect"), (kernel / kernel.sum())[None, None])[:, 0]
    return (walk - smooth).float()


def _differences(x: Tensor) -> Tensor:
    """Of [C, n + 1, w], between rows: the mean of the middle half of the pixels, [C, n]."""
    d = (x[:, 1:] - x[:, :-1]).float().cpu().sort(2).values
    quarter = d.shape[2] // 4
    return d[:, :, quarter : d.shape[2] - quarter].mean(2)


def _striped(d: Tensor) -> bool:
    """Whether differences [C, parts, n] are those of stripes, by the median channel."""
    d = d - d.median(2, keepdim=True).values
    parts, n = d.shape[1:]

    def shared(lag: int) -> Tensor:
        """Covariance [C] between different parts at this lag."""
        every = torch.einsum("cpn,cqn->cpq", d[..., : n - lag], d[..., lag:]) / (n - lag)
        return (every.sum((1, 2)) - every.diagonal(dim1=1, dim2=2).sum(1)) / (parts * (parts - 1))

    variance, common = shared(0), d.mean(1)
    if variance.median() <= 2 * _LEAST**2:
        return False
    one, two = ((shared(lag) / variance).median() for lag in (1, 2))
    agree = (variance / d.var(2).mean(1)).median()
    spread = (common.abs().median(1).values / common.std(1)).median()
    return bool(abs(one + 0.5) < 0.2 and abs(two) < 0.25 and agree > 0.2 and spread > _SPREAD)
