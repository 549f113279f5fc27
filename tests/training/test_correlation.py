"""The measured autocorrelation of noise, the stride it leads to, and inference with downsampling and refinement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastbsn.inference.refine import denoise_correlated
from fastbsn.nets import DBSN
from fastbsn.training.correlation import downsampling_stride, noise_autocorrelation
from fastbsn.training.imageset import ImageSet
from tests.conftest import photograph


def images(rng: np.random.Generator, width: int) -> ImageSet:
    """Pictures with noise that a box of `width` pixels has smoothed: its autocorrelation is 1 - k / width."""
    found = []
    for _ in range(4):
        noise = torch.from_numpy(rng.normal(0, 0.1, (1, 1, 192 + width - 1, 192 + width - 1)))
        noise = F.conv2d(noise, torch.ones(1, 1, width, width, dtype=torch.double)) / width
        found.append((photograph(rng, 192, 192) + noise[0, 0].numpy()).astype(np.float32))
    return ImageSet.from_arrays(found)


@pytest.mark.parametrize("width, stride", [(1, 1), (2, 2), (3, 3)])
def test_stride_is_where_the_correlation_ends(width, stride, rng):
    data = images(rng, width)
    rho = noise_autocorrelation(data, 4)
    expected = [max(0.0, 1 - k / width) for k in range(1, 5)]
    assert np.allclose(rho, expected, atol=0.12), (rho, expected)
    assert downsampling_stride(data) == stride


def test_images_without_noise_or_smaller_than_a_block():
    assert downsampling_stride(ImageSet.from_arrays([np.full((8, 8), 0.5, np.float32)])) == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 12)])
def test_downsampled_prediction_and_refinement(size):
    net = DBSN(1, 8, 1, "light").eval()
    y = torch.rand(2, 1, *size)
    with torch.no_grad():
        plain = denoise_correlated(lambda x: net(x)[0], y, downsample=False, refine=False)
        assert torch.equal(plain, net(y)[0])
        refined = [denoise_correlated(lambda x: net(x)[0], y) for _ in range(2)]
    assert refined[0].shape == y.shape and torch.equal(*refined)


def test_downsampled_prediction_is_blind_to_the_pixel():
    net = DBSN(1, 8, 1, "light").eval()
    y = torch.rand(1, 1, 12, 14)
    with torch.no_grad():
        before = denoise_correlated(lambda x: net(x)[0], y, refine=False)
        y[0, 0, 5, 6] = float("nan")
        after = denoise_correlated(lambda x: net(x)[0], y, refine=False)
    assert torch.equal(after[0, 0, 5, 6], before[0, 0, 5, 6])
    assert after[0, 0, 5, 7].isfinite() and after.isnan().any()  # the direct neighbours lie on other sub-images
