"""Noise model and Bayes' rule for a blind-spot prediction. Wu et al., ECCV 2020, section 3.3; Laine et al., NeurIPS 2019.

A pixel y = x + n is predicted from its neighbours as x ~ N(mu, S_mu), with n ~ N(0, S_n), so y ~ N(mu, S_mu + S_n). Both
covariances come from the noisy images; the posterior mean puts back what the blind spot could not see.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbsn.errors import InputError
from fastbsn.nets.level import noise_level

KINDS = ("gaussian", "heteroscedastic", "multivariate")
LIKELIHOODS = ("exact", "constrained")
FLOOR = 1e-3  # smallest standard deviation, in units of the image range
PUSH = 0.05  # weight of the term that assigns unexplained variance to the noise rather than to the prediction


class Noise(NamedTuple):
    """Standard deviations [N, C, H, W] (broadcastable), or lower-triangular 3x3 factors [N, H, W, 3, 3]."""

    mu: Tensor  # of the prediction
    n: Tensor  # of the noise


def _pointwise(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(a, b, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _std(o: Tensor) -> Tensor:
    return F.softplus(o - 4) + FLOOR


def _factor(o: Tensor) -> Tensor:  # [N, 6, H, W] -> [N, H, W, 3, 3] lower triangular, positive diagonal
    diagonal, rest = _std(o[:, :3]), 0.1 * o[:, 3:]
    zero = torch.zeros_like(rest[:, 0])
    rows = (diagonal[:, 0], zero, zero, rest[:, 0], diagonal[:, 1], zero, rest[:, 1], rest[:, 2], diagonal[:, 2])
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


class NoiseModel(nn.Module):
    """Standard deviations of the blind-spot prediction (`sigma_mu`, learned) and of the noise.

    Args:
        kind: "gaussian": one sigma per image, measured on the image (`noise_level`), since a network of 1x1 layers cannot tell one level
            from another in a single image;
            "heteroscedastic": a sigma per pixel, a learned function of the predicted intensity (Poisson-Gaussian sensors);
            "multivariate": a 3x3 covariance over the colour channels per pixel, a learned function of the predicted colour.
        in_channels: of the image; 3 for "multivariate".
        feature_channels: of the teacher's features.
        hidden: width of the networks.

    Raises:
        InputError: unknown kind, or "multivariate" without 3 channels.
    """

    def __init__(self, kind: str = "gaussian", in_channels: int = 3, feature_channels: int = 96, hidden: int = 16):
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"NoiseModel: kind={kind!r}; expected one of {', '.join(KINDS)}")
        if kind == "multivariate" and in_channels != 3:
            raise InputError(f"NoiseModel: kind='multivariate' needs 3 channels, got {in_channels}; use 'heteroscedastic'")
        self.kind = kind
        self.config = dict(kind=kind, in_channels=in_channels, feature_channels=feature_channels, hidden=hidden)
        outputs = 6 if kind == "multivariate" else in_channels
        self.sigma_mu = _pointwise([feature_channels, hidden, hidden, outputs])
        if kind != "gaussian":
            self.sigma_n = _pointwise([in_channels, *[hidden] * 4, outputs])

    def noise(self, image: Tensor) -> Tensor:
        """Standard deviation (or factor) of the noise: of the noisy images [N, C, H, W] for "gaussian", else for clean ones."""
        if self.kind == "gaussian":
            return torch.tensor([noise_level(x) for x in image], device=image.device)[:, None, None, None]
        o = self.sigma_n(image)
        return _std(o) if self.kind == "heteroscedastic" else _factor(o)

    def forward(self, y: Tensor, mu: Tensor, features: Tensor, level: Tensor | None = None) -> Noise:
        """Both standard deviations (or factors).

        Args:
            y, mu: [N, C, H, W].
            features: [N, F, H, W].
            level: for "gaussian", the sigma of each image [N, 1, 1, 1] where it is known (y may be a part of an image).
        """
        o = self.sigma_mu(features)
        if level is None:
            level = self.noise(y if self.kind == "gaussian" else mu)
        return Noise(_factor(o) if self.kind == "multivariate" else _std(o), level)

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fresh noise [N, C, H, W] for clean images; not for "gaussian", whose sigma belongs to a noisy image."""
        factor = self.noise(clean)
        z = torch.randn(clean.shape, generator=generator, device=clean.device)
        return factor * z if factor.ndim == 4 else torch.einsum("nhwij,njhw->nihw", factor, z)


