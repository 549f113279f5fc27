"""Synthetic noise by name: every draw from numpy's legacy generator, so that test images equal those of the papers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbsn.errors import InputError

FORMS = '"gaussian:25", "gaussian:0-55", "poisson:30", "hg:40,10" or "mg"'
CLIPS = ("none", "uint8")
_NUMBER = r"(\d+(?:\.\d*)?)"
_PATTERNS = {
    "gaussian": re.compile(f"{_NUMBER}(?:-{_NUMBER})?"),
    "poisson": re.compile(_NUMBER),
    "hg": re.compile(f"{_NUMBER},{_NUMBER}"),
    "mg": re.compile(""),
}


def multivariate_covariance() -> NDArray[np.float64]:
    """The 3x3 covariance of "mg", |(75/255)^2 U^T D U|, in units of the image range squared. Wu et al., ECCV 2020.

    D = diag(rand(3)) and U = orth(rand(3, 3)), each drawn after numpy's legacy seed 0.
    """
    d = np.random.RandomState(0).rand(3)
    u = np.linalg.svd(np.random.RandomState(0).rand(3, 3))[0]  # orth() of a matrix of full rank; signs cancel in the |.|
    return np.abs((75 / 255) ** 2 * u.T @ np.diag(d) @ u)


@dataclass(frozen=True)
class NoiseSpec:
    """A kind of noise and its parameters, in the units of `parse_noise`."""

    kind: str
    values: tuple[float, ...] = ()
    clip: str = "none"

    def __str__(self) -> str:
        separator = "-" if self.kind == "gaussian" else ","
        return ":".join([self.kind, *([separator.join(f"{v:g}" for v in self.values)] if self.values else [])])

    def add(self, clean: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
        """Add noise to one image; the same seed gives the same noise, whatever was drawn before.

        With r = numpy.random.RandomState(seed), the stream of the legacy `numpy.random.seed(seed)`, and x the image:
        "gaussian:s": x + r.normal(0, s / 255, x.shape).
        "gaussian:a-b": s = r.uniform(a, b) first, then as above.
        "poisson:p": r.poisson(p x) / p.
        "hg:a,d": x + r.normal(0, 1, x.shape) a x / 255 + r.normal(0, 1, x.shape) d / 255 (independent draws).
        "mg": x + L r.normal(0, 1, x.shape), L the Cholesky factor of `multivariate_covariance()`, over the channels.

        Args:
            clean: floating point [C, H, W] or [H, W] in [0, 1]; C = 3 for "mg".
            seed: 0 to 2**32 - 1.

        Returns:
            float32 of the same shape, not clipped; with clip="uint8" clipped to [0, 1] and rounded to 1/255.

        Raises:
            InputError: not floating point, outside [0, 1], or "mg" without 3 channels.
        """
        x = np.asarray(clean)
        if not np.issubdtype(x.dtype, np.floating) or x.ndim not in (2, 3):
            raise InputError(f"{self}: image is {x.dtype} {x.shape}; expected floating point [C, H, W] or [H, W]")
        x = x.astype(np.float64)
        if x.size and not (x.min() >= 0 and x.max() <= 1):
            raise InputError(f"{self}: image values span {x.min():g} to {x.max():g}; expected [0, 1]: divide by the data range")
        noisy = self._draw(x, np.random.RandomState(seed))
        if self.clip == "uint8":
            noisy = np.rint(np.clip(noisy, 0, 1) * 255) / 255
        return noisy.astype(np.float32)

    def _draw(self, x: NDArray[np.float64], r: np.random.RandomState) -> NDArray[np.float64]:
        if self.kind == "gaussian":
            sigma = r.uniform(self.values[0], self.values[1]) if len(self.values) == 2 else self.values[0]
            return x + r.normal(0, sigma / 255, x.shape)
        if self.kind == "poisson":
            (peak,) = self.values
            return r.poisson(peak * x) / peak
        if self.kind == "hg":
            signal, constant = self.values
            first, second = r.normal(0, 1, x.shape), r.normal(0, 1, x.shape)
            return x + first * (signal * x / 255) + second * (constant / 255)
        if x.ndim != 3 or x.shape[0] != 3:
            raise InputError(f"mg: image has shape {x.shape}; expected [3, H, W]: the noise is correlated over three channels")
        return x + np.einsum("ij,jhw->ihw", np.linalg.cholesky(multivariate_covariance()), r.normal(0, 1, x.shape))


def parse_noise(text: str, clip: str = "none") -> NoiseSpec:
    """Read a noise specification.

    Args:
        text: "gaussian:25" (sigma in 1/255 of the range), "gaussian:0-55" (sigma uniform per image), "poisson:30" (photons at
            white), "hg:40,10" (sigma^2 = (40x/255)^2 + (10/255)^2), or "mg" (one fixed covariance over three channels).
        clip: "none", or "uint8" for noisy images as an 8-bit file would hold them.

    Raises:
        InputError: any other text.
    """
    kind, colon, rest = text.strip().partition(":")
    match = _PATTERNS[kind].fullmatch(rest) if kind in _PATTERNS else None
    if match is None or (kind == "mg" and colon):
        raise InputError(f"noise {text!r} is not understood; expected {FORMS}")
    if clip not in CLIPS:
        raise InputError(f"clip={clip!r}; expected one of {', '.join(CLIPS)}")
    values = tuple(float(v) for v in match.groups() if v is not None)
    if (kind == "poisson" and values[0] <= 0) or (kind == "gaussian" and len(values) == 2 and values[0] > values[1]):
        raise InputError(f"noise {text!r}: expected a peak above zero, or a range from low to high, as in {FORMS}")
    return NoiseSpec(kind, values, clip)
