"""Non-finite pixels: estimates from their neighbours."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 32  # pixels that repair looks around a non-finite one


def repair(x: Tensor) -> Tensor:
    """Replace non-finite values of [C, H, W] by the median of their finite 3x3 neighbours, ring by ring inward.

    A value depends on nothing beyond 32 pixels; what lies deeper inside a hole becomes 0.
    """
    bad = ~x.isfinite()
    x = x.masked_fill(bad, torch.nan)
    for _ in range(REACH):
        ring = bad & (F.max_pool2d((~bad).float(), 3, 1, 1) > 0)
        c, i, j = ring.nonzero(as_tuple=True)
        if not len(c):
            break
        p = F.pad(x, (1, 1, 1, 1), value=torch.nan)
        neighbours = torch.stack([p[c, i + di, j + dj] for di, dj in product(range(3), range(3))])
        x[c, i, j] = neighbours.nanmedian(0).values
        bad &= ~ring
    return x.nan_to_num(0.0)
