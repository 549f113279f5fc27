"""What the noise of one photograph is: covariance between neighbouring pixels and channels, and variance by intensity."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fastbsn.errors import InputError

BLOCK = 32  # pixels on a side of the blocks in which noise is looked at
REACH = 6  # largest distance in pixels at which covariance is kept
BINS = 17  # intensities from 0 to 1 at which the variance is kept
FLATTEST = 1 / 6  # fraction of the blocks that is used
FEWEST = 12  # blocks at least


@dataclass(frozen=True)
class CameraNoise:
    """Second-order statistics of noise.

    correlation: [2R+1, 2R+1, C, C] between channel i at a pixel and channel j at a pixel (dy, dx) further, index (R+dy, R+dx, i, j);
        every channel with itself at distance 0 is 1.
    variance: [C, BINS] of each channel by intensity from 0 to 1, in units of the image range squared.
    """

    correlation: np.ndarray
    variance: np.ndarray

    @property
    def channels(self) -> int:
        return int(self.correlation.shape[-1])

    @property
    def sigma(self) -> float:
        """Standard deviation, the root mean square over channels and intensities."""
        return float(np.sqrt(self.variance.mean()))

    def autocorrelation(self, distance: int) -> float:
        """Autocorrelation at `distance` pixels, the mean of both axes and all channels."""
        both = self.correlation[REACH, REACH + distance] + self.correlation[REACH + distance, REACH]
        return float(np.trace(both) / 2 / self.channels)

    def between_channels(self) -> float:
        """Correlation between two channels at one pixel, the mean of all pairs; 0 for a gray image."""
        c, n = self.correlation[REACH, REACH], self.channels
        return float((c.sum() - np.trace(c)) / (n * (n - 1))) if n > 1 else 0.0


def _detrended(blocks: np.ndarray) -> np.ndarray:
    """[n, B, B, C] less the best plane of each block and channel."""
    n, size, _, channels = blocks.shape
    axis = np.linspace(-1, 1, size)
    basis = np.stack([np.ones((size, size)), np.tile(axis, (size, 1)), np.tile(axis[:, None], (1, size))]).reshape(3, -1).T
    q = np.linalg.qr(basis)[0].astype(np.float32)
    flat = blocks.transpose(0, 3, 1, 2).reshape(-1, size * size)
    return (flat - (flat @ q) @ q.T).reshape(n, channels, size, size).transpose(0, 2, 3, 1)


def _flattest(label: np.ndarray) -> list[tuple[int, int]]:
    """Corners of the flattest of all half-overlapping blocks of an image [H, W, C], by its mean gradient."""
    gradient = sum(np.abs(cv2.Sobel(label, -1, *d)).reshape(*label.shape[:2], -1).sum(-1) for d in ((1, 0), (0, 1)))
    mean = cv2.boxFilter(np.asarray(gradient, np.float32), -1, (BLOCK, BLOCK), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    h, w = mean.shape
    places = [(i, j) for i in range(0, h - BLOCK + 1, BLOCK // 2) for j in range(0, w - BLOCK + 1, BLOCK // 2)]
    places.sort(key=lambda p: float(mean[p]))
    return places[: max(FEWEST, int(len(places) * FLATTEST))]


def measure(noisy: np.ndarray, label: np.ndarray) -> CameraNoise:
    """Measure the noise of a photograph, its difference to a denoised version, in the blocks where that version is flattest.

    The level comes out low, at 0.3 to 0.8 of the truth on PolyU: JPEG removes noise from flat blocks, flat blocks are partly those that
    happen to hold little of it, and the label keeps some. `CameraSampler` therefore draws it from a range of factors. The blocks of
    the photograph itself, less their best plane, would have more of the noise of low frequency, but also what texture there is:
    students trained on that removed texture (38.0 dB on 23 images of PolyU and one 1.9 dB below its input; by difference, with labels
    0.1 dB better, 38.2 dB and none below; 1,500 steps each).

    Args:
        noisy, label: [H, W, C] float32 in [0, 1] units, the photograph and an estimate of the clean image; at least BLOCK pixels on a side.

    Raises:
        InputError: another shape, or a photograph without any noise.
    """
    if noisy.shape != label.shape or noisy.ndim != 3 or min(noisy.shape[:2]) < BLOCK:
        raise InputError(f"noise is measured on [H, W, C] images of at least {BLOCK} x {BLOCK} pixels; got {noisy.shape} and {label.shape}")
    corners = _flattest(label)
    blocks, difference = (np.stack([x[i : i + BLOCK, j : j + BLOCK] for i, j in corners]) for x in (label, noisy - label))
    residual = _detrended(difference)
    # A saturated or constant block says nothing about noise.
    alive = (residual.reshape(len(residual), -1).std(1) > 1e-5) & (blocks.mean((1, 2, 3)) < 0.99) & (blocks.mean((1, 2, 3)) > 0.01)
    if not alive.any():
        raise InputError("noise cannot be measured: all flat blocks are constant or saturated; expected a noisy photograph")
    blocks, residual = blocks[alive], residual[alive]
    return CameraNoise(_correlation(residual), _variance(blocks.mean((1, 2)), residual.var((1, 2))))


def _correlation(residual: np.ndarray) -> np.ndarray:
    """[n, B, B, C] -> [2R+1, 2R+1, C, C], from blocks of equal weight."""
    n, size, *_ = residual.shape
    unit = residual / residual.reshape(n, -1).std(1)[:, None, None, None]
    f = np.fft.fft2(unit, (2 * size, 2 * size), axes=(1, 2))
    spectrum = np.einsum("nhwi,nhwj->hwij", f.conj(), f) / n
    full = np.fft.ifft2(spectrum, axes=(0, 1)).real
    lag = np.arange(-REACH, REACH + 1)
    overlap = (size - np.abs(lag))[:, None] * (size - np.abs(lag))[None]
    c = full[lag[:, None], lag[None]] / overlap[..., None, None]
    c = (c + c[::-1, ::-1].swapaxes(-1, -2)) / 2
    deviation = np.sqrt(np.diagonal(c[REACH, REACH]).clip(1e-12))
    return np.asarray(c / deviation[:, None] / deviation, np.float32)


def _variance(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Block means and variances [n, C] -> [C, BINS]: a line through them, kept within a factor of 4 of their mean."""
    grid, lines = np.linspace(0, 1, BINS), []
    for m, v in zip(mean.T, variance.T, strict=True):
        slope, offset = np.polyfit(m, v, 1) if np.ptp(m) > 0.1 else (0.0, v.mean())
        lines.append(np.clip(offset + slope * grid, v.mean() / 4, 4 * v.mean()))
    return np.asarray(lines, np.float32)