def _pixels(x: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, H, W, 3, 1]
    return x.permute(0, 2, 3, 1).unsqueeze(-1)


def _cholesky(s: Tensor) -> Tensor:
    """Lower factors of [..., 3, 3], element by element: the library's wait for the device, which no CUDA graph allows."""
    a = s[..., 0, 0].sqrt()
    b, c = s[..., 1, 0] / a, s[..., 2, 0] / a
    d = (s[..., 1, 1] - b**2).sqrt()
    e = (s[..., 2, 1] - b * c) / d
    f = (s[..., 2, 2] - c**2 - e**2).sqrt()
    zero = torch.zeros_like(a)
    return torch.stack((a, zero, zero, b, d, zero, c, e, f), -1).unflatten(-1, (3, 3))


def _whiten(factor: Tensor, x: Tensor) -> Tensor:  # lower [..., 3, 3], [..., 3, K] -> factor^-1 x
    a = x[..., 0, :] / factor[..., 0, :1]
    b = (x[..., 1, :] - factor[..., 1, :1] * a) / factor[..., 1, 1:2]
    c = (x[..., 2, :] - factor[..., 2, :1] * a - factor[..., 2, 1:2] * b) / factor[..., 2, 2:]
    return torch.stack((a, b, c), -2)


def negative_log_likelihood(y: Tensor, mu: Tensor, s: Noise, likelihood: str = "exact") -> Tensor:
    """Mean over pixels of -2 log p(y), up to a constant, with a term that separates the two variances.

    With S_y = S_mu + S_n: "constrained" is Wu et al., equation 5, (y-mu)^T S_y^-1 (y-mu) + log|S_n| + tr(S_n^-1 S_mu).
    "exact" is (y-mu)^T S_y^-1 (y-mu) + log|S_y| - 0.05 log|S_n|: the same first order in S_mu / S_n, but unbiased where the
    prediction is less certain than the pixel (fine texture, low noise), as in Laine et al.
    """
    if s.n.ndim == 4:
        vm, vn, e2 = s.mu**2, s.n**2, (y - mu) ** 2
        if likelihood == "constrained":
            return (e2 / (vm + vn) + vn.log() + vm / vn).mean()
        return (e2 / (vm + vn) + (vm + vn).log() - PUSH * vn.log()).mean()
    sm, sn = s.mu @ s.mu.mT, s.n @ s.n.mT
    ly = _cholesky(sm + sn)
    quadratic = (_whiten(ly, _pixels(y - mu)) ** 2).sum((-1, -2))
    logdet_n = 2 * s.n.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if likelihood == "constrained":
        return (quadratic + logdet_n + (_whiten(s.n, s.mu) ** 2).sum((-1, -2))).mean() / 3
    logdet_y = 2 * ly.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return (quadratic + logdet_y - PUSH * logdet_n).mean() / 3


def posterior_mean(y: Tensor, mu: Tensor, s: Noise) -> Tensor:
    """(S_mu^-1 + S_n^-1)^-1 (S_mu^-1 mu + S_n^-1 y), written as mu + S_mu S_y^-1 (y - mu): [N, C, H, W]."""
    if s.n.ndim == 4:
        vm, vn = s.mu**2, s.n**2
        return mu + (y - mu) * (vm / (vm + vn))
    sm, sn = s.mu @ s.mu.mT, s.n @ s.n.mT
    ly = _cholesky(sm + sn)
    update = _whiten(ly, sm).mT @ _whiten(ly, _pixels(y - mu))
    return mu + update.squeeze(-1).permute(0, 3, 1, 2)


def posterior_std(s: Noise) -> Tensor:
    """Standard deviation of the posterior per channel, [N, C, H, W]: what the teacher does not know."""
    if s.n.ndim == 4:
        vm, vn = s.mu**2, s.n**2
        return (vm * vn / (vm + vn)).sqrt()
    sm, sn = s.mu @ s.mu.mT, s.n @ s.n.mT
    variance = sm.diagonal(dim1=-2, dim2=-1) - (_whiten(_cholesky(sm + sn), sm) ** 2).sum(-2)
    return variance.clamp_min(0).sqrt().permute(0, 3, 1, 2)
