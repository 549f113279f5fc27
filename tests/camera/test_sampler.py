"""Re-noised pairs: the draws follow their formulas and the generator alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fastbsn import InputError
from fastbsn.camera import CameraSampler, Mixture
from fastbsn.camera.degrade import constant_area, jpeg, raw_noise, to_bytes, white_noise
from fastbsn.camera.sampler import MARGIN
from tests.camera.test_statistics import _noise

ONLY = {"measured": 0.0, "raw": 0.0, "blurred": 0.0, "white": 0.0, "clean": 0.0}


def _crop(size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.asarray(cv2.resize(rng.random((8, 8, 3), np.float32), (size + MARGIN,) * 2) * 0.6 + 0.2, np.float32)


@pytest.mark.parametrize("kind", list(ONLY))
def test_pairs_depend_on_the_generator_alone(kind: str) -> None:
    sampler = CameraSampler([_noise(), _noise(9, 0.3)], Mixture(**(ONLY | {kind: 1.0})))
    for seed in range(6):
        y, x = sampler.pair(_crop(), np.random.default_rng(seed))
        again = CameraSampler(sampler.bank, sampler.mixture).pair(_crop(), np.random.default_rng(seed))
        assert (y == again[0]).all() and (x == again[1]).all()
        assert y.shape == x.shape == (96, 96, 3) and y.dtype == x.dtype == np.float32
        assert np.isfinite(y).all() and x.min() >= -1e-6 and x.max() <= 1 + 1e-6


def test_without_a_bank_measured_noise_is_synthetic() -> None:
    y, x = CameraSampler(mixture=Mixture(**(ONLY | {"measured": 1.0}))).pair(_crop(), np.random.default_rng(0))
    assert 1e-4 < (y - x).std() < 0.3


def test_the_level_of_measured_noise_is_that_of_the_bank_times_the_gain() -> None:
    mixture = Mixture(**(ONLY | {"measured": 1.0}), gain=(2.0, 2.0), free=0.0, frames=0.0, other_content=0.0)
    sampler = CameraSampler([_noise(5)], mixture)
    rng = np.random.default_rng(0)
    levels = [255 * float((y - x).std()) for y, x in (sampler.pair(_crop(), rng) for _ in range(40))]
    assert np.median(levels) == pytest.approx(10, rel=0.12)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_white_noise_has_its_correlation(correlation: float) -> None:
    n = white_noise((200, 200, 3), correlation, np.random.default_rng(0))
    assert n.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(n.reshape(-1, 3).T)[0, 1] == pytest.approx(correlation, abs=0.02)
    assert abs((n[1:] * n[:-1]).mean()) < 0.02


def test_sensor_noise_keeps_the_mean_and_grows_with_the_level_of_the_sensor() -> None:
    x = np.full((128, 128, 3), 0.5, np.float32)
    noises = [raw_noise(x, np.random.default_rng(s)) for s in range(24)]
    assert np.mean([n.mean() - 0.5 for n in noises]) == pytest.approx(0, abs=0.01)
    rho = [np.corrcoef((n - n.mean((0, 1)))[1:].ravel(), (n - n.mean((0, 1)))[:-1].ravel())[0, 1] for n in noises]
    assert min(rho) > 0.2  # the mosaic makes neighbours alike


def test_jpeg_is_that_of_the_library_and_bytes_are_clipped() -> None:
    x = _crop() * 1.4 - 0.1
    encoded = cv2.imencode(".jpg", to_bytes(x)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111])[1]
    assert (jpeg(x, 80) * 255 == cv2.imdecode(encoded, 1)[..., ::-1]).all()
    assert to_bytes(np.array([-1.0, 0.5, 2.0])).tolist() == [0, 128, 255]


def test_constant_areas_hold_no_noise() -> None:
    sampler = CameraSampler([_noise()], Mixture(**(ONLY | {"white": 1.0}), frames=1.0, white_sigma=200.0))
    shares = []
    for seed in range(12):
        area = constant_area((96, 96), np.random.default_rng(seed))
        assert area.any() and not area.all()
        y, x = sampler.pair(_crop(), np.random.default_rng(seed))
        values, counts = np.unique(x.reshape(-1, 3), axis=0, return_counts=True)
        where = (x == values[counts.argmax()]).all(-1)
        assert where.sum() > 20
        shares.append(float((np.abs(y - x)[where] < 1e-6).mean()))
    assert np.median(shares) == 1  # JPEG may touch a few


def test_parts_of_a_mixture_sum_to_one() -> None:
    with pytest.raises(InputError, match="sum to 1.1"):
        Mixture(measured=0.9)
