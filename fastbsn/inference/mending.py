"""What is mended before an image is denoised or trained on, because a noise level says nothing about it: impulses and stripes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.inference.impulses import Impulses, find_impulses, may_hold_impulses, where_impulses
from fastbsn.inference.stripes import Stripes, find_stripes
from fastbsn.inference.tiling import Box

MODES = ("auto", "off")


def check_mode(repair: str) -> None:
    """Raises: InputError: not one of MODES."""
    if repair not in MODES:
        raise InputError(f"repair={repair!r}; expected one of {', '.join(MODES)}")


class Defects(NamedTuple):
    """Of one image, at least one of the two."""

    impulses: Impulses | None
    stripes: Stripes | None

    def mend(self, x: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """A window [C, h, w] of the image, in [0, 1] units; a pixel depends on the 3 x 3 around it."""
        if self.impulses is not None:
            found, median = where_impulses(x, self.impulses)
            x = torch.where(found, median, x)
        return x if self.stripes is None else self.stripes.remove(x, top, left)

    def __str__(self) -> str:
        i = self.impulses
        found = [f"{i.kind} in about {100 * i.fraction:.2g} % of the pixels"] if i is not None else []
        return " and ".join(found + ([str(self.stripes)] if self.stripes is not None else []))


def find_defects(read: Callable[[Box], Tensor], height: int, width: int, glance: Sequence[Box], windows: Sequence[Box]) -> Defects | None:
    """The defects of an image of height x width pixels, or None.

    Args:
        read: gives windows [C, h, w] of it in [0, 1] units.
        glance, windows: small ones that say whether impulses are worth a closer look (none: they are), and those that speak for the image.
    """
    small = [read(box) for box in glance]
    worth = not small or (may_hold_impulses(small) and find_impulses(small) is not None)  # each costs more than the one before
    impulses = find_impulses([read(box) for box in windows]) if worth else None
    stripes = find_stripes(read, height, width)
    return Defects(impulses, stripes) if impulses is not None or stripes is not None else None
