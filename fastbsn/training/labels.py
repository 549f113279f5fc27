"""Pseudo-labels in memory: the teacher's outputs, with what a student needs to make pairs of them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from fastbsn.errors import InputError
from fastbsn.inference.frames import Frames
from fastbsn.inference.predictor import Predictor
from fastbsn.io.weights import load_networks
from fastbsn.models import find_model
from fastbsn.nets import NoiseModel
from fastbsn.pixels import LUMA, luma, to_unit, white
from fastbsn.training.identity import digest, tensor_digest
from fastbsn.training.imageset import ImageSet
from fastbsn.training.label_files import LabelFiles


@dataclass
class LabelSet:
    """Labels in memory, with what the student needs to make pairs from them.

    images: labels [C, H, W]. sigmas, stds: per image, the noise level ("gaussian" only, else 0) and the RMS error that the
    teacher states (0 where it states none), in units of the image range. noise: the kind of noise. noise_model: for kinds whose
    noise depends on the image.
    """

    images: ImageSet
    sigmas: list[float]
    stds: list[float]
    noise: str
    noise_model: NoiseModel | None = None
    noisy: ImageSet | None = None
    readers: Sequence[Callable[[], Tensor]] = ()  # of the noisy images, where they are not in memory
    digest: str = ""  # of what the labels are made from; of the labels themselves where nothing else is known
    parts: list[int] = field(default_factory=list)  # numbers of images of the sets that were joined
    shares: list[float] = field(default_factory=list)  # of the crops, one for each of these sets

    def __post_init__(self) -> None:
        if not self.digest:
            noisy, numbers = self.noisy.digest if self.noisy else "", json.dumps([self.sigmas, self.stds, self.noise])
            self.digest = digest(self.images.digest.encode(), noisy.encode(), numbers.encode())

    @classmethod
    def compute(
        cls,
        teacher: Predictor,
        noisy: ImageSet,
        progress: bool = False,
        done: Callable[[int], None] | None = None,
        strength: float = 1.0,
    ) -> LabelSet:
        """Label images that are in memory. The digest is that of what goes in.

        `done` is called with the number of labels after each; `strength` as in `label_image`.
        """
        rows: list[Label] = []
        for image in tqdm(noisy.images, "labels", unit="image", disable=None if progress else True):
            rows.append(label_image(teacher, image, strength))
            if done:
                done(len(rows))
        labels = ImageSet([r.label for r in rows], noisy.names)
        sigmas, errors = [r.sigma for r in rows], [r.error for r in rows]
        weights = [w for net in teacher.networks.values() for w in net.state_dict().values()]
        found = digest(noisy.digest.encode(), tensor_digest(weights).encode(), teacher.noise.encode(), f"{strength:g}".encode())
        return cls(labels, sigmas, errors, teacher.noise, _noise_model(teacher), noisy, digest=found)

    @classmethod
    def open(cls, folder: str | Path, noisy: str | Path | None = None) -> LabelSet:
        """Read a finished label folder, local or at a URL. `noisy` replaces the place of the noisy images named in the manifest.

        Raises:
            FileFormatError: no manifest (labelling did not finish) or a label is missing or damaged.
        """
        files = LabelFiles(folder, noisy)
        images = ImageSet([files.label(i) for i in range(len(files))], files.names)
        readers = [partial(files.noisy, i) for i in range(len(files))]
        return cls(images, files.sigmas, files.errors, files.noise, files.noise_model, None, readers, files.digest)

    @classmethod
    def join(cls, sets: Sequence[LabelSet], shares: Sequence[float] = ()) -> LabelSet:
        """Several sets as one: each gives its share of the crops, whatever its size.

        Args:
            shares: one number for each set, relative to each other; default: the same for all.

        Raises:
            InputError: different numbers of channels, or another number of shares than of sets.
        """
        shares = list(shares) or [1.0] * len(sets)
        if len(shares) != len(sets) or min(shares) <= 0:
            raise InputError(f"shares {shares} for {len(sets)} sets of labels; expected one positive number for each")
        if len(sets) == 1:
            return sets[0]
        images = ImageSet([x for s in sets for x in s.images.images], [n for s in sets for n in s.images.names])
        noisy = ImageSet([x for s in sets for x in s.load_noisy().images], images.names) if any(s.noisy for s in sets) else None
        return cls(
            images,
            [v for s in sets for v in s.sigmas],
            [v for s in sets for v in s.stds],
            sets[0].noise if len({s.noise for s in sets}) == 1 and not any(s.noise_model for s in sets) else "unknown",
            None,
            noisy,
            [reader for s in sets for reader in s.readers],
            digest(*(s.digest.encode() for s in sets), json.dumps(shares).encode()),
            [len(s.images.images) for s in sets],
            shares,
        )

    def gray(self) -> LabelSet:
        """The same labels in gray (luma), for a gray student: three noisy channels say more about an image than one.

        The noise of the gray images is not known to this set; give `StudentConfig.sigma`.

        Raises:
            InputError: the labels are not RGB.
        """
        if self.images.channels != 3:
            raise InputError(f"these labels have {self.images.channels} channels; gray labels are made of 3: label colour images")
        images = ImageSet([luma(to_unit(x)).to(torch.float16) for x in self.images.images], self.images.names)
        noisy = ImageSet([luma(to_unit(x)) for x in self.load_noisy().images], self.images.names)
        sigmas = [sigma * math.hypot(*LUMA) for sigma in self.sigmas]
        return replace(self, images=images, noisy=noisy, sigmas=sigmas, noise="unknown", noise_model=None, digest=f"{self.digest}-gray")

    @property
    def count(self) -> int:
        return len(self.images.images)

    def prepare(self, batch: int, crop: int, size: int, device: torch.device, noisy: bool) -> None:
        """What `Rotation` needs to know; a set in memory does not change."""

    def at(self, step: int) -> LabelSet:
        """The labels that are in memory at this step: all."""
        return self

    @property
    def can_sample_noise(self) -> bool:
        return self.noise == "gaussian" or self.noise_model is not None

    def weights(self) -> Tensor:
        """Probability weight of each image, [images]: its area over the variance that its label's error is expected to have.

        A label of a nearly clean image is worth more than one of a very noisy image. Measured on training images, the stated error
        falls short where the noise is strong, and grows with about 0.3 sigma there; (2/255)^2 keeps the weight finite.
        """
        error = torch.tensor(self.stds) ** 2 + (0.3 * torch.tensor(self.sigmas)) ** 2 + (2 / 255) ** 2
        return self.shared(self.images.areas / error)

    def shared(self, weights: Tensor) -> Tensor:
        """Weights of the images, [images], such that each joined set has its share."""
        if not self.parts:
            return weights
        return torch.cat([share * part / part.sum() for share, part in zip(self.shares, weights.split(self.parts), strict=True)])

    def noisy_image(self, i: int) -> Tensor:
        return self.noisy.images[i] if self.noisy else self.readers[i]()

    def load_noisy(self) -> ImageSet:
        return self.noisy or ImageSet([self.noisy_image(i) for i in range(len(self.images.images))], self.images.names)

    def sample_noise(self, target: Tensor, index: list[int], generator: torch.Generator) -> Tensor:
        """Fresh noise [B, C, H, W] for clean targets; "gaussian" takes the noise levels of the images `index`."""
        if self.noise == "gaussian":
            sigma = torch.tensor([self.sigmas[i] for i in index], device=target.device)[:, None, None, None]
            return sigma * torch.randn(target.shape, generator=generator, device=target.device)
        assert self.noise_model is not None
        with torch.no_grad():
            return self.noise_model.to(target.device).sample(target, generator)


class Label(NamedTuple):
    """One label [C, H, W] in the image's dtype, its pixelwise std or None, noise sigma of the image and RMS stated error."""

    label: Tensor
    std: Tensor | None
    sigma: float
    error: float


