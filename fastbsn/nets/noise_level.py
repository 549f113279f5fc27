"""The level of white noise in one image, measured rather than learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7  # pixels on a side
PATCHES = 2**15  # at most, per image: they are taken on a regular grid


def _from_eigenvalues(patches: Tensor) -> float:  # [C*49, L]
    """Chen, Zhu, Heng, ICCV 2015: image structure fills few directions of patch space, noise all of them alike.

    The largest eigenvalues of the covariance are dropped until mean and median of the rest agree: that is the noise's variance.
    """
    x = (patches - patches.mean(1, keepdim=True)).double()
    values = torch.linalg.eigvalsh(x @ x.mT / x.shape[1]).clamp_min(0)
    for n in range(len(values), 1, -1):
        mean = values[:n].mean()
        if (values[:n] > mean).sum() >= (values[:n] < mean).sum():
            break
    return float(values[:n].mean().sqrt())


def _from_diagonals(patches: Tensor) -> float:  # [C, 49, L]
    """Donoho's median absolute deviation of the finest diagonal Haar coefficients."""
    a, b, c, d = (patches[:, i] for i in (0, 1, PATCH, PATCH + 1))
    return float(((a - b - c + d) / 2).abs().median() / 0.6745)


def noise_level(y: Tensor | Sequence[Tensor]) -> float:
    """Standard deviation of white noise, the same in all channels, in the units of the image.

    The smaller of two estimates that err upwards on texture. Measured on 16 training images with sigma 3 to 48: median error 0.1 % in
    colour, 2.3 % in gray, where the level is overestimated on fine texture below sigma 10.

    Args:
        y: noisy image [C, H, W], or several pieces of one; a side below 7 pixels is extended by repeating the border.
    """
    pieces = [y] if isinstance(y, Tensor) else list(y)
    found = []
    for piece in pieces:
        c, h, w = piece.shape
        x = F.pad(piece[None].float(), (0, max(0, PATCH - w), 0, max(0, PATCH - h)), mode="replicate")
        stride = max(1, round((x.shape[2] * x.shape[3] * len(pieces) / PATCHES) ** 0.5))
        found.append(F.unfold(x, PATCH, stride=stride)[0].unflatten(0, (c, PATCH**2)))
    patches = torch.cat(found, 2)
    diagonals, flat = _from_diagonals(patches), patches.flatten(0, 1)
    if flat.shape[1] < 20 * flat.shape[0]:  # too few patches: the covariance's small eigenvalues would be too small
        return diagonals
    return min(diagonals, _from_eigenvalues(flat))
