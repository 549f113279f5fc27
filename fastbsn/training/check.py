"""A training set before it is trained on: what would mislead the training is mended or left out, and named.

Areas without noise are continued from the picture (`inference.areas`), blank images are left out, gray stored as colour becomes gray,
and impulses, single pixels far from all their neighbours, take the median of those: a noise level says nothing about them.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.errors import InputError, TrainingError
from fastbsn.inference.areas import continue_picture, find_areas, may_hold_areas
from fastbsn.pixels import white
from fastbsn.training.imageset import ImageSet

logger = logging.getLogger("fastbsn")
REPAIRS = ("auto", "off")
_FAR, _LEAST = 5.0, 0.03  # of an impulse: robust standard deviations from the median of its neighbours, and part of white
_HOTTER = 7.0  # the same, of a hot pixel, which no fraction of black and white speaks for
_NEAR = 2.0  # the same, of black and white pixels where there is salt and pepper
_SALT = 1e-3  # fraction from which impulses at black and white are salt and pepper
_HOT = 3e-5, 5e-3  # range of fractions of hot pixels: less is chance, more is a kind of picture
_BAND = 512  # rows that are looked at together
_ROUNDS = 64  # continuations of an area, each by its reach


def check(images: ImageSet, repair: str = "auto") -> ImageSet:
    """The set that is trained on.

    Args:
        images: as they were read.
        repair: "auto": impulses are repaired where they are found; "off": never.

    Raises:
        InputError: another `repair`. TrainingError: nothing is left.
    """
    if repair not in REPAIRS:
        raise InputError(f"repair={repair!r}; expected one of {', '.join(REPAIRS)}")
    gray = images.channels == 3 and all(bool((x[0] == x[1]).all() and (x[0] == x[2]).all()) for x in images.images)
    if gray:
        logger.warning("training images: gray, stored in three channels; a gray model is trained")
    found, names = [], []
    for name, image in zip(images.names, images.images, strict=True):
        x = _continued(image[:1] if gray else image)
        if x is None:
            logger.warning("%s: left out of the training, it is blank", name)
            continue
        if repair == "auto":
            x, count = repair_impulses(x)
            if count:
                part = 100 * count / x[0].numel()
                logger.warning("%s: %d hot pixels or impulses (%.2f %%) repaired; --repair off leaves them", name, count, part)
        found.append(x)
        names.append(name)
    if not found:
        raise TrainingError(f"all {len(images.images)} training images are blank; expected pictures with noise")
    return ImageSet(found, names, images.data_ranges)


def _continued(x: Tensor) -> Tensor | None:
    """Without areas; None for an image that is nothing else."""
    bits = x.view(torch.int16) if x.dtype == torch.uint16 else x
    for _ in range(_ROUNDS):
        areas = find_areas(bits) if may_hold_areas(bits) else None
        if areas is None or not areas.any():
            return bits.view(x.dtype)
        if areas.all():
            return None
        bits = continue_picture(bits, areas).contiguous()
    return None


def repair_impulses(x: Tensor) -> tuple[Tensor, int]:
    """Impulses of [C, H, W] replaced by the median of their neighbours, and how many pixels hold one; the same dtype.

    Salt and pepper: most of what is far from its neighbours is the image's black or white. Hot pixels: few, each alone.
    """
    full = white(x)
    values = x.float() / full
    median, alone = _neighbours(values)
    distance = (values - median).abs()
    spread = 1.4826 * distance.flatten(1)[:, :: max(1, distance[0].numel() // 2**20)].median(1).values[:, None, None]
    far = distance > (_FAR * spread).clamp(min=_LEAST)
    extreme = (values == values.amin((1, 2), keepdim=True)) | (values == values.amax((1, 2), keepdim=True))
    single = far & (alone > 0.5 * distance)
    hot = single & (distance > _HOTTER * spread)
    fraction = single.float().mean().item()
    if fraction >= _SALT and (single & extreme).sum() >= 0.9 * single.sum():
        impulses = extreme & (distance > (_NEAR * spread).clamp(min=_LEAST))
    elif _HOT[0] <= hot.float().mean().item() <= _HOT[1] and bool((spread > 0).all()):
        impulses = hot
    else:
        return x, 0
    mended = median * full if x.is_floating_point() else (median * full).round()
    return torch.where(impulses, mended, x.float()).to(x.dtype), int(impulses.any(0).sum())


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """Median of the 3 x 3 pixels around each of [C, H, W], and the distance to the nearest value among the other eight."""
    padded = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
    medians, nearest = torch.empty_like(x), torch.empty_like(x)
    h, w = x.shape[1:]
    for c in range(len(x)):
        for top in range(0, h, _BAND):
            rows = min(_BAND, h - top)
            window = [padded[c, top + i : top + i + rows, j : j + w] for i in range(3) for j in range(3)]
            others = torch.stack(window[:4] + window[5:])
            medians[c, top : top + rows] = torch.stack(window).median(0).values
            nearest[c, top : top + rows] = (others - x[c, top : top + rows]).abs().amin(0)
    return medians, nearest
