"""A training set before it is trained on: what would mislead the training is mended or left out, and named.

Areas without noise are continued from the picture (`inference.areas`), blank images are left out, gray stored as colour becomes gray,
and impulses are mended (`inference.impulses`).
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fastbsn.errors import InputError, TrainingError
from fastbsn.inference.areas import continue_picture, find_areas, may_hold_areas
from fastbsn.inference.impulses import REPAIRS, find_impulses, where_impulses
from fastbsn.pixels import white
from fastbsn.training.imageset import ImageSet

logger = logging.getLogger("fastbsn")
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
    """Impulses of [C, H, W] replaced by the median of their neighbours, and how many pixels hold one; the same dtype."""
    full = white(x)
    values = x.float() / full
    impulses = find_impulses([values])
    if impulses is None:
        return x, 0
    found, median = where_impulses(values, impulses)
    mended = median * full if x.is_floating_point() else (median * full).round()
    return torch.where(found, mended, x.float()).to(x.dtype), int(found.any(0).sum())
