"""The model that an image takes: by its channels and by the spectrum of its noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastbsn.camera.degrade import jpeg
from fastbsn.evaluation.drawn import gradient, night, smooth, smooth_noise, text, upscaled, white_noise
from fastbsn.inference.choose import choose_model
from fastbsn.inference.frames import Frames

PICTURES = (gradient, smooth, text, upscaled, night)


def chosen(x: np.ndarray, axes: str = "YXC", channels: int = 3) -> str:
    return choose_model(Frames(x, channels, axes, data_range=255 if x.dtype == np.uint8 else 1.0)).model


@pytest.mark.parametrize("draw", PICTURES)
def test_white_noise_takes_the_model_of_white_noise(draw):
    for sigma in (5, 15, 50):
        rng = np.random.default_rng(sigma)
        x = draw(256, rng)
        assert chosen(x + white_noise(x.shape, sigma, 0.0, rng)) == "color-awgn", sigma


@pytest.mark.parametrize("draw", PICTURES)
def test_strong_white_noise_is_known_by_luma(draw):
    """Where it is alike in the channels, and where JPEG has made chroma smooth."""
    rng = np.random.default_rng(1)
    x = draw(256, rng)
    for y in (
        *(x + white_noise(x.shape, 25, rho, rng) for rho in (0.25, 0.5, 1.0)),
        jpeg(x + white_noise(x.shape, 20, 0.0, rng), 90),
        jpeg(x + white_noise(x.shape, 20, 0.0, rng), 85),
    ):
        assert chosen(np.asarray(y, np.float32)) == "color-awgn"


@pytest.mark.parametrize("draw", PICTURES)
def test_other_noise_and_none_take_the_model_of_photographs(draw):
    rng = np.random.default_rng(1)
    x = draw(256, rng)
    for y in (
        x,
        x + smooth_noise(x.shape, 6, rng),
        x + smooth_noise(x.shape, 20, rng),
        jpeg(x + white_noise(x.shape, 5, 0.0, rng), 85),
        cv2.GaussianBlur(x, (0, 0), 1),
    ):
        assert chosen(np.asarray(y, np.float32)) == "color-photo"


def test_channels(rng):
    gray = rng.integers(0, 255, (40, 50, 1), np.uint8)
    assert chosen(gray[..., 0], "YX", 1) == "gray-awgn"
    assert chosen(np.repeat(gray, 3, 2)) == "gray-awgn"
    assert chosen(np.concatenate([gray, gray, gray, gray // 2], 2)) == "gray-awgn"  # alpha says nothing
    assert chosen(rng.integers(0, 255, (5, 40, 50), np.uint8), "CYX", 1) == "gray-awgn"
    assert chosen(rng.integers(0, 255, (40, 50, 3), np.uint8)) == "color-awgn"
    assert chosen(np.zeros((0, 50, 3), np.uint8)) == "gray-awgn"
    assert chosen(np.full((3, 3, 3), 7, np.uint8)) == "gray-awgn"
    stack = np.stack([smooth(64, np.random.default_rng(0))] * 2)
    assert chosen(stack, "TYXC") == "color-photo"
