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


def test_a_clean_photograph_comes_back_nearly_as_it_was():
    x = picture("chelsea")
    d = Denoiser.from_pretrained("color-photo", device="cpu")
    mended, left = (psnr(d(x, repair=how).transpose(2, 0, 1), x.transpose(2, 0, 1)) for how in ("auto", "off"))
    assert mended >= left - 0.1
