"""Space-to-batch: an image as d*d phase images, on which a convolution of dilation d is an ordinary one.

After the masked convolution every layer of a D-BSN branch is 1x1 or has dilation d, so one rearrangement at the
branch entry and one at its end serve the whole branch, exactly, zero padding included. Where d does not divide H or W
the phases have different extents; positions outside a phase's extent must be zero before every spatial convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def space_to_batch(x: Tensor, d: int) -> Tensor:
    """[N, C, H, W] -> [N*d*d, C, ceil(H/d), ceil(W/d)]; pads with zeros at the bottom and right."""
    n, c, h, w = x.shape
    hp, wp = -(-h // d), -(-w // d)
    if (hp * d, wp * d) != (h, w):
        x = F.pad(x, (0, wp * d - w, 0, hp * d - h))
    return x.view(n, c, hp, d, wp, d).permute(0, 3, 5, 1, 2, 4).reshape(n * d * d, c, hp, wp)


def batch_to_space(x: Tensor, d: int, h: int, w: int) -> Tensor:
    """Inverse of `space_to_batch`: [N*d*d, C, h', w'] -> [N, C, h, w]."""
    nd, c, hp, wp = x.shape
    y = x.view(nd // (d * d), d, d, c, hp, wp).permute(0, 3, 4, 1, 5, 2).reshape(nd // (d * d), c, hp * d, wp * d)
    return y[:, :, :h, :w]


def outside_extent(n: int, d: int, h: int, w: int, device: torch.device) -> Tensor | None:
    """Boolean [N*d*d, 1, h', w'], true where a phase position lies outside the image; None if d divides h and w."""
    if h % d == 0 and w % d == 0:
        return None
    inside = torch.ones(1, 1, h, w, dtype=torch.bool, device=device)
    return ~space_to_batch(inside, d).repeat(n, 1, 1, 1)
