"""Noise that is drawn is noise that was measured, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn import FileFormatError, InputError
from fastbsn.camera import CameraNoise, load_bank, measure, save_bank
from fastbsn.camera.fields import by_intensity, draw, factor, stretched
from fastbsn.camera.statistics import BINS, REACH
from fastbsn.io.weights import save_tensors


def _noise(sigma: float = 5.0, decay: float = 0.6, between: float = 0.5) -> CameraNoise:
    """Correlation decay^|dy| decay^|dx| within a channel, `between` times that between two."""
    lag = np.abs(np.arange(-REACH, REACH + 1))
    c = np.asarray(decay ** (lag[:, None] + lag[None]), np.float32)[..., None, None] * (
        between + (1 - between) * np.eye(3, dtype=np.float32)
    )
    return CameraNoise(c, np.full((3, BINS), (sigma / 255) ** 2, np.float32))


def test_fields_have_the_correlation_of_the_noise() -> None:
    noise, rng = _noise(), np.random.default_rng(0)
    a = factor(noise)
    fields = np.stack([draw(a, 128, rng) for _ in range(24)])
    assert fields.shape == (24, 128, 128, 3) and fields.dtype == np.float32
    for (dy, dx, i, j), bound in {
        (0, 0, 0, 0): 0.02,
        (0, 1, 0, 0): 0.03,
        (1, 0, 1, 1): 0.03,
        (1, 2, 0, 0): 0.06,
        (0, 0, 0, 2): 0.03,
    }.items():
        found = (fields[..., i] * np.roll(fields[..., j], (-dy, -dx), (1, 2))).mean()
        assert abs(found - noise.correlation[REACH + dy, REACH + dx, i, j]) < bound, (dy, dx, i, j)


def test_correlation_of_one_direction_keeps_its_direction() -> None:
    """Channel 1 repeats channel 0 one pixel further down: the lag's sign and the channels' order matter."""
    c = np.zeros((2 * REACH + 1, 2 * REACH + 1, 2, 2), np.float32)
    c[REACH, REACH] = np.eye(2)
    c[REACH + 1, REACH, 0, 1] = c[REACH - 1, REACH, 1, 0] = 0.9
    noise = CameraNoise(c, np.full((2, BINS), 1e-4, np.float32))
    rng = np.random.default_rng(0)
    field = draw(factor(noise), 128, rng)
    assert (field[:-1, :, 0] * field[1:, :, 1]).mean() > 0.7
    assert abs((field[1:, :, 0] * field[:-1, :, 1]).mean()) < 0.1
    again = measure(np.clip(0.5 + 0.02 * field, 0, 1), np.full_like(field, 0.5))
    assert again.correlation[REACH + 1, REACH, 0, 1] > 0.7 > 0.1 > abs(again.correlation[REACH - 1, REACH, 0, 1])


def test_what_is_drawn_is_measured_again() -> None:
    noise, rng = _noise(), np.random.default_rng(1)
    field = draw(factor(noise, 512, 512), 512, rng)
    label = np.broadcast_to(np.linspace(0.2, 0.8, 512, dtype=np.float32)[:, None, None], (512, 512, 3)).copy()
    found = measure(label + field * by_intensity(label, noise.variance), label)
    assert found.sigma == pytest.approx(noise.sigma, rel=0.1)
    assert found.autocorrelation(1) == pytest.approx(0.6, abs=0.05)
    assert found.between_channels() == pytest.approx(0.5, abs=0.06)


def test_variance_follows_intensity() -> None:
    rng = np.random.default_rng(2)
    label = np.broadcast_to(np.linspace(0.1, 0.9, 384, dtype=np.float32)[:, None, None], (384, 384, 3)).copy()
    noisy = label + np.sqrt(0.0004 * label) * rng.standard_normal(label.shape, np.float32)
    variance = measure(noisy, label).variance
    assert variance[0, 12] / variance[0, 4] == pytest.approx(3.0, rel=0.25)  # intensities 0.75 and 0.25


def test_stretched_noise_is_coarser_and_of_variance_one() -> None:
    rng = np.random.default_rng(3)
    field = draw(factor(_noise()), 128, rng)

    def rho(x: np.ndarray) -> float:
        return float((x[1:] * x[:-1]).mean())

    fine, same, coarse = (stretched(field, 112, s, np.random.default_rng(0)) for s in (0.7, 1.0, 1.5))
    assert fine.shape == same.shape == coarse.shape == (112, 112, 3)
    assert rho(fine) < rho(same) < rho(coarse)
    assert coarse.std() == pytest.approx(1, abs=0.05) and fine.std() == pytest.approx(1, abs=0.05)


def test_a_bank_is_read_as_it_was_written(tmp_path):
    bank = {"a.jpg": _noise(3), "b.jpg": _noise(8, 0.3, 0.9)}
    save_bank(tmp_path / "bank.safetensors", bank)
    again = load_bank(tmp_path / "bank.safetensors")
    assert list(again) == list(bank)
    for name, noise in bank.items():
        np.testing.assert_allclose(again[name].correlation, noise.correlation, atol=5e-4)  # float16
        assert (again[name].variance == noise.variance).all()


def test_other_files_are_no_banks(tmp_path):
    path = tmp_path / "other.safetensors"
    for tensors, header, message in (
        ({}, {"kind": "labels"}, "holds nothing"),
        (
            {"correlation": torch.zeros(1, 5, 5, 3, 3), "variance": torch.zeros(1, 3, BINS)},
            {"kind": "camera noise", "images": ["a"]},
            "expected",
        ),
    ):
        save_tensors(path, tensors, header)
        with pytest.raises(FileFormatError, match=message):
            load_bank(path)


def test_images_without_noise_or_of_another_shape_are_refused() -> None:
    flat = np.full((64, 64, 3), 0.5, np.float32)
    with pytest.raises(InputError, match="constant or saturated"):
        measure(flat, flat)
    with pytest.raises(InputError, match="at least 32 x 32"):
        measure(flat[:20], flat[:20])
    with pytest.raises(InputError, match="got"):
        measure(flat, flat[:32])
