"""Batches: crops with one of the eight symmetries, cut from images that are held in memory once.

Noise is frozen: a training image has the one noisy copy that it came with. Redrawing noise for every crop would be hidden
Noise2Noise training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.pixels import to_unit
from fastbsn.training.imageset import ImageSet


@dataclass(frozen=True)
class Places:
    """Where a batch was cut: image index, top, left and one of the eight symmetries of the square, per crop."""

    image: list[int]
    top: list[int]
    left: list[int]
    symmetry: list[int]


def draw_places(images: ImageSet, weights: Tensor, batch: int, crop: int, generator: torch.Generator) -> Places:
    """Draw crops: images by `weights`, [images] or [batch, images], positions uniformly."""
    index = torch.multinomial(weights, batch if weights.ndim == 1 else 1, replacement=True, generator=generator).flatten().tolist()
    u = torch.rand(3, batch, generator=generator).tolist()
    shapes = [images.images[i].shape for i in index]
    top = [int(r * (s[1] - crop + 1)) for r, s in zip(u[0], shapes, strict=True)]
    left = [int(r * (s[2] - crop + 1)) for r, s in zip(u[1], shapes, strict=True)]
    return Places(index, top, left, [int(r * 8) for r in u[2]])


def cut(images: ImageSet, places: Places, crop: int) -> Tensor:
    """Crops [B, C, crop, crop], float32 in [0, 1] units, turned and flipped as `places` says."""
    crops = []
    for i, top, left, s in zip(places.image, places.top, places.left, places.symmetry, strict=True):
        x = to_unit(images.images[i][:, top : top + crop, left : left + crop])
        x = torch.rot90(x, s % 4, (1, 2))
        crops.append(x.flip(2) if s >= 4 else x)
    return torch.stack(crops).contiguous(memory_format=torch.channels_last)


def recolour(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other images of the same structure: channels in random order, each with a random tone curve, some of them negatives.

    A few hundred photographs show a network few of all colours. x: [B, C, H, W]; values are cut to [0, 1] first.
    """
    b, c = x.shape[:2]
    gamma, contrast, level, sign = torch.rand(4, b, c, 1, 1, generator=generator, device=x.device)
    y = x.clamp(0, 1) ** (4.0**gamma / 2)
    y = level + (1 - 0.75 * contrast) * (y - level)
    y = torch.where(sign[:, :1] < 0.25, 1 - y, y)
    order = torch.rand(b, c, generator=generator, device=x.device).argsort(1)
    return y.gather(1, order[..., None, None].expand_as(y))


def preview_row(images: Sequence[Tensor]) -> np.ndarray:
    """[C, H, W] images in [0, 1] side by side with a 4-pixel gap, as uint8 [H, W] or [H, W, 3]."""
    padded = [F.pad(x.detach().float().cpu(), (0, 4), value=1.0) for x in images]
    row = torch.cat(padded, 2)[:, :, :-4].clamp(0, 1).mul(255).round().to(torch.uint8)
    return row[0].numpy() if row.shape[0] != 3 else row.permute(1, 2, 0).numpy()
