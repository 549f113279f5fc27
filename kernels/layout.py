"""The layout that the kernels work on: [N, C, H, W] <-> [P, C], see tiles.py.

An image becomes d*d phase images (d = 1: itself), each stored with r zero columns behind every row and r zero rows below,
one after the other; P is rounded up to a multiple of every block size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 256  # of P; every block size divides it


@dataclass(frozen=True)
class Flat:
    """Geometry of N images of H x W pixels as d*d phases with a border of r zeros."""

    n: int
    h: int
    w: int
    d: int
    r: int

    @property
    def hp(self) -> int:
        return -(-self.h // self.d)

    @property
    def wp(self) -> int:
        return -(-self.w // self.d)

    @property
    def pitch(self) -> int:
        return self.wp + self.r

    @property
    def rows(self) -> int:
        """Of one phase image, with its border."""
        return self.hp + self.r

    @property
    def positions(self) -> int:
        """P."""
        used = self.n * self.d * self.d * self.rows * self.pitch
        return -(-used // MULTIPLE) * MULTIPLE

    def pixels(self, flat: Tensor) -> Tensor:
        """[P, C] -> view [N, d, d, h', w', C] of the positions that hold pixels (or lie outside a phase's extent)."""
        used = self.n * self.d * self.d * self.rows * self.pitch
        return flat[:used].view(self.n, self.d, self.d, self.rows, self.pitch, -1)[:, :, :, : self.hp, : self.wp]

    def pack(self, x: Tensor, out: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """[N, C, H, W] -> [P, C], zero where there is no pixel; into `out` if given, which must be zero there already."""
        if out is None:
            out = torch.zeros(self.positions, x.shape[1], dtype=dtype or x.dtype, device=x.device)
        d = self.d
        if self.hp * d != self.h or self.wp * d != self.w:
            x = F.pad(x, (0, self.wp * d - self.w, 0, self.hp * d - self.h))
        self.pixels(out).copy_(x.reshape(self.n, -1, self.hp, d, self.wp, d).permute(0, 3, 5, 2, 4, 1))
        return out

    def unpack(self, flat: Tensor) -> Tensor:
        """[P, C] -> [N, C, H, W], channels last."""
        d, h, w = self.d, self.hp * self.d, self.wp * self.d
        out = torch.empty(self.n, h, w, flat.shape[1], dtype=flat.dtype, device=flat.device)
        out.view(self.n, self.hp, d, self.wp, d, -1).copy_(self.pixels(flat).permute(0, 3, 1, 4, 2, 5))
        return (out if (h, w) == (self.h, self.w) else out[:, : self.h, : self.w].contiguous()).permute(0, 3, 1, 2)

    def inside(self, device: torch.device, outside: Tensor | None = None) -> Tensor:
        """uint8 [P], 1 where there is a pixel; `outside` (bool [N, 1, H, W]) takes pixels away."""
        if outside is None:
            kept = torch.ones(self.n, 1, self.h, self.w, dtype=torch.uint8, device=device)
        else:
            kept = (~outside).to(torch.uint8)
        return self.pack(kept).view(-1)
