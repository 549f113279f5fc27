"""A trained teacher as an estimator: blind-spot prediction, then Bayes' rule (or R3 refinement for correlated noise)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastbsn.errors import WeightsError
from fastbsn.io.weights import load_networks
from fastbsn.nets import Noise, posterior_mean, posterior_std
from fastbsn.ops import batch_to_space, space_to_batch

INFERENCE_STRIDE = 2  # downsampling at inference for correlated noise, smaller than in training
R3_MASKS, R3_FRACTION = 8, 0.16


class Estimate(NamedTuple):
    """Clean estimate [N, C, H, W]; standard deviations of its error and of the noise, broadcastable, or None."""

    image: Tensor
    std: Tensor | None
    noise: Tensor | None


class Teacher:
    """Denoise with a D-BSN and, unless the noise is correlated, its noise model.

    Args:
        networks: {"teacher": DBSN, "noise_model": NoiseModel} ("noise_model" absent for correlated noise).
        header: of the weights file; "noise" and "stride" are read.
        device: torch device name.
        refine: R3 refinement of correlated noise on (the default) or off.
        downsample: pixel-shuffle downsampling for correlated noise on (the default) or off.
    """

    def __init__(
        self, networks: dict[str, nn.Module], header: dict[str, Any], device: str = "cpu", refine: bool = True, downsample: bool = True
    ):
        if "teacher" not in networks:
            raise WeightsError(f"not a teacher: the file holds {', '.join(networks) or 'no networks'}; expected 'teacher'")
        self.device = torch.device(device)
        self.dbsn = networks["teacher"].to(self.device).eval()
        model = networks.get("noise_model")
        self.noise_model = model.to(self.device).eval() if model else None
        self.header, self.noise = header, str(header.get("noise", "gaussian"))
        self.refine, self.downsample = refine, downsample

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", **options: bool) -> Teacher:
        """Read a file written by `train_teacher`; WeightsError if it is damaged or holds no teacher."""
        networks, header = load_networks(path)
        return cls(networks, header, device, **options)

    @property
    def channels(self) -> int:
        return int(self.dbsn.config["in_channels"])

    def _mu(self, y: Tensor, stride: int) -> Tensor:
        h, w = y.shape[-2:]
        if stride == 1:
            return self.dbsn(y)[0]
        return batch_to_space(self.dbsn(space_to_batch(y, stride))[0], stride, h, w)

    @torch.inference_mode()
    def __call__(self, y: Tensor) -> Estimate:
        """y [N, C, H, W] float32 in the units of training -> Estimate of the same shape."""
        y = y.to(self.device)
        if self.noise_model is not None:
            mu, features = self.dbsn(y)
            s: Noise = self.noise_model(y, mu, features)
            noise = s.n if s.n.ndim == 4 else (s.n**2).sum(-1).sqrt().permute(0, 3, 1, 2)
            return Estimate(posterior_mean(y, mu, s), posterior_std(s), noise)
        first = self._mu(y, INFERENCE_STRIDE if self.downsample else 1)
        if not self.refine:
            return Estimate(first, None, None)
        # R3 (Lee et al., AP-BSN, section 3.4): put random noisy pixels back, denoise at full resolution, average.
        generator = torch.Generator(self.device).manual_seed(0)
        total = torch.zeros_like(first)
        for _ in range(R3_MASKS):
            mask = torch.rand(y.shape[0], 1, *y.shape[2:], generator=generator, device=self.device) < R3_FRACTION
            total += self._mu(torch.where(mask, y, first), 1)
        return Estimate(total / R3_MASKS, None, None)
