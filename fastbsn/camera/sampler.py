"""Training pairs for a denoiser of photographs: crops of pseudo-labels, re-noised with any noise that a picture may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fastbsn.camera.degrade import BORDER, SAMPLINGS, blurred_noise, constant_area, jpeg, raw_noise, to_bytes, white_noise
from fastbsn.camera.fields import GRID, by_intensity, draw, factor, stretched
from fastbsn.camera.statistics import CameraNoise
from fastbsn.errors import InputError
from fastbsn.pixels import LUMA

KINDS = ("measured", "raw", "blurred", "white", "clean")
MARGIN = 16  # pixels that a crop is larger than what is kept of it, so that it lies anywhere on the grid of JPEG


@dataclass(frozen=True)
class Mixture:
    """Parts of the kinds of noise, which sum to 1, and how they are drawn. Levels are standard deviations in 1/255 units.

    measured: spectra of the bank, where there is one (else blurred). raw: sensor noise through mosaic and tone curve. blurred: coarse
    Gaussian noise (film grain, resized pictures). white: independent pixels, sigma up to `white_sigma`. clean: none.
    gain: range of the factor on a measured level, which is known to be too low. free: fraction of measured noise whose level is drawn
    from 0 to `camera_sigma` instead. frames: fraction of crops with a constant area without noise. own: probability that a crop of a
    photograph in the bank gets that photograph's noise. other_content: fraction of crops that are recoloured or smoothed first.
    pairs: probability that a crop of a photograph in the bank is not re-noised: its input is the noisy photograph itself.
    """

    measured: float = 0.80
    raw: float = 0.04
    blurred: float = 0.04
    white: float = 0.08
    clean: float = 0.04
    gain: tuple[float, float] = (1.0, 2.4)
    free: float = 0.12
    camera_sigma: float = 40.0
    white_sigma: float = 55.0
    frames: float = 0.06
    own: float = 0.7
    other_content: float = 0.12
    pairs: float = 0.0

    def __post_init__(self) -> None:
        total = sum(getattr(self, kind) for kind in KINDS)
        if abs(total - 1) > 1e-6:
            raise InputError(f"mixture: the parts of the kinds of noise sum to {total:g}; expected 1")


class CameraSampler:
    """Draws re-noised crops; the generator that is passed in decides every draw.

    Args:
        bank: measured noises, one per photograph; empty: synthetic noise only.
        mixture: what is drawn how often.
    """

    def __init__(self, bank: Sequence[CameraNoise] = (), mixture: Mixture | None = None):
        self.bank, self.mixture = list(bank), mixture or Mixture()
        self._factors: dict[int, np.ndarray] = {}

    def pair(self, crop: np.ndarray, rng: np.random.Generator, own: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One training pair from a crop of a label.

        Args:
            crop: [S + MARGIN, S + MARGIN, 3] float32 in [0, 1] units.
            own: index in the bank of the photograph that the crop is from, or None.

        Returns:
            Noisy input and target, [S, S, 3] float32 each. The input may leave [0, 1].
        """
        m, size = self.mixture, crop.shape[0] - MARGIN
        x = self._content(crop, rng)
        kind = str(rng.choice(KINDS, p=[getattr(m, k) for k in KINDS]))
        if kind == "measured":
            y = x + (self._measured(x, own, rng) if self.bank else self._blurred(x, rng))
        elif kind == "blurred":
            y = x + self._blurred(x, rng)
        elif kind == "raw":
            y = raw_noise(x, rng)
        else:
            y = x + self._white(x, rng) if kind == "white" else x
        if rng.random() < m.frames:
            area, value = constant_area(x.shape[:2], rng), self._constant(rng)
            x, y = x.copy(), y.copy()
            x[area] = y[area] = value
        y = self._stored(y, kind, rng)
        i, j = rng.integers(MARGIN + 1, size=2)
        return y[i : i + size, j : j + size], x[i : i + size, j : j + size]

    def _content(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Other colours, or smoother: a few hundred small photographs show few colours, and a camera's at full size are smoother."""
        m = self.mixture
        if rng.random() < m.other_content:
            x = (np.clip(x, 0, 1) ** rng.uniform(0.5, 2.0, 3).astype(np.float32))[..., rng.permutation(3)]
            if rng.random() < 0.3:
                low, high = np.sort(rng.uniform(0, 1, 2))
                x = low + (high - low) * x
            if rng.random() < 0.2:
                x = 1 - x
        if rng.random() < 0.06:
            x = np.repeat((x @ np.array(LUMA, np.float32))[..., None], 3, -1)
        if rng.random() < m.other_content:
            x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6), borderType=BORDER)
        return np.asarray(x, np.float32)

    def _constant(self, rng: np.random.Generator) -> np.ndarray:
        value = rng.choice([0.0, 1.0, rng.random()], p=[0.6, 0.2, 0.2])
        return np.full(3, value, np.float32) if rng.random() < 0.8 else rng.random(3, np.float32)

    def _measured(self, x: np.ndarray, own: int | None, rng: np.random.Generator) -> np.ndarray:
        """Noise with the spectrum and the level of one photograph, or of a mixture of two; turned, stretched, rescaled."""
        m = self.mixture
        index = own if own is not None and rng.random() < m.own else int(rng.integers(len(self.bank)))
        n = draw(self._factor(index), GRID, rng)
        if rng.random() < 0.3:
            part = rng.random()
            n = np.sqrt(part) * n + np.sqrt(1 - part) * draw(self._factor(int(rng.integers(len(self.bank)))), GRID, rng)
        scale = float(np.exp(rng.uniform(np.log(0.65), np.log(1.6)))) if rng.random() < 0.35 else 1.0
        n = stretched(n, x.shape[0], scale, rng)
        if rng.random() < 0.5:
            n = n.transpose(1, 0, 2)
        if rng.random() < 0.2:
            n = n[..., rng.permutation(3)]
        if rng.random() < 0.2:
            n = n + rng.uniform(0, 0.5) * rng.standard_normal(n.shape, np.float32)
        level = by_intensity(x, self.bank[index].variance)
        if rng.random() < m.free:
            return n * level * np.float32(m.camera_sigma / 255 * rng.random() ** 2 / np.sqrt((level**2).mean()))
        return n * level * np.float32(rng.uniform(*m.gain))

    def _factor(self, index: int) -> np.ndarray:
        if index not in self._factors:
            self._factors[index] = factor(self.bank[index])
        return self._factors[index]

    def _blurred(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        level = np.sqrt(np.clip(rng.uniform(-0.5, 1) * x + rng.uniform(0.3, 1), 0.05, None))
        sigma = self.mixture.camera_sigma / 255 * rng.random() ** 1.5
        return np.asarray(sigma * blurred_noise(x.shape, rng) * level / level.mean(), np.float32)

    def _white(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """White over pixels; half of it independent over channels and of one level."""
        correlation, sigma = 0.0, self.mixture.white_sigma / 255 * rng.random() ** 1.5
        if rng.random() < 0.35:
            correlation = 1.0 if rng.random() < 0.3 else rng.random()
        n = white_noise(x.shape, correlation, rng)
        if rng.random() < 0.15:
            level = np.sqrt(np.clip(x, 0, 1) + rng.uniform(0.02, 1))
            n = n * level / np.sqrt((level**2).mean())
        return np.asarray(sigma * n, np.float32)

    def _stored(self, y: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
        """As a file would hold it: JPEG, 8 bits, or unchanged."""
        compressed = {"measured": 0.3, "raw": 0.7, "blurred": 0.4, "white": 0.1, "clean": 0.5}[kind]
        if rng.random() < compressed:
            quality = int(rng.integers(75, 101)) if rng.random() < 0.8 else int(rng.integers(30, 76))
            return jpeg(y, quality, int(rng.choice(SAMPLINGS)))
        if rng.random() < (0.2 if kind == "white" else 0.7):
            return to_bytes(y).astype(np.float32) / 255
        return y
