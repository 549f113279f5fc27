"""Hot pixels, salt and pepper: single pixels far from all their neighbours, which take the median of those. A noise level says nothing
about them, so they are mended before an image is denoised or trained on.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

_FAR, _LEAST = 5.0, 0.03  # of an impulse: robust standard deviations from the median of its neighbours, and part of white
_HOTTER = 7.0  # the same, of a hot pixel, which no fraction of black and white speaks for
_CLEAR, _MENDED = 2.0, 1.0  # distance of a hot pixel over what its eight neighbours span: to believe in hot pixels, and to mend one
_NEAR = 2.0  # the same, of black and white pixels where there is salt and pepper
_SALT = 1e-3  # fraction from which impulses at black and white are salt and pepper
_HOT = 3e-5, 5e-3  # range of fractions of hot pixels: less is chance, more is a kind of picture
_CLIPPED = 0.5  # fraction of black and white from which a picture is a drawing, or a mask
_FEWEST = 4  # pixels: fewer are chance
_HALO = 0.05  # part of their height that hot pixels give to their neighbours: none. Stars give a tenth and more, through any lens


class Impulses(NamedTuple):
    """What impulses of an image look like: kind, robust standard deviation of the rest, lowest and highest value, [C, 1, 1] each, in
    [0, 1] units; fraction: of the pixels that are impulses."""

    kind: str
    spread: Tensor
    low: Tensor
    high: Tensor
    fraction: float


def find_impulses(pieces: list[Tensor]) -> Impulses | None:
    """The impulses of one image, from the whole or from windows spread over it, [C, h, w] in [0, 1] units.

    Salt and pepper: most of what is far from its neighbours is the image's black or white. Hot pixels: few, each alone, and most of them
    on what is smooth otherwise: so are at most 31 % of the candidates on 58 photographs, clean and noisy, and 62 % or more of true ones.
    And none has a halo, as stars have.
    """
    low, high = (torch.stack([f(p, (1, 2)) for p in pieces]) for f in (torch.amin, torch.amax))
    low, high = low.amin(0)[:, None, None], high.amax(0)[:, None, None]
    looked = [(p, _medians(p)) for p in pieces]
    distances = torch.cat([(p - median).abs().flatten(1) for p, median in looked], 1)
    spread = 1.4826 * distances[:, :: max(1, distances.shape[1] // 2**20)].median(1).values[:, None, None]
    single, hot, clear, extreme, clipped, pixels = 0, 0, 0, 0, 0, 0
    halo, height = 0.0, 0.0
    for p, median in looked:
        distance = (p - median).abs()
        far = distance > (_FAR * spread).clamp(min=_LEAST)
        distance, (alone, span) = distance[far], _around_far(p, far)
        found = alone > 0.5 * distance
        single += int(found.sum())
        hotter = found & (distance > (_HOTTER * spread).expand_as(p)[far])
        hot += int(hotter.sum())
        clearly = hotter & (distance > _CLEAR * span)
        clear += int(clearly.sum())
        rise, own = _halo(p, far.nonzero()[clearly])
        halo, height = halo + rise, height + own
        ends = (p == low) | (p == high)
        extreme += int((found & ends[far]).sum())
        clipped += int(ends.sum())
        pixels += p.numel()
    if clipped > _CLIPPED * pixels:
        return None
    if single >= max(_FEWEST, _SALT * pixels) and extreme >= 0.9 * single:
        return Impulses("salt and pepper", spread, low, high, single / pixels)
    if (
        max(_FEWEST, _HOT[0] * pixels) <= hot <= _HOT[1] * pixels
        and clear >= 0.5 * hot
        and bool((spread > 0).all())
        and halo < _HALO * height
    ):
        return Impulses("hot pixels", spread, low, high, hot / pixels)
    return None


def _halo(x: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Sums over chosen pixels, [n, 3], of [C, H, W]: how far the four beside one lie from those two pixels away, towards it; how far it
    does itself."""
    c, i, j = chosen.unbind(1)
    padded = F.pad(x[None], (2, 2, 2, 2), mode="replicate")[0]
    near, far = (sum(padded[c, i + 2 + a * k, j + 2 + b * k] for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))) / 4 for k in (1, 2))
    rise = x[c, i, j] - far
    return float(((near - far) * rise.sign()).sum()), float(rise.abs().sum())


def may_hold_impulses(pieces: list[Tensor]) -> bool:
    """Whether a closer look is worth its time: a pixel of pieces [C, h, w] lies far above or below all its neighbours."""
    for x in pieces:
        if min(x.shape[1:]) < 3:
            continue
        h, w = x.shape[1] - 2, x.shape[2] - 2
        around = [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        low = high = around[0]
        for neighbour in around[1:]:
            low, high = torch.minimum(low, neighbour), torch.maximum(high, neighbour)
        beyond = torch.maximum(x[:, 1:-1, 1:-1] - high, low - x[:, 1:-1, 1:-1])
        spread = (around[1] - around[6]).flatten()[::7].abs().median()  # about 0.95 standard deviations of white noise
        if bool((beyond > torch.clamp(5 * spread, min=_LEAST)).any()):
            return True
    return False


def where_impulses(x: Tensor, impulses: Impulses) -> tuple[Tensor, Tensor]:
    """Which of [C, H, W] are impulses, and the median around each pixel; a pixel depends on the 3 x 3 around it."""
    spread, low, high = (v.to(x) for v in impulses[1:4])
    median = _medians(x)
    distance = (x - median).abs()
    if impulses.kind == "salt and pepper":
        return ((x == low) | (x == high)) & (distance > (_NEAR * spread).clamp(min=_LEAST)), median
    far = distance > torch.maximum((_FAR * spread).clamp(min=_LEAST), _HOTTER * spread)
    distance, (alone, span) = distance[far], _around_far(x, far)
    return far.masked_scatter(far, (alone > 0.5 * distance) & (distance > _MENDED * span)), median


def _medians(x: Tensor) -> Tensor:
    """Of the 3 x 3 pixels around each of [C, H, W]."""
    return torch.stack([torch.from_numpy(cv2.medianBlur(c.cpu().float().contiguous().numpy(), 3)) for c in x]).to(x)


def _around_far(x: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Of those pixels of [C, H, W] that are `far`, [n]: distance to the nearest value among the eight around, and what those span."""
    c, i, j = far.nonzero(as_tuple=True)
    padded = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
    eight = torch.stack([padded[c, i + k, j + m] for k, m in product(range(3), range(3)) if (k, m) != (1, 1)])
    return (eight - x[far]).abs().amin(0), eight.amax(0) - eight.amin(0)
