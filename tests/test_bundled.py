"""The bundled models on pictures that have little in common with the photographs they learned from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastbsn import Denoiser
from fastbsn.evaluation.metrics import psnr

SIDE = 384
GAIN = {3: -0.5, 10: 4.0, 50: 14.0}  # dB at least; weak noise on smooth colours is left in, see benchmarks/results/weights.md


def picture(seed: int) -> np.ndarray:
    """[3, SIDE, SIDE], in [0, 1]: large smooth areas of strong colours with sharp borders."""
    rng = np.random.default_rng(seed)
    canvas = cv2.resize(rng.random((3, 3, 3), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        shape = np.zeros((SIDE, SIDE), np.uint8)
        cv2.fillPoly(shape, [rng.integers(0, SIDE, (4, 2))], 255, cv2.LINE_AA)
        alpha = shape[..., None] / np.float32(255)
        colour = rng.random(3, np.float32) ** rng.choice((0.2, 1, 5), 3)  # often close to 0 or 1
        canvas = (1 - alpha) * canvas + alpha * (colour + 0.1 * (canvas - 0.5))
    return np.clip(canvas, 0, 1).transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize("sigma", [0, 3, 10, 50])
@pytest.mark.parametrize("name", ["gray-awgn", "color-awgn"])
def test_any_picture_gets_better(name, sigma):
    """What students without weight decay fail: they made up patterns in colours that they had not seen."""
    d = Denoiser.from_pretrained(name, device="cpu")
    for seed in range(6):
        clean = picture(seed)[: d.channels]
        noisy = clean + (sigma / 255 * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)
        found = psnr(clean, d(noisy, channel_axis=0, data_range=1.0))
        assert found > (psnr(clean, noisy) + GAIN[sigma] if sigma else 50), f"picture {seed}"
