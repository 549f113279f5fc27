"""Stage 1: a blind-spot network and its noise model, from noisy images alone. Wu et al., ECCV 2020, section 3."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastbsn.errors import InputError
from fastbsn.nets import DBSN, NoiseModel, negative_log_likelihood, noise_level, posterior_mean
from fastbsn.nets.noise_model import KINDS, LIKELIHOODS
from fastbsn.ops import space_to_batch
from fastbsn.pixels import to_unit
from fastbsn.training.correlation import downsampling_stride
from fastbsn.training.crops import cut, draw_places, preview_row
from fastbsn.training.imageset import ImageSet
from fastbsn.training.loop import Callback, LoopConfig, Trained, autocast, run, warmup_cosine
from fastbsn.training.ranks import join

logger = logging.getLogger("fastbsn")
MU_END, SIGMA_END = 0.75, 0.88  # fractions of the budget: mu by L2; then the sigma networks; then all together
JOINT_RATE = 0.1  # learning rate of mu in the joint objective, relative to the peak
SIGMA_RATE = 5.0  # of the sigma networks: small, and their outputs must move from 0.02 to the noise level in few steps


@dataclass(frozen=True)
class TeacherConfig:
    """Network, noise and batch. `None` sizes are chosen by device: small on a CPU, the published ones on a GPU.

    noise: "gaussian", "heteroscedastic", "multivariate", or "correlated" (camera sRGB: pixel-shuffle downsampling by
    `stride`, measured from the noise where it is None; no posterior, R3 refinement instead).
    """

    noise: str = "gaussian"
    variant: str = "light"
    channels: int | None = None
    modules: int | None = None
    blind_spot: str = "dilated"
    likelihood: str = "exact"
    stride: int | None = None
    batch: int | None = None
    crop: int = 96

    def __post_init__(self) -> None:
        if self.noise not in (*KINDS, "correlated"):
            raise InputError(f"noise={self.noise!r}; expected one of {', '.join(KINDS)}, correlated")
        if self.crop < 1 or (self.batch is not None and self.batch < 1):
            raise InputError(f"crop={self.crop}, batch={self.batch}; expected at least 1 pixel and 1 crop")
        if self.likelihood not in LIKELIHOODS:
            raise InputError(f"likelihood={self.likelihood!r}; expected one of {', '.join(LIKELIHOODS)}")

    def resolved(self, images: ImageSet, device: torch.device) -> TeacherConfig:
        """The same configuration with every None replaced."""
        gpu = device.type == "cuda"
        stride = self.stride
        if self.noise == "correlated" and stride is None:
            stride = downsampling_stride(images)
            logger.info("the noise is correlated over %d pixels: images are downsampled by that", stride)
        return TeacherConfig(
            noise=self.noise,
            variant=self.variant,
            channels=self.channels or ({"light": 128, "paper": 96}[self.variant] if gpu else 48),
            modules=self.modules or ({"light": 9, "paper": 8}[self.variant] if gpu else {"light": 4, "paper": 2}[self.variant]),
            blind_spot=self.blind_spot,
            likelihood=self.likelihood,
            stride=stride,
            batch=self.batch or (16 if gpu else 4),
            crop=self.crop,
        )


class TeacherTask:
    """The teacher's loss of each of its objectives."""

    def __init__(self, images: ImageSet, config: TeacherConfig, device: torch.device, seed: int):
        self.settings, self.device, self.stride = config, device, config.stride or 1
        self.images = images.at_least(config.crop * self.stride).to(device)
        self.config: dict[str, Any] = asdict(config) | {"images": len(images.images), "data": images.digest}
        torch.manual_seed(seed)
        self.dbsn = DBSN(images.channels, config.channels, config.modules, config.variant, config.blind_spot)
        self.networks: dict[str, nn.Module] = {"teacher": self.dbsn}
        self.bayes = config.noise != "correlated"
        if self.bayes:
            self.networks["noise_model"] = NoiseModel(config.noise, images.channels, self.dbsn.feature_channels)
        self.levels = torch.tensor([noise_level(to_unit(x)) for x in images.images]) if config.noise == "gaussian" else None

    def factors(self, progress: float) -> dict[str, float]:
        if not self.bayes:
            return {"teacher": warmup_cosine(progress)}
        joint = JOINT_RATE * warmup_cosine(progress, SIGMA_END, 1.0)
        return {
            "teacher": warmup_cosine(progress, 0.0, MU_END) if progress < SIGMA_END else joint,
            "noise_model": SIGMA_RATE * warmup_cosine(progress, MU_END, 1.0),
        }

    def objective(self, progress: float) -> str:
        if not self.bayes or progress < MU_END:
            return "mu"
        return "sigma" if progress < SIGMA_END else "joint"

    def batch(self, step: int, places: torch.Generator, noise: torch.Generator) -> tuple[Tensor, ...]:
        """Noisy crops [B, C, crop, crop] and, for "gaussian", the noise level of their images [B, 1, 1, 1]."""
        crop = self.settings.crop * self.stride
        count = max(1, (self.settings.batch or 1) // self.stride**2)
        where = draw_places(self.images, self.images.areas, count, crop, places)
        y = cut(self.images, where, crop)
        if self.stride > 1:
            y = space_to_batch(y, self.stride).contiguous(memory_format=torch.channels_last)
        return (y,) if self.levels is None else (y, self.levels[where.image].to(self.device)[:, None, None, None])

    def loss(self, objective: str, y: Tensor, level: Tensor | None = None) -> Tensor:
        with torch.set_grad_enabled(objective != "sigma"), autocast(self.device):
            mu, features = self.dbsn(y)
        mu, features = mu.float(), features.float()
        if objective == "mu":
            return ((mu - y) ** 2).mean() if self.bayes else (mu - y).abs().mean()
        return negative_log_likelihood(y, mu, self.networks["noise_model"](y, mu, features, level), self.settings.likelihood)

    @torch.no_grad()
    def preview(self, networks: dict[str, nn.Module]) -> np.ndarray:
        """noisy | mu | posterior mean, of the first image's first 256 x 256 pixels."""
        y = to_unit(self.images.images[0][None, :, :256, :256].to(self.device))
        mu, features = networks["teacher"](y)
        row = [y, mu]
        if self.bayes:
            row.append(posterior_mean(y, mu, networks["noise_model"](y, mu, features)))
        return preview_row([x[0] for x in row])


def train_teacher(
    images: ImageSet,
    output: str | Path,
    loop: LoopConfig,
    config: TeacherConfig | None = None,
    device: str = "cpu",
    progress: bool = True,
    backend: str = "auto",
    callback: Callback | None = None,
) -> Trained:
    """Train a D-BSN (and its noise model) on noisy images; resumes if interrupted.

    Args:
        images: noisy images, one channel count; noise is used as it is, never redrawn.
        output: safetensors file to write; `<output>.run/` receives checkpoint, log, preview and curve.
        loop: budget and optimizer.
        config: network and noise; default `TeacherConfig()`.
        device: torch device name.
        progress: show a progress bar.
        backend: implementation of the operations: "auto", "triton" or "reference".
        callback: called after every step, see `fastbsn.training.loop.run`.

    Returns:
        `output`, and in it "teacher" and, unless the noise is correlated, "noise_model".

    Raises:
        TrainingError, InputError, Interrupted: see `fastbsn.training.loop.run`.
    """
    join()  # the GPU of this rank is the current one from here on
    where = torch.device(device)
    resolved = (config or TeacherConfig()).resolved(images, where)
    task = TeacherTask(images, resolved, where, loop.seed)
    header = {"kind": "teacher", "noise": resolved.noise, "stride": resolved.stride, "images": len(images.images)}
    return run(task, loop, Path(output), where, header, progress, callback, backend)
