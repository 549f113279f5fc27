"""A training set before it is trained on: what would mislead the training is mended or left out, and named.

Areas without noise are continued from the picture (`inference.areas`), blank images are left out, gray stored as colour becomes gray,
and impulses and stripes are mended (`inference.mending`).
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fastbsn.errors import TrainingError
from fastbsn.inference.areas import continue_picture, find_areas, may_hold_areas
from fastbsn.inference.mending import Defects, check_mode, find_defects
from fastbsn.pixels import white
from fastbsn.training.imageset import ImageSet

logger = logging.getLogger("fastbsn")
_ROUNDS = 64  # continuations of an area, each by its reach


def check(images: ImageSet, repair: str = "auto") -> ImageSet:
    """The set that is trained on.

    Args:
        images: as they were read.
        repair: "auto": impulses and stripes are mended where they are found; "off": never.

    Raises:
        InputError: another `repair`. TrainingError: nothing is left.
    """
    check_mode(repair)
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
            x, defects = mended(x)
            if defects:
                logger.warning("%s: %s, mended first; --repair off leaves them", name, defects)
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


def mended(x: Tensor) -> tuple[Tensor, Defects | None]:
    """[C, H, W] without impulses and stripes, in the same dtype, and what was found."""
    full = white(x)
    values, (h, w) = x.float() / full, x.shape[1:]
    defects = find_defects(lambda box: values[:, box[0] : box[1], box[2] : box[3]], h, w, [], [(0, h, 0, w)])
    if defects is None:
        return x, None
    found = defects.mend(values) * full
    return (found if x.is_floating_point() else found.round().clamp(0, full)).to(x.dtype), defects