def load_teacher(name_or_path: str | Path, device: str = "auto", backend: str = "auto", dtype: str = "auto") -> Predictor:
    """What makes labels, prepared: a teacher's file, or a student by file or bundled name. Errors as those of `find_model`, `Predictor`."""
    networks, header = load_networks(find_model(name_or_path))
    return Predictor(networks, str(header.get("noise", "gaussian")), device, backend, dtype)


def _noise_model(teacher: Predictor) -> NoiseModel | None:
    """The model that fresh noise is drawn from, for the kinds whose noise depends on the image; on the CPU."""
    model = teacher.noise_model
    return None if model is None or model.kind == "gaussian" else copy.deepcopy(model).cpu()


def label_image(teacher: Predictor, image: Tensor, strength: float = 1.0) -> Label:
    """Pseudo-label of one stored image [C, H, W], in tiles where it is large.

    Args:
        teacher: a teacher, or a student, whose labels come without a stated error.
        image: in its own dtype.
        strength: of the denoising, see `Denoiser.__call__`; 2 is for photographs, whose noise a model of white noise does not see.

    Raises:
        InputError: the image has another number of channels than the teacher was trained on.
    """
    if image.shape[0] != teacher.channels:
        raise InputError(f"image has {image.shape[0]} channels; the teacher was trained on {teacher.channels}")
    frames = Frames(image, teacher.channels, "CYX", data_range=white(image))
    levels = label_levels(teacher, frames)
    teacher.run(frames, sigma="posterior" if teacher.gives_error else False, levels=levels, strength=strength)
    return as_label(teacher, frames, levels)


def label_levels(teacher: Predictor, frames: Frames) -> list[Tensor]:
    """Noise level of the one frame of an image, where its label needs or states one: for a student, that of white noise."""
    return teacher.levels(frames) if teacher.is_teacher else [teacher.level(frames, 0)]


def as_label(teacher: Predictor, frames: Frames, levels: list[Tensor]) -> Label:
    """What a teacher or student wrote into the one frame of an image of this noise level (none, where it needs no level)."""
    if not teacher.gives_error:
        return Label(frames.result(), None, float(levels[0].mean()) if levels else 0.0, 0.0)
    std = torch.as_tensor(frames.sigma()) / frames.scale
    return Label(frames.result(), std.half(), float(levels[0]) if levels else 0.0, float((std**2).mean().sqrt()))
