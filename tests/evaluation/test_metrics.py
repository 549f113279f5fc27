"""PSNR and SSIM against their definitions and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import convolve2d

from fastbsn.errors import InputError
from fastbsn.evaluation.metrics import psnr, ssim


def test_psnr_of_known_errors():
    a = np.zeros((3, 4, 5))
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 0.1) == pytest.approx(20)
    assert psnr(a * 255, a + 25.5, data_range=255) == pytest.approx(20)
    b = a.copy()
    b[0] = 0.3  # jointly over channels, not the mean of three
    assert psnr(a, b) == pytest.approx(10 * math.log10(1 / 0.03))
    assert psnr(np.float32(a), np.float32(a + 0.1)) == pytest.approx(20, abs=1e-4)


def wang(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM as in the paper: 11 x 11 Gaussian window of sigma 1.5, valid positions, population moments."""
    t = np.arange(11) - 5
    window = np.exp(-(t[:, None] ** 2 + t**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z):
        return convolve2d(z, window, mode="valid")

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("shape", [(11, 11), (16, 25), (3, 20, 17), (1, 12, 30)])
def test_ssim_is_that_of_wang(rng, shape):
    x = rng.random(shape)
    y = np.clip(x + rng.normal(0, 0.1, shape), 0, 1)
    planes = zip(x.reshape(-1, *shape[-2:]), y.reshape(-1, *shape[-2:]), strict=True)
    assert ssim(x, y) == pytest.approx(np.mean([wang(a, b) for a, b in planes]), abs=1e-9)
    assert ssim(x, x) == pytest.approx(1)
    assert ssim(255 * x, 255 * y, data_range=255) == pytest.approx(ssim(x, y))


def test_wrong_shapes_are_refused():
    for metric in (psnr, ssim):
        for a, b in [((4, 4), (4, 5)), ((4,), (4,)), ((1, 1, 4, 4), (1, 1, 4, 4)), ((0, 4), (0, 4))]:
            with pytest.raises(InputError):
                metric(np.zeros(a), np.zeros(b))
    with pytest.raises(InputError, match="11 x 11"):
        ssim(np.zeros((3, 10, 30)), np.zeros((3, 10, 30)))
