"""The bundled models on pictures that have little in common with the photographs they learned from."""

from __future__ import annotations

import numpy as np
import pytest

from fastbsn import Denoiser
from fastbsn.evaluation.drawn import flat, fractal, gradient, letterboxed, smooth, smooth_noise, text, upscaled, white_noise
from fastbsn.evaluation.metrics import psnr
from fastbsn.int8 import usable

SIDE = 384
WHITE = ("gray-awgn", "gray-awgn-fast", "color-awgn")
GAIN = {3: 3.0, 10: 8.0, 50: 14.0}  # dB at least


@pytest.mark.parametrize("sigma", [0, 3, 10, 50])
@pytest.mark.parametrize("name", WHITE)
def test_any_picture_gets_better(name, sigma):
    """What students without weight decay fail: they made up patterns in colours that they had not seen."""
    d = Denoiser.from_pretrained(name, device="cpu")
    for seed in range(6):
        clean = smooth(SIDE, np.random.default_rng(seed)).transpose(2, 0, 1)[: d.channels]
        noisy = clean + (sigma / 255 * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)
        found = psnr(clean, d(noisy, channel_axis=0, data_range=1.0))
        assert found > (psnr(clean, noisy) + GAIN[sigma] if sigma else 50), f"picture {seed}"


@pytest.mark.parametrize("name", WHITE)
def test_weak_noise_goes_from_flat_areas(name):
    """At most so much of its standard deviation is left."""
    d = Denoiser.from_pretrained(name, device="cpu")
    x = flat(256, np.random.default_rng(7))[..., : d.channels]
    for sigma, left in ((2, 0.4), (5, 0.2 if name.endswith("-fast") else 0.15)):
        n = white_noise(x.shape, sigma, 0.0, np.random.default_rng(sigma))
        assert (d(x + n, channel_axis=2, data_range=1.0) - x).std() <= left * n.std()


def test_noise_that_is_alike_in_the_channels_is_no_other_case():
    d, x = Denoiser.from_pretrained("color-awgn", device="cpu"), fractal(256, np.random.default_rng(1000))
    noises = [white_noise(x.shape, 25, rho, np.random.default_rng(1)) for rho in (0.0, 0.25, 0.5, 0.75, 1.0)]
    found = [psnr(x.transpose(2, 0, 1), d(x + n, data_range=1.0).transpose(2, 0, 1)) for n in noises]
    assert max(found) - min(found) <= 1.5


PHOTO = ("color-photo", "color-photo-fast")


@pytest.mark.parametrize("name", PHOTO)
def test_models_of_photographs_know_other_noise_than_white(name):
    """Noise that is smooth or alike in all channels, which a model of independent noise leaves alone."""
    d = Denoiser.from_pretrained(name, device="cpu")
    for seed in range(3):
        x = upscaled(SIDE, np.random.default_rng(seed))
        for noise, gain in (
            (smooth_noise(x.shape, 6, np.random.default_rng(9)), 2.0),
            *((white_noise(x.shape, 25, rho, np.random.default_rng(9)), 7.0) for rho in (0, 0.5, 1)),
        ):
            found = psnr(x.transpose(2, 0, 1), d(x + noise, data_range=1.0).transpose(2, 0, 1))
            assert found > psnr(x.transpose(2, 0, 1), (x + noise).transpose(2, 0, 1)) + gain


@pytest.mark.parametrize("name", [*PHOTO, "color-awgn"])
def test_bars_do_not_switch_denoising_off_beside_them(name):
    d = Denoiser.from_pretrained(name, device="cpu")
    x = upscaled(256, np.random.default_rng(8))
    y = x + white_noise(x.shape, 25, 0.0, np.random.default_rng(9))
    part, middle = slice(64, 192), x[64:192].transpose(2, 0, 1)
    alone, boxed = (
        psnr(middle, d(v, data_range=1.0)[w].transpose(2, 0, 1)) for v, w in ((y[part], slice(None)), (letterboxed(y, 0.25), part))
    )
    assert boxed > alone - 0.5


@pytest.mark.parametrize("name", PHOTO)
def test_a_picture_without_noise_stays_as_it_is(name):
    d = Denoiser.from_pretrained(name, device="cpu")
    for draw in (gradient, smooth, text):
        x = draw(256, np.random.default_rng(1))
        assert psnr(x.transpose(2, 0, 1), d(x, data_range=1.0).transpose(2, 0, 1)) > 40, draw.__name__


@pytest.mark.parametrize("name", ["color-awgn"])
def test_the_file_has_ranges_for_int8(name):
    net = Denoiser.from_pretrained(name, device="cpu", backend="reference").networks_["student"]
    assert usable(net), (
        f"fastbsn export --model {name} --ranges NOISY -o {name}.safetensors --dtype float16; see benchmarks/results/weights.md"
    )
