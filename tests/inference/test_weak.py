"""Nearly clean images are not made worse, and noise that the models know is removed as before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastbsn import Denoiser
from fastbsn.evaluation.drawn import PICTURES
from fastbsn.evaluation.metrics import psnr
from fastbsn.inference.frames import Frames
from tests.conftest import photograph

SMOOTH = "photograph", "smooth", "gradient"


@pytest.fixture(scope="module", params=["gray-awgn", "color-awgn"])
def model(request):
    return Denoiser.from_pretrained(request.param, device="cpu")


def picture(kind: str, rng: np.random.Generator, channels: int) -> np.ndarray:
    x = photograph(rng, 192, 192) if kind == "photograph" else PICTURES[kind](192, rng)
    x = x if x.ndim == 2 else x.mean(-1)
    return np.clip(x if channels == 1 else np.stack([x, 0.9 * x, 0.05 + 0.8 * x], -1), 0, 1)


def gain(model: Denoiser, clean: np.ndarray, noisy: np.ndarray, **options) -> float:
    after = model(noisy, data_range=1.0, **options)
    return psnr(np.atleast_3d(clean).T, np.atleast_3d(after).T) - psnr(np.atleast_3d(clean).T, np.atleast_3d(noisy).T)


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_nearly_clean_images_lose_next_to_nothing(model, rng, kind, sigma):
    clean = picture(kind, rng, model.channels)
    noisy = (clean + rng.normal(0, sigma / 255, clean.shape)).astype(np.float32)
    assert gain(model, clean, noisy) > -0.1
    assert model._predictor.kept(Frames(noisy, model.channels, data_range=1.0), 0, 2.0) is None


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("noise", ["white 3", "white 25", "poisson", "smooth"])
def test_other_noise_is_removed_as_before(model, rng, kind, noise):
    clean = picture(kind, rng, model.channels)
    if noise == "poisson":
        noisy = rng.poisson(clean * 4000) / 4000
    else:
        n = rng.normal(0, 1, clean.shape)
        n = cv2.GaussianBlur(n, (0, 0), 0.8) if noise == "smooth" else n
        noisy = clean + n / n.std() * (5 if noise == "smooth" else int(noise.split()[1])) / 255
    assert model._predictor.kept(Frames(noisy.astype(np.float32), model.channels, data_range=1.0), 0) is None


def test_a_tile_is_treated_like_its_image_and_strength_goes_on_counting(model, rng):
    clean = picture("photograph", rng, model.channels)
    noisy = (clean + rng.normal(0, 0.3 / 255, clean.shape)).astype(np.float32)
    whole = model(noisy, data_range=1.0, tile=None)
    np.testing.assert_allclose(model(noisy, data_range=1.0, tile=64), whole, atol=2e-3)
    half = model(noisy, data_range=1.0, tile=None, strength=0.5)
    np.testing.assert_allclose(half, (whole + noisy) / 2, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2), (1, 300), (300, 5), (7, 7)])
def test_images_too_thin_to_show_their_noise_are_denoised(rng, shape):
    y = np.float32(0.5) + np.float32(0.1) * rng.standard_normal(shape).astype(np.float32)
    assert not np.array_equal(Denoiser.from_pretrained("gray-awgn", device="cpu")(y), y)
