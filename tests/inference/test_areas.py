"""Areas without noise: found exactly, continued from the picture, put back bit for bit, and denoising goes on beside them."""

import numpy as np
import pytest
import torch

from fastbsn import Denoiser
from fastbsn.errors import InputError
from fastbsn.evaluation.metrics import psnr
from fastbsn.inference.areas import FILL, MARGIN, SIDE, continue_picture, find_areas, may_hold_areas
from fastbsn.inference.frames import Frames
from tests.conftest import photograph


def noise(rng: np.random.Generator, h: int, w: int, channels: int = 1) -> np.ndarray:
    return rng.integers(0, 256, (channels, h, w), np.uint8)


def by_hand(x: np.ndarray) -> np.ndarray:
    found = np.zeros(x.shape[1:], bool)
    for i in range(x.shape[1] - SIDE + 1):
        for j in range(x.shape[2] - SIDE + 1):
            window = x[:, i : i + SIDE, j : j + SIDE].reshape(len(x), -1)
            if all(np.array_equal(row, np.full_like(row, row[0]), equal_nan=row.dtype.kind == "f") for row in window):
                found[i : i + SIDE, j : j + SIDE] = True
    return found


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("tensor", [False, True])
def test_areas_are_the_squares_that_are_constant_in_all_channels(rng, dtype, tensor):
    for _ in range(5):
        x = noise(rng, 50, 61, 2).astype(dtype)
        assert not may_hold_areas(x) and not find_areas(x).any()
        for _ in range(3):
            top, left, h, w = (int(rng.integers(n)) for n in (40, 50, 30, 30))
            x[: 1 + (top % 4 > 0), top : top + h, left : left + w] = np.nan if dtype == "float32" and top % 2 else 7
        expected = by_hand(x)
        given = torch.from_numpy(x) if tensor else x
        assert np.array_equal(find_areas(given).numpy(), expected)
        assert may_hold_areas(given) or not expected.any()


def test_bands_are_joined(rng, monkeypatch):
    x = noise(rng, 90, 40)
    x[:, 20:60, 5:30] = 3
    whole = find_areas(x)
    monkeypatch.setattr("fastbsn.inference.areas._BAND", 11)
    assert torch.equal(find_areas(x), whole) and whole.sum() == 40 * 25


def test_pictures_are_continued_by_reflection():
    x = torch.arange(5.0).repeat(3, 1)[None]
    areas = torch.zeros(3, 5, dtype=torch.bool)
    areas[:, 3:] = True
    assert continue_picture(x, areas)[0, 0].tolist() == [0, 1, 2, 1, 0]
    areas[:] = False
    areas[:, :3] = True
    assert continue_picture(x, areas)[0, 0].tolist() == [4, 3, 4, 3, 4]
    y = torch.arange(6.0).view(1, 6, 1)
    rows = torch.tensor([True, True, False, False, False, False])[:, None]
    assert continue_picture(y, rows).flatten().tolist() == [4, 3, 2, 3, 4, 5]
    assert torch.equal(continue_picture(x, torch.ones(3, 5, dtype=torch.bool)), x)


def test_a_window_is_continued_as_in_the_whole_image(rng):
    x = noise(rng, 900, 840, 3)
    x[:, :200, :] = 0
    x[:, 300:700, 420:] = 255
    x[:, 600:, :90] = 9
    frames = Frames(x, 3, "CYX")
    whole = frames.read(0, (0, 900, 0, 840))
    for _ in range(6):
        top, left = int(rng.integers(800)), int(rng.integers(740))
        assert torch.equal(frames.read(0, (top, top + 99, left, left + 99)), whole[..., top : top + 99, left : left + 99])
    assert MARGIN == 2 * FILL


@pytest.mark.parametrize("model", ["gray-awgn", "color-awgn"])
@pytest.mark.parametrize("border", [0, 255, 77, np.nan])
def test_denoising_goes_on_beside_bars(rng, model, border):
    channels = 1 if model == "gray-awgn" else 3
    clean = photograph(rng, 96, 128, channels).astype(np.float32)
    noisy = (clean + rng.normal(0, 25 / 255, clean.shape)).astype(np.float32)
    framed = np.full((160, 200, *clean.shape[2:]), border / 255, np.float32)
    framed[40:136, 30:158] = noisy
    d = Denoiser.from_pretrained(model, device="cpu", dtype="float32")
    alone, out = d(noisy), d(framed, nonfinite="keep")
    first = (lambda x: np.moveaxis(x, 2, 0)) if channels == 3 else (lambda x: x)
    assert psnr(first(clean), first(out[40:136, 30:158])) > psnr(first(clean), first(alone)) - 0.3
    bars = np.ones(framed.shape[:2], bool)
    bars[40:136, 30:158] = False
    assert np.array_equal(out[bars], framed[bars], equal_nan=True)
    np.testing.assert_allclose(d(framed, nonfinite="keep", tile=64), out, atol=1e-5)


def test_a_picture_without_noise_comes_back_and_a_circle_of_it_too(rng):
    d = Denoiser.from_pretrained("gray-awgn", device="cpu")
    assert (d(np.full((40, 50), 90, np.uint8)) == 90).all()
    x = noise(rng, 120, 120)[0].clip(1)
    y, z = np.mgrid[:120, :120]
    outside = (y - 60) ** 2 + (z - 60) ** 2 > 45**2
    x[outside] = 0
    found = find_areas(x[None]).numpy()
    out = d(x)
    assert (out[found] == 0).all() and found[outside].mean() > 0.9 and not found[~outside].any()


def test_black_can_be_any_value(rng):
    x = rng.integers(0, 4096, (30, 40)).astype(np.int16)
    d = Denoiser.from_pretrained("gray-awgn", device="cpu", dtype="float32")
    expected = d(x, data_range=4095).astype(int) - 1024
    got = d((x - 1024).astype(np.int16), data_range=(-1024, 3071))
    assert got.dtype == np.int16 and np.abs(got - expected)[expected > -1024 + 5].max() <= 1
    for wrong in ((5, 5), (3, 2), (1, 2, 3), (0, np.inf), ("a", "b")):
        with pytest.raises(InputError, match="black"):
            d(x, data_range=wrong)
