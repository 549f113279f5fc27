"""The level of white noise in one image, measured rather than learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7  # pixels on a side
ROUNDS = 8
CHUNK = 2048  # patches at a time
PATCHES = 2**15  # at most, per image: they are taken on a regular grid


class Moments(NamedTuple):
    """Of patches [L, K]: how many they are, their sums [K] and the sums of their products [K, K], float64.

    The products are made in float32, half the time of float64; their rounding is far below the noise of 8-bit values.
    """

    patches: int
    sums: Tensor
    products: Tensor

    @classmethod
    def of(cls, grids: Sequence[Tensor], chosen: Tensor) -> Moments:
        """Of the patches that are chosen, bool [L], among those of grids [h, w, C, 7, 7]; a few at a time, which stay in cache."""
        size = grids[0][0, 0].numel()
        sums, products = chosen.new_zeros(size, dtype=torch.float64), chosen.new_zeros(size, size, dtype=torch.float64)
        for grid, where in zip(grids, chosen.split([len(g) * g.shape[1] for g in grids]), strict=True):
            rows = max(1, CHUNK // grid.shape[1])
            for part, here in zip(grid.split(rows), where.view(grid.shape[:2]).split(rows), strict=True):
                x = part[here].flatten(1)
                with torch.autocast(x.device.type, enabled=False):  # bfloat16 would not do
                    sums, products = sums.add_(x.sum(0)), products.add_(x.mT @ x)
        return cls(int(chosen.sum()), sums, products)

    def without(self, other: Moments) -> Moments:
        return Moments(self.patches - other.patches, self.sums - other.sums, self.products - other.products)

    def level(self) -> float:
        """Chen, Zhu, Heng, ICCV 2015: image structure fills few directions of patch space, noise all of them alike.

        The largest eigenvalues of the covariance are dropped until mean and median of the rest agree: that is the noise's variance.
        """
        mean = self.sums / self.patches
        values = torch.linalg.eigvalsh(self.products / self.patches - mean[:, None] * mean).clamp_min(0)  # ascending
        counts = torch.arange(1, len(values) + 1, device=values.device)
        means = values.cumsum(0) / counts  # of the smallest ones
        above, below = counts - torch.searchsorted(values, means, right=True), torch.searchsorted(values, means)
        return float(means[above >= below][-1].sqrt())


def _from_diagonals(grids: Sequence[Tensor]) -> float:  # of [h, w, C, 7, 7]
    """Donoho's median absolute deviation of the finest diagonal Haar coefficients."""
    found = [(g[..., 0, 0] - g[..., 0, 1] - g[..., 1, 0] + g[..., 1, 1]).flatten() for g in grids]
    return float(torch.cat(found).abs().median() / 2 / 0.6745)


def _texture(x: Tensor, stride: int) -> Tensor:  # [1, C, H, W] -> [L]
    """Sum of the squared differences between neighbouring pixels of each patch."""
    rows, columns = x.diff(dim=2).square().sum(1), x.diff(dim=3).square().sum(1)
    mean = F.avg_pool2d(rows, (PATCH - 1, PATCH), stride) + F.avg_pool2d(columns, (PATCH, PATCH - 1), stride)
    return (mean * (PATCH * (PATCH - 1))).flatten()


def _from_flat_patches(grids: Sequence[Tensor], texture: Tensor, enough: int) -> float:  # of [h, w, C, 7, 7]; [L]
    """The estimate from the patches that are no rougher than its noise explains, repeated while it falls.

    Liu, Tanaka, Okutomi, IEEE TIP 2013, choose patches like this; they take the smallest eigenvalue, which is too small. A lower level
    leaves a part of the patches, so that the moments of the others are subtracted where they are fewer.
    """
    limit, kept = _limit(grids[0].shape[2]), torch.ones_like(texture, dtype=torch.bool)
    moments = Moments.of(grids, kept)
    level = moments.level()
    for _ in range(ROUNDS):
        flat = texture < limit * level**2
        count = int(flat.sum())
        if count < enough:
            break
        fewer = 2 * count > moments.patches
        moments = moments.without(Moments.of(grids, kept & ~flat)) if fewer else Moments.of(grids, flat)
        lower, kept = moments.level(), flat
        if lower > 0.999 * level:
            break
        level = lower
    return level


def _limit(channels: int) -> float:
    """The 99 % quantile of `_texture` under noise of variance 1, from its mean 2 * 84 * channels and its measured spread."""
    return 168.0 * channels + 111.0 * channels**0.5


class _Patches(NamedTuple):
    """Patches of the pieces of one image, on regular grids."""

    grids: list[Tensor]  # [h, w, C, 7, 7], the mean of the image subtracted
    texture: Tensor  # [L]
    mean: Tensor  # of the image, [C]

    @classmethod
    def of(cls, pieces: Sequence[Tensor]) -> _Patches:
        mean = torch.stack([piece.float().mean((1, 2)) for piece in pieces]).mean(0)
        grids, texture = [], []
        for piece in pieces:
            h, w = piece.shape[1:]
            x = F.pad((piece.float() - mean[:, None, None])[None], (0, max(0, PATCH - w), 0, max(0, PATCH - h)), mode="replicate")
            stride = max(1, round((x.shape[2] * x.shape[3] * len(pieces) / PATCHES) ** 0.5))
            grids.append(x[0].unfold(1, PATCH, stride).unfold(2, PATCH, stride).permute(1, 2, 0, 3, 4))
            texture.append(_texture(x, stride))
        return cls(grids, torch.cat(texture), mean)

    def level(self) -> float:
        """The smaller of two estimates that err upwards on texture."""
        diagonals = _from_diagonals(self.grids)
        enough = 20 * len(self.mean) * PATCH**2
        if len(self.texture) < enough:  # too few patches: the covariance's small eigenvalues would be too small
            return diagonals
        return min(diagonals, _from_flat_patches(self.grids, self.texture, enough))

    def by_brightness(self, groups: int) -> list[_Patches]:
        """As many patches in each group, the darkest first."""
        patches = torch.cat([grid.flatten(0, 1) for grid in self.grids])
        order = patches.mean((1, 2, 3)).argsort()
        return [_Patches([patches[chosen][:, None]], self.texture[chosen], self.mean) for chosen in order.chunk(groups)]

    @property
    def brightness(self) -> float:
        return float(self.mean.mean() + torch.cat([grid.flatten() for grid in self.grids]).mean())


def _pieces(y: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [y] if isinstance(y, Tensor) else list(y)


def noise_level(y: Tensor | Sequence[Tensor]) -> float:
    """Standard deviation of white noise, the same in all channels, in the units of the image.

    Measured on 50 training images with sigma 0 to 55: the RMS error is 0.5 or less in gray, 0.3 or less in colour (units of 1/255), below
    sigma 5 as above 20.

    Args:
        y: noisy image [C, H, W], or several pieces of one; a side below 7 pixels is extended by repeating the border.
    """
    return _Patches.of(_pieces(y)).level()


def noise_levels(y: Tensor | Sequence[Tensor], groups: int) -> list[tuple[float, float]]:
    """(brightness, standard deviation of white noise) of the dark, ..., bright parts of an image, see `noise_level`.

    A patch belongs to a part by its mean; each of `groups` parts has as many patches.
    """
    return [(part.brightness, part.level()) for part in _Patches.of(_pieces(y)).by_brightness(groups)]
