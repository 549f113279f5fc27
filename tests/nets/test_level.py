"""The measured level of white noise: right on smooth images, for any size, in pieces."""

from __future__ import annotations

import pytest
import torch

from fastbsn.nets import noise_level, noise_levels
from fastbsn.nets.level import Moments


def smooth(c: int, h: int, w: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(h) / 40, torch.arange(w) / 30, indexing="ij")
    return (0.5 + 0.3 * torch.sin(x) * torch.cos(y)).expand(c, h, w)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [2, 10, 25, 55])
def test_level_of_smooth_images(channels, sigma):
    y = smooth(channels, 160, 190) + sigma / 255 * torch.randn(channels, 160, 190)
    assert noise_level(y) * 255 == pytest.approx(sigma, rel=0.05)


def test_texture_is_not_taken_for_noise_in_colour():
    """A pattern that fills the image, four times stronger than the noise: the eigenvalues tell them apart."""
    pattern = 0.1 * torch.sin(torch.arange(190) * 1.9).expand(3, 160, 190)
    y = 0.5 + pattern + 5 / 255 * torch.randn(3, 160, 190)
    assert noise_level(y) * 255 == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (24, 24)])
def test_small_images_have_a_level(size):
    y = 0.5 + 0.1 * torch.randn(3, *size)
    level = noise_level(y)
    assert 0 <= level < 0.5
    if min(size) > 20:
        assert level == pytest.approx(0.1, rel=0.25)


def test_pieces_of_an_image():
    y = smooth(3, 256, 256) + 0.1 * torch.randn(3, 256, 256)
    pieces = [y[:, :128], y[:, 128:]]
    assert noise_level(pieces) == pytest.approx(noise_level(y), rel=0.05)


def test_no_noise():
    assert noise_level(torch.full((3, 64, 64), 0.5)) < 1e-6


@pytest.mark.parametrize("sigma", [3, 10, 30])
@pytest.mark.parametrize(("name", "own"), [("camera", 0.5), ("grass", 4.1), ("brick", 0.4)])
def test_gray_photographs_and_textures(name, own, sigma):
    """`own`: what is measured without noise added; fine texture all over, as in `grass`, cannot be told from it."""
    data = pytest.importorskip("skimage.data")
    y = torch.from_numpy(getattr(data, name)())[None, :256, :256] / 255.0
    y = y + sigma / 255 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    assert noise_level(y) * 255 == pytest.approx((sigma**2 + own**2) ** 0.5, rel=0.05)


def test_moments_of_a_part_are_those_of_the_whole_without_the_rest():
    grids, chosen = [torch.rand(50, 60, 3, 2, 2) - 0.5, torch.rand(40, 50, 3, 2, 2) - 0.5], torch.rand(5000) < 0.6
    part, rounding = Moments.of(grids, chosen | True).without(Moments.of(grids, ~chosen)), torch.finfo(torch.float32).eps * 5000 * 0.25
    rest = torch.cat([g.flatten(0, 1) for g in grids])[chosen].flatten(1).double()
    assert part.patches == len(rest) and (part.products - rest.mT @ rest).abs().max() < rounding
    variances = torch.linalg.eigvalsh(torch.cov(rest.mT, correction=0))
    assert variances[0] < part.level() ** 2 < variances[-1]


def test_autocast_does_not_round_the_moments():
    x = torch.rand(3, 40, 50)
    with torch.autocast("cpu", torch.bfloat16):
        level = noise_level(x)
    assert level == noise_level(x)


def test_levels_of_dark_and_bright_parts():
    x = torch.full((3, 96, 96), 0.2)
    x[:, :, 48:] = 0.7
    level = torch.where(x > 0.5, 8.0, 2.0) / 255
    y = x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    (dark, low), _, (bright, high) = noise_levels(y, 3)
    assert dark == pytest.approx(0.2, abs=0.02) and bright == pytest.approx(0.7, abs=0.02)
    assert low == pytest.approx(2 / 255, rel=0.1) and high == pytest.approx(8 / 255, rel=0.1)
