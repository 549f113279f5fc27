"""Random fields with a given covariance: N(f) = A(f) Z(f), where A A^H is the spectrum at frequency f, a C x C matrix, and Z is white."""

from __future__ import annotations

import math

import cv2
import numpy as np

from fastbsn.camera.statistics import REACH, CameraNoise

GRID = 128  # pixels on a side of the torus on which crops of noise are drawn
TAPER = 1.2 * REACH  # distance in pixels at which the kept correlation has faded to zero


def factor(noise: CameraNoise, height: int = GRID, width: int = GRID) -> np.ndarray:
    """A(f), [height, width // 2 + 1, C, C] complex64, of the noise on a torus of that size.

    A measured correlation that is cut off belongs to no noise any more: it is faded out, and negative eigenvalues of its spectrum are
    set to zero.
    """
    lag = np.arange(-REACH, REACH + 1)
    fade = np.clip(1 - (lag[:, None] ** 2 + lag[None] ** 2) / TAPER**2, 0, None)
    torus = np.zeros((height, width, noise.channels, noise.channels))
    torus[lag[:, None], lag[None]] = noise.correlation * fade[..., None, None]
    spectrum = np.fft.rfft2(torus, axes=(0, 1))
    values, vectors = np.linalg.eigh((spectrum + spectrum.conj().swapaxes(-1, -2)) / 2)
    a = vectors * np.sqrt(values.clip(0))[..., None, :]
    power = np.fft.irfft2((np.abs(a) ** 2).sum(-1), (height, width), axes=(0, 1))[0, 0]  # [C], the variance that is left
    return np.asarray(a / np.sqrt(power)[:, None], np.complex64)


def draw(a: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """One field [height, width, C], float32, of variance 1, for `a` of `factor`; it may be continued periodically."""
    white = np.fft.rfft2(rng.standard_normal((a.shape[0], width, a.shape[-1]), np.float32), axes=(0, 1))
    mixed = np.einsum("hwij,hwj->hwi", a.conj(), white.astype(np.complex64), optimize=False)
    return np.asarray(np.fft.irfft2(mixed, (a.shape[0], width), axes=(0, 1)), np.float32)


def by_intensity(x: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Standard deviation at every pixel of an image [H, W, C] in [0, 1], from a variance [C, BINS] by intensity."""
    grid = np.linspace(0, 1, variance.shape[1])
    return np.stack([np.sqrt(np.interp(x[..., c], grid, variance[c])) for c in range(x.shape[2])], -1).astype(np.float32)


def stretched(field: np.ndarray, size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """[size, size, C] of variance 1 from a periodic field [G, G, C], anywhere in it, its grain `scale` times as large."""
    need = math.ceil(size / scale)
    rows, cols = (rng.integers(field.shape[0], size=2)[:, None] + np.arange(need)) % field.shape[0]
    part = field[rows[:, None], cols]
    if need != size:
        part = cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR)
        part = part / part.std((0, 1))
    return np.asarray(part, np.float32)
