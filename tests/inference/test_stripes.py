"""Stripes along rows and columns are found and removed; structure of pictures that runs across them is not taken for stripes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn import Denoiser
from fastbsn.evaluation.metrics import psnr
from fastbsn.inference.stripes import Stripes, find_stripes
from tests.inference.test_impulses import PICTURES, picture, planes


def find(x: torch.Tensor) -> Stripes | None:
    return find_stripes(lambda box: x[:, box[0] : box[1], box[2] : box[3]], *x.shape[1:])


def striped(x: np.ndarray, level: float, axis: int, seed: int = 0) -> np.ndarray:
    shape = [1, 1, 1]
    shape[axis] = x.shape[axis]
    return x + np.float32(level / 255) * np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("sigma", [0, 5, 25])
@pytest.mark.parametrize("name", PICTURES)
def test_photographs_hold_no_stripes(name, sigma):
    x = picture(name)
    y = x + np.float32(sigma / 255) * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    assert find(planes(y)) is None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("level", [8, 16])
@pytest.mark.parametrize("name", PICTURES)
def test_stripes_are_found_and_removed(name, level, axis):
    x = picture(name)
    noise = np.float32(8 / 255) * np.random.default_rng(1).standard_normal(x.shape, np.float32)
    y = striped(x, level, axis)
    found = find(planes(y + noise))
    assert found is not None and (found.rows is None) == (axis == 1) and (found.columns is None) == (axis == 0)
    offsets = (y - x).mean(1 - axis)[..., 0]
    assert np.corrcoef((found.rows[0, :, 0] if axis == 0 else found.columns[0, 0]).numpy(), offsets)[0, 1] > 0.7
    left = found.remove(planes(y)).numpy()
    assert psnr(left, x.transpose(2, 0, 1)) > psnr(y.transpose(2, 0, 1), x.transpose(2, 0, 1)) + 3


def test_structure_across_the_picture_is_no_stripe(rng):
    lines = np.full((1, 240, 240), 0.2)
    lines[:, ::9], lines[:, :, ::13] = 0.9, 0.8
    wave = 0.5 + 0.4 * np.sin(np.arange(240) / 3)[None, :, None] * np.ones((1, 1, 240))
    steps = np.repeat(rng.random((1, 24, 1)), 10, 1) * np.ones((1, 1, 240))
    for x in (lines, wave, steps, np.zeros((1, 240, 240)), np.full((1, 100, 100), np.nan), rng.random((1, 40, 200))):
        assert find(torch.from_numpy(x).float()) is None


@pytest.mark.parametrize("model", ["gray-awgn", "color-photo"])
def test_an_image_with_stripes_is_denoised_in_tiles_as_at_once(model, caplog):
    x = picture("astronaut")
    y = striped(x + np.float32(8 / 255) * np.random.default_rng(1).standard_normal(x.shape, np.float32), 10, 0)
    y, x = (np.clip(np.rint(255 * v), 0, 255).astype(np.uint8) for v in (y, x))
    d = Denoiser.from_pretrained(model, device="cpu", dtype="float32")
    whole, tiled, off = d(y), d(y, tile=96), d(y, repair="off")
    assert "stripes along rows (standard deviation" in caplog.text
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert psnr(whole.transpose(2, 0, 1), x.transpose(2, 0, 1), 255) > psnr(off.transpose(2, 0, 1), x.transpose(2, 0, 1), 255) + 3
