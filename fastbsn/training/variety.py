"""What makes a student of a few hundred photographs take any picture: parts of the re-noised pairs are made otherwise."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from fastbsn.camera.degrade import constant_area
from fastbsn.errors import InputError
from fastbsn.pixels import luma
from fastbsn.training.crops import recolour
from fastbsn.training.drawings import picture

WEAK = 5 / 255
LEFT = 0.3  # root mean square error of a student, in units of the standard deviation of the noise: 31 dB at sigma 25


@dataclass(frozen=True)
class Variety:
    """Fractions of the re-noised pairs, 0 to 1, each drawn by itself.

    recorrupted: the input is a noisy image itself with more noise, of those whose own level is below the one drawn, see `recorrupt`.
    Of the others: recolour: the image gets other colours. drawn: the image is one of `fastbsn.training.drawings`. correlated: the noise is
    alike in the channels, by a part drawn from 0 to 1 (colour only). So recorrupted=0.75, drawn=0.3 draws 0.075 of all pairs or more.
    Of all: framed: an area is constant and without noise. weak: the level is drawn below WEAK, whatever the range of levels.
    """

    recorrupted: float = 0.0
    recolour: float = 0.0
    drawn: float = 0.0
    framed: float = 0.0
    correlated: float = 0.0
    weak: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= (value := getattr(self, field.name)) <= 1:
                raise InputError(f"{field.name}={value}; expected a fraction of 0 to 1")

    def levels(self, low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
        """Standard deviations of white noise, [count], uniform from `low` to `high` but for the weak ones."""
        weak, level = torch.rand(2, count, generator=generator)
        return torch.where(weak < self.weak, level * WEAK, low + (high - low) * level)

    def images(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """Some of the images [B, C, S, S] with other colours, or replaced by drawn ones."""
        if self.recolour > 0:
            x = torch.where(self._some(self.recolour, x, noise), recolour(x, noise), x)
        chosen = self._chosen(self.drawn, x, noise)
        x = x.clone() if chosen else x
        for i in chosen:
            drawn = torch.from_numpy(picture(x.shape[-1], _numpy(noise)).transpose(2, 0, 1)).to(x.device)
            x[i] = luma(drawn) if x.shape[1] == 1 else drawn
        return x

    def noise(self, shape: torch.Size, noise: torch.Generator) -> Tensor:
        """Noise of variance 1, white over pixels, [B, C, S, S]."""
        z = torch.randn(shape, generator=noise, device=noise.device)
        for i in self._chosen(self.correlated, z, noise) if shape[1] > 1 else []:
            rho = float(torch.rand((), generator=noise, device=noise.device))
            rho = 1.0 if rho > 0.8 else rho / 0.8  # alike in all channels: gray stored as RGB, film
            common = torch.randn(shape[2:], generator=noise, device=noise.device)
            z[i] = (1 - rho) ** 0.5 * z[i] + rho**0.5 * common
        return z

    def frames(self, y: Tensor, x: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Input and target [B, C, S, S], some with a constant area."""
        for i in self._chosen(self.framed, x, noise):
            rng = _numpy(noise)
            area = torch.from_numpy(constant_area((x.shape[2], x.shape[3]), rng)).to(x.device)
            y[i, :, area] = x[i, :, area] = float(rng.choice([0.0, 1.0, rng.random()], p=[0.6, 0.2, 0.2]))
        return y, x

    def recorrupt(self, noisy: Tensor, label: Tensor, own: Tensor, sigma: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets that start from the noisy image.

        Recorrupted-to-Recorrupted (Pang et al., CVPR 2021): of an image y with noise of standard deviation s, the pair y + t z and
        y - s^2 / t z has independent noises, so that squared error has its minimum where it is with clean targets. The target is noisy,
        and the label is not but has lost texture: the target is their mean, weighted by the variance of the noise and the square of
        the error that a student is left with. z is white, as the image's own noise is: otherwise the two would not be independent.

        Args:
            noisy, label: image and its label, [B, C, S, S].
            own, sigma: level of the image and, above it, of the input, [B, 1, 1, 1].
        """
        z = torch.randn(noisy.shape, generator=noise, device=noise.device)
        t, ratio = _added(own, sigma), target_noise(own, sigma)
        part = 1 / (1 + 0.5 * ratio)
        return noisy + t * z, part * (noisy - own**2 / t * z) + (1 - part) * label

    @staticmethod
    def _some(fraction: float, x: Tensor, noise: torch.Generator) -> Tensor:
        return torch.rand(len(x), 1, 1, 1, generator=noise, device=noise.device) < fraction

    def _chosen(self, fraction: float, x: Tensor, noise: torch.Generator) -> list[int]:
        return self._some(fraction, x, noise).flatten().nonzero().flatten().tolist() if fraction > 0 else []


def _added(own: Tensor, sigma: Tensor) -> Tensor:
    """Standard deviation of the noise that makes `sigma` of `own`."""
    return (sigma**2 - own**2).clamp(min=(0.5 / 255) ** 2).sqrt()


def target_noise(own: Tensor, sigma: Tensor) -> Tensor:
    """Variance of the noise of the targets of `Variety.recorrupt`, over the squared error that a student is left with."""
    return (own**2 + own**4 / _added(own, sigma) ** 2) / (LEFT * sigma) ** 2


def _numpy(noise: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=noise, device=noise.device)))
