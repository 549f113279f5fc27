"""The bundled models on pictures that have little in common with the photographs they learned from."""

from __future__ import annotations

import numpy as np
import pytest

from fastbsn import Denoiser
from fastbsn.evaluation.drawn import smooth
from fastbsn.evaluation.metrics import psnr

SIDE = 384
GAIN = {3: -0.5, 10: 4.0, 50: 14.0}  # dB at least; weak noise on smooth colours is left in, see benchmarks/results/weights.md


@pytest.mark.parametrize("sigma", [0, 3, 10, 50])
@pytest.mark.parametrize("name", ["gray-awgn", "color-awgn"])
def test_any_picture_gets_better(name, sigma):
    """What students without weight decay fail: they made up patterns in colours that they had not seen."""
    d = Denoiser.from_pretrained(name, device="cpu")
    for seed in range(6):
        clean = smooth(SIDE, np.random.default_rng(seed)).transpose(2, 0, 1)[: d.channels]
        noisy = clean + (sigma / 255 * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)
        found = psnr(clean, d(noisy, channel_axis=0, data_range=1.0))
        assert found > (psnr(clean, noisy) + GAIN[sigma] if sigma else 50), f"picture {seed}"
