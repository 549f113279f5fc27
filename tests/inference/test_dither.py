"""Strength of denoising: 0 is the input, 1 one pass, above 1 antithetic dither that depends on position and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn import Denoiser, InputError
from fastbsn.evaluation.drawn import smooth_noise, upscaled
from fastbsn.inference.dither import white_noise


def test_noise_is_a_function_of_seed_frame_and_position():
    whole = white_noise(0, (0, 600, 0, 530), 3)
    assert (whole[:, 250:400, 100:513] == white_noise(0, (250, 400, 100, 513), 3)).all()
    assert not (whole == white_noise(1, (0, 600, 0, 530), 3)).any()
    assert not (whole == white_noise(0, (0, 600, 0, 530), 3, seed=1)).any()
    assert not (whole[:, :256, :256] == whole[:, 256:512, :256]).any()
    assert whole.std() == pytest.approx(1, abs=0.01) and abs(whole.mean()) < 0.01
    assert abs((whole[0] * whole[1]).mean()) < 0.01


@pytest.fixture(scope="module")
def colour() -> Denoiser:
    return Denoiser.from_pretrained("color-awgn", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def photograph() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = upscaled(200, rng)
    return clean, clean + smooth_noise(clean.shape, 6, rng)


def test_strength_removes_more_and_more(colour, photograph):
    clean, noisy = photograph
    outputs = [colour(noisy, strength=s) for s in (0, 0.25, 0.5, 1, 1.5, 2, 3)]
    assert np.array_equal(outputs[0], noisy)
    removed = [float(np.square(noisy - o).mean()) for o in outputs]
    assert removed == sorted(removed) and len(set(removed)) == len(removed)
    np.testing.assert_allclose(outputs[2], (noisy + outputs[3]) / 2, atol=1e-6)
    error = [float(np.square(clean - o).mean()) for o in outputs]
    assert error[5] < 0.6 * error[3]  # smooth noise, which a model of white noise leaves alone


def test_zero_returns_the_input_bit_for_bit(colour):
    for x in (np.array([[0.1, np.nan], [np.inf, -0.0]], np.float64), torch.tensor([[0.1, 3e38]]), np.array([[2**31, 7]], np.uint32)):
        y = colour(x, strength=0, data_range=1.0)
        assert y is not x and y.dtype == x.dtype
        raw = [np.asarray(v).tobytes() for v in (x, y)]
        assert raw[0] == raw[1]


def test_tiles_and_stacks_are_dithered_as_the_whole(colour, photograph):
    noisy = photograph[1]
    whole = colour(noisy, strength=2, tile=None)
    np.testing.assert_allclose(colour(noisy, strength=2, tile=64), whole, atol=2e-5)
    assert np.array_equal(colour(noisy, strength=2, tile=None), whole)
    assert not np.array_equal(colour(noisy, strength=2, tile=None, seed=1), whole)
    stack = colour(np.stack([noisy, noisy]), axes="TYXC", strength=2, tile=None)
    assert np.array_equal(stack[0], whole) and not np.array_equal(stack[1], whole)


def test_streams_take_strength(colour, photograph):
    noisy = photograph[1]
    a, b = colour.stream([noisy, noisy], strength=2)
    assert np.array_equal(a, colour(noisy, strength=2)) and np.array_equal(b, colour(noisy, strength=2, seed=1))
    assert all(np.array_equal(x, noisy) for x in colour.stream([noisy], strength=0))


@pytest.mark.parametrize("strength", [-0.1, 4.5, float("nan"), "2", None])
def test_other_strengths_are_refused(colour, strength):
    with pytest.raises(InputError, match="strength"):
        colour(np.zeros((8, 8, 3), np.uint8), strength=strength)
