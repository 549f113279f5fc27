"""Drawn pictures and their noise are what their names say, and the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from fastbsn.evaluation.drawn import PICTURES, letterboxed, smooth_noise, white_noise


@pytest.mark.parametrize("name", list(PICTURES))
def test_pictures_are_repeatable_and_within_range(name):
    a, b, other = (PICTURES[name](64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert a.shape == (64, 64, 3) and a.dtype == np.float32 and a.min() >= 0 and a.max() <= 1
    assert np.array_equal(a, b) and not np.array_equal(a, other)


def test_noise_has_its_level_and_correlation(rng):
    n = white_noise((300, 300, 3), 25, 0.5, rng)
    assert 255 * n.std() == pytest.approx(25, rel=0.02)
    assert np.corrcoef(n.reshape(-1, 3).T)[0, 1] == pytest.approx(0.5, abs=0.02)
    s = smooth_noise((300, 300, 3), 6, rng)
    assert 255 * s.std() == pytest.approx(6, rel=1e-3)
    assert (s[1:] * s[:-1]).mean() / (s**2).mean() == pytest.approx(0.6, abs=0.05)


def test_bars_hold_nothing(rng):
    x = rng.random((50, 40, 3), np.float32)
    y = letterboxed(x)
    assert not y[:10].any() and not y[40:].any() and np.array_equal(y[10:40], x[10:40])
