"""Hot pixels are found where they are, and the fine detail of photographs is not taken for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from fastbsn import Denoiser
from fastbsn.evaluation.metrics import psnr
from fastbsn.inference.impulses import find_impulses, where_impulses

PICTURES = ("astronaut", "chelsea", "coffee", "rocket")


def picture(name: str) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1], at half the size: photographs that are as sharp as pixels allow."""
    x = getattr(data, name)().astype(np.float32) / 255
    return cv2.resize(x, (x.shape[1] // 2, x.shape[0] // 2), interpolation=cv2.INTER_AREA)


def planes(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))


@pytest.mark.parametrize("sigma", [0, 3, 15])
@pytest.mark.parametrize("name", PICTURES)
def test_sharp_photographs_hold_no_impulses(name, sigma):
    x = picture(name)
    y = x + np.float32(sigma / 255) * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    assert find_impulses([planes(y)]) is None


@pytest.mark.parametrize("name", PICTURES)
def test_hot_pixels_are_found_and_mended(name):
    rng, x = np.random.default_rng(1), picture(name)
    y = x + np.float32(8 / 255) * rng.standard_normal(x.shape, np.float32)
    hot = rng.random(x.shape[:2]) < 1e-3
    y[hot] = 1.0
    found = find_impulses([planes(y)])
    assert found is not None and found.kind == "hot pixels"
    mended = where_impulses(planes(y), found)[0].numpy()
    visible = np.abs(x[hot].transpose() - 1) > 0.4
    assert mended[:, hot][visible].mean() > 0.85 and mended.sum() < 1.2 * 3 * hot.sum()


@pytest.mark.parametrize("sigma", [0.5, 3, 10])
@pytest.mark.parametrize("blur", [0.45, 0.7, 1.0])
def test_stars_are_not_hot_pixels(blur, sigma):
    """Whatever the lens: of a width of a pixel (full at half its height) and more."""
    rng = np.random.default_rng(int(100 * blur))
    stars = np.zeros((256, 256), np.float32)
    stars[tuple(rng.integers(0, 256, (2, 120)))] = rng.uniform(0.3, 1, 120)
    sky = 0.04 + cv2.GaussianBlur(stars, (0, 0), blur) / cv2.getGaussianKernel(9, blur).max() ** 2
    for x in (sky[..., None], sky[..., None] * np.array([0.8, 0.9, 1], np.float32)):
        y = x + np.float32(sigma / 255) * rng.standard_normal(x.shape, np.float32)
        assert find_impulses([planes(y)]) is None


def test_a_clean_photograph_comes_back_nearly_as_it_was():
    x = picture("chelsea")
    d = Denoiser.from_pretrained("color-photo", device="cpu")
    mended, left = (psnr(d(x, repair=how).transpose(2, 0, 1), x.transpose(2, 0, 1)) for how in ("auto", "off"))
    assert mended >= left - 0.1
