"""Synthetic noise: the draws of the papers, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orth

from fastbsn.errors import InputError
from fastbsn.evaluation.synthetic import NoiseSpec, multivariate_covariance, parse_noise

SPECS = ["gaussian:25", "gaussian:0-55", "poisson:30", "hg:40,10", "mg"]


def test_gaussian_noise_is_that_of_the_papers(rng):
    """numpy.random.seed(0); numpy.random.normal(0, sigma / 255, shape): anew for every image."""
    clean = rng.random((3, 20, 30), np.float32)
    state = np.random.get_state()
    np.random.seed(0)
    expected = clean + np.random.normal(0, 25 / 255, clean.shape)
    np.random.set_state(state)
    for _ in range(2):
        noisy = parse_noise("gaussian:25").add(clean)
        assert noisy.dtype == np.float32 and np.array_equal(noisy, expected.astype(np.float32))
    assert noisy.min() < 0 or noisy.max() > 1  # not clipped


def test_drawn_values():
    """Frozen: a change of any draw changes published tables."""
    clean = np.full((3, 1, 2), 0.5)
    frozen = {"gaussian:25": 0.274359, "gaussian:0-55": 0.60212, "poisson:30": 0.466667, "hg:40,10": 0.238697, "mg": -0.050474}
    assert {text: round(float(parse_noise(text).add(clean, 1)[2, 0, 1]), 6) for text in SPECS} == frozen


def test_the_range_of_sigma_is_drawn_before_the_noise():
    sigmas = []
    for seed in range(40):
        r = np.random.RandomState(seed)
        sigma = r.uniform(0, 55)
        noise = parse_noise("gaussian:0-55").add(np.zeros((1, 8, 8)), seed)
        assert np.array_equal(noise, r.normal(0, sigma / 255, (1, 8, 8)).astype(np.float32))
        sigmas.append(sigma)
    assert min(sigmas) < 5 and max(sigmas) > 50


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
def test_moments(level):
    clean = np.full((3, 200, 200), level)
    expected = {
        "gaussian:25": (25 / 255) ** 2,
        "poisson:30": level / 30,
        "hg:40,10": (40 * level / 255) ** 2 + (10 / 255) ** 2,
        "mg": multivariate_covariance().diagonal().mean(),
    }
    for text, variance in expected.items():
        noise = parse_noise(text).add(clean) - clean
        assert noise.var() == pytest.approx(variance, rel=0.03, abs=1e-12), text
        assert abs(noise.mean()) < 4 * np.sqrt(variance / noise.size) + 1e-7, text


def test_multivariate_noise_has_its_covariance():
    covariance = multivariate_covariance()
    d, u = np.random.RandomState(0).rand(3), orth(np.random.RandomState(0).rand(3, 3))
    assert covariance == pytest.approx(abs((75 / 255) ** 2 * u.T @ np.diag(d) @ u), abs=1e-12)
    noise = parse_noise("mg").add(np.full((3, 300, 300), 0.5)) - 0.5
    assert np.cov(noise.reshape(3, -1)) == pytest.approx(covariance, abs=6e-4)


@pytest.mark.parametrize("text", SPECS)
def test_seed_input_and_order(text, rng):
    clean, other = rng.random((3, 9, 7)), rng.random((3, 30, 30))
    kept, spec = clean.copy(), parse_noise(text)
    first = spec.add(clean, 3)
    spec.add(other, 4)
    np.random.rand(5)
    assert np.array_equal(spec.add(clean, 3), first) and not np.array_equal(spec.add(clean, 4), first)
    assert np.array_equal(clean, kept) and str(spec) == text and parse_noise(str(spec)) == spec
    assert np.array_equal(spec.add(clean.transpose(0, 2, 1).copy().transpose(0, 2, 1), 3), first)


def test_eight_bit_clipping():
    noisy = parse_noise("gaussian:50", clip="uint8").add(np.full((1, 50, 50), 0.9))
    assert noisy.max() == 1 and noisy.min() >= 0 and np.allclose(np.rint(noisy * 255) / 255, noisy, atol=1e-7)


@pytest.mark.parametrize(
    "text",
    ["", "gaussian", "gaussian:", "gaussian:-5", "gaussian:a", "gaussian:55-0", "gaussian:1-2-3", "gaussian:nan", "gaussian:1e3"]
    + ["poisson:0", "poisson:1,2", "hg:40", "mg:1", "mg:", "salt:3"],
)
def test_other_texts_are_refused_with_the_accepted_forms(text):
    with pytest.raises(InputError, match='"gaussian:25", "gaussian:0-55", "poisson:30", "hg:40,10" or "mg"'):
        parse_noise(text)


def test_other_images_are_refused(rng):
    for spec, image in [
        ("gaussian:25", np.zeros((2, 2), np.uint8)), ("gaussian:25", np.full((2, 2), 1.01)), ("gaussian:25", np.full((2, 2), np.nan)),
        ("gaussian:25", np.zeros(3)), ("mg", np.zeros((1, 4, 4))), ("mg", np.zeros((3, 4))), ("poisson:30", np.full((2, 2), -0.1)),
    ]:  # fmt: skip
        with pytest.raises(InputError):
            parse_noise(spec).add(image)
    with pytest.raises(InputError):
        parse_noise("mg", clip="round")
    assert NoiseSpec("gaussian", (25.0,)).add(np.zeros((0, 4))).shape == (0, 4)
