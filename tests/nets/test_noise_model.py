"""Bayes' rule against textbook formulas, and likelihoods that find the noise that is there."""

from __future__ import annotations

import pytest
import torch

from fastbsn.errors import InputError
from fastbsn.nets import Noise, NoiseModel, negative_log_likelihood, posterior_mean, posterior_std
from fastbsn.nets.noise_model import KINDS


def factors(n: int, h: int, w: int) -> torch.Tensor:
    return torch.randn(n, h, w, 3, 3, dtype=torch.double).tril() * 0.2 + torch.eye(3, dtype=torch.double) * 0.5


def test_posterior_is_the_precision_weighted_mean():
    y, mu = torch.rand(2, 2, 3, 4, 5).double()
    sm, sn = torch.rand(2, 2, 3, 4, 5).double() + 0.1
    s = Noise(sm, sn)
    expected = (mu / sm**2 + y / sn**2) / (1 / sm**2 + 1 / sn**2)
    torch.testing.assert_close(posterior_mean(y, mu, s), expected)
    torch.testing.assert_close(posterior_std(s), (1 / (1 / sm**2 + 1 / sn**2)).sqrt())


def test_multivariate_posterior_is_the_precision_weighted_mean():
    y, mu = torch.rand(2, 2, 3, 4, 5).double()
    s = Noise(factors(2, 4, 5), factors(2, 4, 5))
    pm, pn = ((f @ f.mT).inverse() for f in s)
    vector = [x.permute(0, 2, 3, 1).unsqueeze(-1) for x in (mu, y)]
    expected = (pm + pn).inverse() @ (pm @ vector[0] + pn @ vector[1])
    torch.testing.assert_close(posterior_mean(y, mu, s), expected.squeeze(-1).permute(0, 3, 1, 2))
    torch.testing.assert_close(posterior_std(s), (pm + pn).inverse().diagonal(dim1=-2, dim2=-1).sqrt().permute(0, 3, 1, 2))


@pytest.mark.parametrize("likelihood", ["exact", "constrained"])
def test_diagonal_likelihood_equals_multivariate_with_diagonal_factors(likelihood):
    y, mu = torch.rand(2, 1, 3, 4, 5).double()
    sm, sn = torch.rand(2, 1, 3, 4, 5).double() + 0.1
    full = Noise(*(torch.diag_embed(x.permute(0, 2, 3, 1)) for x in (sm, sn)))
    a, b = (negative_log_likelihood(y, mu, s, likelihood) for s in (Noise(sm, sn), full))
    torch.testing.assert_close(a, b)


def test_constrained_likelihood_is_equation_5():
    y, mu, s = torch.rand(1, 3, 2, 2).double(), torch.rand(1, 3, 2, 2).double(), Noise(factors(1, 2, 2), factors(1, 2, 2))
    sm, sn = (f @ f.mT for f in s)
    e = (y - mu).permute(0, 2, 3, 1).unsqueeze(-1)
    quadratic = (e.mT @ (sm + sn).inverse() @ e).squeeze()
    trace = (sn.inverse() @ sm).diagonal(dim1=-2, dim2=-1).sum(-1).squeeze()
    expected = (quadratic + sn.logdet().squeeze() + trace).mean() / 3
    torch.testing.assert_close(negative_log_likelihood(y, mu, s, "constrained"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn_the_noise_level(kind):
    """Flat images, sigma 0.1, a perfect prediction: the noise network must find 0.1 within 15 %."""
    torch.manual_seed(1)
    model = NoiseModel(kind, 3, feature_channels=4)
    features, mu = torch.rand(4, 4, 24, 24), torch.rand(4, 3, 1, 1).expand(4, 3, 24, 24)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        y = mu + 0.1 * torch.randn(4, 3, 24, 24)
        loss = negative_log_likelihood(y, mu, model(y, mu, features), "exact")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        s = model(y, mu, features)
        sample = model.sample(mu) if kind != "gaussian" else y - mu
    sigma = s.n if s.n.ndim == 4 else (s.n @ s.n.mT).diagonal(dim1=-2, dim2=-1).sqrt()
    assert abs(float(sigma.mean()) - 0.1) < 0.015
    assert abs(float(sample.std()) - 0.1) < 0.02


def test_gaussian_gives_one_sigma_per_image():
    assert NoiseModel("gaussian", 3, 4).noise(torch.rand(5, 3, 8, 8)).shape == (5, 1, 1, 1)


def test_wrong_kind():
    with pytest.raises(InputError, match="kind"):
        NoiseModel("white")
    with pytest.raises(InputError, match="3 channels"):
        NoiseModel("multivariate", in_channels=1)
