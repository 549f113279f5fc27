"""Stage 2: distil pseudo-labels into a U-Net that sees every pixel. Wu et al., ECCV 2020, section 3.4.

A batch mixes pairs from three sources: *label* (noisy image -> its pseudo-label), *re-noised* (pseudo-label + fresh noise
of the learned model -> pseudo-label) and, optionally, *clean* (clean image + fresh noise -> clean image).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastbsn.camera import CameraNoise, CameraSampler, Mixture
from fastbsn.camera.sampler import MARGIN
from fastbsn.errors import InputError
from fastbsn.nets import UNet
from fastbsn.pixels import to_unit
from fastbsn.training.crops import Places, cut, draw_places, preview_row
from fastbsn.training.identity import tensor_digest
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet
from fastbsn.training.loop import Callback, LoopConfig, Trained, autocast, run, warmup_cosine
from fastbsn.training.ranks import join
from fastbsn.training.rotation import Rotation
from fastbsn.training.variety import Variety, target_noise


@dataclass(frozen=True)
class StudentConfig:
    """Network and mixture.

    renoised: fraction of re-noised pairs; clean: fraction of clean pairs (needs a clean set); the rest are label pairs.
    sigma: range of the fresh noise in 1/255 units, drawn uniformly; None draws from the noise levels that the teacher found.
    variety: how parts of the re-noised and clean pairs are made otherwise, for students that must take any picture.
    camera: photographs: all pairs are made by `fastbsn.camera.CameraSampler` with this mixture, and the four settings above do not apply.
    batch: crops per step; None is 4 on a CPU, 32 on a GPU.
    """

    channels: int = 48
    depth: int = 5
    renoised: float = 1.0
    clean: float = 0.0
    sigma: tuple[float, float] | None = None
    variety: Variety = Variety()
    camera: Mixture | None = None
    batch: int | None = None
    crop: int = 96

    def __post_init__(self) -> None:
        if min(self.renoised, self.clean) < 0 or self.renoised + self.clean > 1:
            raise InputError(f"mixture: renoised={self.renoised}, clean={self.clean}; expected fractions with a sum of at most 1")
        if self.crop < 1 or (self.batch is not None and self.batch < 1):
            raise InputError(f"crop={self.crop}, batch={self.batch}; expected at least 1 pixel and 1 crop")
        if self.sigma is not None and not 0 <= self.sigma[0] <= self.sigma[1]:
            raise InputError(f"sigma={self.sigma}; expected (low, high) with 0 <= low <= high, in 1/255 units")


class StudentTask:
    """The student's pairs and its loss."""

    def __init__(
        self,
        labels: LabelSet | Rotation,
        config: StudentConfig,
        device: torch.device,
        seed: int,
        clean: ImageSet | None = None,
        bank: Mapping[str, CameraNoise] | None = None,
    ):
        config = replace(config, batch=config.batch or (32 if device.type == "cuda" else 4))
        assert config.batch is not None
        self.settings, self.device = config, device
        size = config.crop + (MARGIN if config.camera is not None else 0)
        self.needs_noisy = (
            config.camera.pairs > 0 if config.camera else config.renoised + config.clean < 1 or config.variety.recorrupted > 0
        )
        labels.prepare(config.batch, config.crop, size, device, self.needs_noisy)
        self.source, labels = labels, labels.at(0)
        if config.camera is not None and labels.images.channels != 3:
            raise InputError(
                f"camera noise is that of colour images; these labels have {labels.images.channels} channels: leave out camera"
            )
        if config.camera is None and config.renoised > 0 and not labels.can_sample_noise and config.sigma is None:
            raise InputError(
                "re-noised pairs need a noise model, and these labels have none (correlated noise, or gray ones made of colour); "
                "give sigma, or use renoised=0"
            )
        if config.camera is None and config.variety.recorrupted > 0 and not any(labels.sigmas):
            raise InputError(
                f"recorrupted={config.variety.recorrupted} needs the level of each image's white noise, and these labels have none: use 0"
            )
        if config.clean > 0 and clean is None:
            raise InputError(f"clean={config.clean} needs clean images; give a clean folder or use clean=0")
        self.bank = list(bank or {})
        self.sampler = CameraSampler(list((bank or {}).values()), config.camera) if config.camera is not None else None
        self._use(labels)
        self.clean = clean.at_least(config.crop).to(device) if clean else None
        self.config: dict[str, Any] = json.loads(json.dumps(asdict(config))) | {"labels": labels.digest, "bank": _digest(bank or {})}
        if isinstance(self.source, Rotation):
            self.config["memory"] = self.source.memory
        if clean:
            self.config["clean_images"] = clean.digest
        torch.manual_seed(seed)
        self.networks: dict[str, nn.Module] = {"student": UNet(labels.images.channels, config.channels, config.depth)}

    def _use(self, labels: LabelSet) -> None:
        s = self.settings
        self.labels, self.weights, self.even = labels, labels.weights(), labels.shared(labels.images.areas)
        self.sigmas = torch.tensor(labels.sigmas)
        self.own = {i: self.bank.index(name) for i, name in enumerate(labels.images.names) if name in self.bank}
        size = s.crop + (MARGIN if self.sampler else 0)
        self.targets = labels.images.at_least(size).to(self.device)
        self.noisy = labels.load_noisy().at_least(size).to(self.device) if self.needs_noisy else None

    def factors(self, progress: float) -> dict[str, float]:
        return {"student": warmup_cosine(progress)}

    def _levels(self, index: list[int], places: torch.Generator) -> Tensor:
        """Levels of fresh white noise, [B] on the CPU, those of the images `index` where no range is set."""
        if self.settings.sigma is None:
            return self.sigmas[index]
        low, high = self.settings.sigma
        return self.settings.variety.levels(low / 255, high / 255, len(index), places)

    def _quieter(self, level: Tensor, places: torch.Generator) -> Tensor:
        """Weights [B, images] of the images that have less noise than an input will have: a recorrupted pair starts from one of them, the
        rather the less noise its target has; rows of other pairs are 0."""
        chosen = torch.rand(len(level), generator=places) < self.settings.variety.recorrupted
        own, level = self.sigmas[None], level[:, None]
        return self.even * ((own < level - 0.5 / 255) & chosen[:, None]) / (1 + target_noise(own, level))

    def _renoised(
        self, x: Tensor, noisy: Tensor | None, again: Tensor, level: Tensor, where: Places, index: list[int], noise: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and targets [B, C, crop, crop], and levels of the inputs [B, 1, 1, 1], 0 where there is no one level.

        Args:
            x, noisy: crops of labels, or of clean images, and of the noisy images where any pair is recorrupted.
            again: which pairs are, [B, 1, 1, 1]. level: of the noise, [B, 1, 1, 1]. index: images to take noise of other kinds from.
        """
        variety = self.settings.variety
        target = variety.images(x, noise)
        if self.settings.sigma is None and self.labels.noise != "gaussian":
            return *variety.frames(target + self.labels.sample_noise(target, index, noise), target, noise), torch.zeros_like(level)
        y = target + level * variety.noise(x.shape, noise)
        if noisy is not None:
            own = self.sigmas[where.image][:, None, None, None].to(x.device)
            pair = variety.recorrupt(noisy, x, own, level, noise)
            y, target = (torch.where(again, new, old) for new, old in zip(pair, (y, target), strict=True))
        return *variety.frames(y, target, noise), level

    def objective(self, progress: float) -> str:
        return "student"

    def batch(self, step: int, places: torch.Generator, noise: torch.Generator) -> tuple[Tensor, ...]:
        """Inputs and targets [B, C, crop, crop] of one batch, and the level of white noise of each input [B, 1, 1, 1], 0 where unknown."""
        s = self.settings
        assert s.batch is not None
        if (labels := self.source.at(step)) is not self.labels:
            self._use(labels)
        if self.sampler is not None:
            return self._photographs(self.sampler, s.batch, places)
        kind = torch.rand(s.batch, generator=places).tolist()
        renoised, clean = sum(k < s.renoised for k in kind), sum(s.renoised <= k < s.renoised + s.clean for k in kind)
        inputs, targets, levels = [], [], []
        for source, count in (("renoised", renoised), ("clean", clean), ("label", s.batch - renoised - clean)):
            if not count:
                continue
            images = self.clean if source == "clean" else self.targets
            assert images is not None
            index = torch.randint(len(self.weights), (count,), generator=places).tolist()
            level = self._levels(index, places)
            weights, again = images.areas if source == "clean" else self.weights, torch.zeros(count, dtype=torch.bool)
            if source == "renoised" and s.variety.recorrupted > 0:
                quieter = self._quieter(level, places)
                again = quieter.any(1)
                weights = torch.where(again[:, None], quieter, weights)
            where = draw_places(images, weights, count, s.crop, places)
            x = cut(images, where, s.crop)
            if source == "label":
                assert self.noisy is not None
                inputs.append(cut(self.noisy, where, s.crop))
                level = torch.zeros(count, 1, 1, 1, device=x.device)
            else:
                noisy = cut(self.noisy, where, s.crop) if again.any() and self.noisy else None
                again, level = (v[:, None, None, None].to(x.device) for v in (again, level))
                y, x, level = self._renoised(x, noisy, again, level, where, index, noise)
                inputs.append(y)
            targets.append(x)
            levels.append(level)
        layout = torch.channels_last
        return torch.cat(inputs).contiguous(memory_format=layout), torch.cat(targets).contiguous(memory_format=layout), torch.cat(levels)

    def _photographs(self, sampler: CameraSampler, count: int, places: torch.Generator) -> tuple[Tensor, ...]:
        size = self.settings.crop + MARGIN
        where = draw_places(self.targets, self.weights, count, size, places)
        crops = _arrays(self.targets, where, size)
        noisy = _arrays(self.noisy, where, size) if self.noisy else crops
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=places)))
        part, pairs = sampler.mixture.pairs, []
        for x, y, i in zip(crops, noisy, where.image, strict=True):
            if part and i in self.own and rng.random() < part:
                pairs.append((y[MARGIN:, MARGIN:], x[MARGIN:, MARGIN:]))
            else:
                pairs.append(sampler.pair(x, rng, self.own.get(i)))
        inputs, targets = (torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).to(self.device) for side in zip(*pairs, strict=True))
        return inputs, targets, torch.zeros(count, 1, 1, 1, device=self.device)  # channels_last as they are

    def loss(self, objective: str, y: Tensor, x: Tensor, level: Tensor) -> Tensor:
        """Mean absolute error; of pairs whose noise has a known level, squared error over an error that this level may leave, which is as
        large and has its minimum at the mean, as `Variety.recorrupt` needs it."""
        with autocast(self.device):
            estimate = self.networks["student"](y)
        error = estimate.float() - x
        return torch.where(level > 0, error.square() / (0.4 * level + 4 / 255), error.abs()).mean()

    @torch.no_grad()
    def preview(self, networks: dict[str, nn.Module]) -> np.ndarray:
        """noisy | output | label, of the first image's first 256 x 256 pixels."""
        y, x = (to_unit(i[None, :, :256, :256].to(self.device)) for i in (self.labels.noisy_image(0), self.labels.images.images[0]))
        return preview_row([y[0], networks["student"](y)[0], x[0]])


def _arrays(images: ImageSet, where: Places, size: int) -> np.ndarray:
    """Crops [B, size, size, C]."""
    return cut(images, where, size).permute(0, 2, 3, 1).cpu().numpy()


def _digest(bank: Mapping[str, CameraNoise]) -> str:
    return tensor_digest([torch.from_numpy(x) for noise in bank.values() for x in (noise.correlation, noise.variance)]) if bank else ""


def distill(
    labels: LabelSet | Rotation,
    output: str | Path,
    loop: LoopConfig,
    config: StudentConfig | None = None,
    clean: ImageSet | None = None,
    init: UNet | None = None,
    device: str = "cpu",
    progress: bool = True,
    header: dict[str, Any] | None = None,
    backend: str = "auto",
    callback: Callback | None = None,
    spent: float = 0.0,
    bank: Mapping[str, CameraNoise] | None = None,
) -> Trained:
    """Train the student on stored pseudo-labels; resumes if interrupted.

    Args:
        labels: pseudo-labels, see `fastbsn.training.labels.LabelSet.open`; or a `Rotation`, where they do not fit into memory.
        output: safetensors file to write; `<output>.run/` receives checkpoint, log, preview and curve.
        loop: budget and optimizer.
        config: network and mixture; default `StudentConfig()`.
        clean: optional clean images for `config.clean` > 0.
        init: start from this student instead of random weights; must have the same configuration.
        device: torch device name.
        header: further provenance for the weights header.
        bank: measured noises by the name of their image, for `config.camera`; see `fastbsn.camera`.
        backend: implementation of the network: "auto" and "reference" train through PyTorch, "triton" through the Triton kernels.
        callback, spent: progress and used budget, see `fastbsn.training.loop.run`.

    Returns:
        `output`, and in it "student".

    Raises:
        TrainingError, InputError, Interrupted: see `fastbsn.training.loop.run`. BackendError: `backend` cannot run here, with the reason.
    """
    join()  # the GPU of this rank is the current one from here on
    where = torch.device(device)
    task = StudentTask(labels, config or StudentConfig(), where, loop.seed, clean, bank)
    if init is not None:
        student = task.networks["student"]
        if init.config != student.config:
            raise InputError(f"init: student has configuration {init.config}; expected {student.config}")
        student.load_state_dict(init.state_dict())
        task.config["init"] = tensor_digest(init.state_dict().values())
    info = {
        "kind": "student",
        "noise": "camera" if task.sampler else task.labels.noise if task.settings.sigma is None else "gaussian",
        "labels": labels.digest,
        "images": labels.count,
        **(header or {}),
    }
    return run(task, loop, Path(output), where, info, progress, callback, backend, spent)
