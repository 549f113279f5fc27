"""Pseudo-labels: the teacher's outputs, made once, stored and reused.

A label folder holds one `<digest>.safetensors` per image (tensor "label", dtype of the image; "std" on request), named by the image
file's content and the teacher's, `noise_model.safetensors`, and `manifest.json`, written last. Every file is written atomically
and depends on nothing but the inputs, so a run that is killed and repeated ends with the files of an uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fastbsn.errors import FastBSNError, FileFormatError, InputError
from fastbsn.inference.frames import Frames
from fastbsn.inference.predictor import Predictor
from fastbsn.io.atomic import write_json
from fastbsn.io.image_files import list_images, read_image
from fastbsn.io.weights import load_networks, load_tensors, save_networks, save_tensors
from fastbsn.models import find_model
from fastbsn.nets import NoiseModel
from fastbsn.pixels import luma, to_unit, white
from fastbsn.training.identity import digest, tensor_digest
from fastbsn.training.imageset import ImageSet, to_tensor

MANIFEST, NOISE_MODEL = "manifest.json", "noise_model.safetensors"


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
    noisy_paths: list[Path] = field(default_factory=list)
    digest: str = ""  # of what the labels are made from; of the labels themselves where nothing else is known
    parts: list[int] = field(default_factory=list)  # numbers of images of the sets that were joined

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
        """Read a finished label folder. `noisy` replaces the folder of noisy images named in the manifest.

        Raises:
            FileFormatError: no manifest (labelling did not finish) or a label is missing or damaged.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.exists():
            raise FileFormatError(f"{folder}: no {MANIFEST}; expected a finished label folder: run `fastbsn label` again to complete it")
        text = path.read_text()
        try:
            manifest = json.loads(text)
            entries, source = manifest["labels"], Path(noisy or manifest["source"])
            names = [str(e["image"]) for e in entries]
            files = [folder / str(e["label"]) for e in entries]
            sigmas, stds = [float(e["sigma"]) for e in entries], [float(e["error"]) for e in entries]
            kind = str(manifest["noise"])
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path}: not a label manifest ({error}); run `fastbsn label` into an empty folder") from error
        images = ImageSet([load_tensors(f)[0]["label"] for f in files], names)
        model = load_networks(folder / NOISE_MODEL)[0]["noise_model"] if (folder / NOISE_MODEL).exists() else None
        assert model is None or isinstance(model, NoiseModel)
        return cls(images, sigmas, stds, kind, model, None, [source / n for n in names], hashlib.sha256(text.encode()).hexdigest()[:16])

    @classmethod
    def join(cls, sets: Sequence[LabelSet]) -> LabelSet:
        """Several sets as one: each gives the same share of the crops, whatever its size.

        Raises:
            InputError: different numbers of channels.
        """
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
            [p for s in sets for p in s.noisy_paths],
            digest(*(s.digest.encode() for s in sets)),
            [len(s.images.images) for s in sets],
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
        return replace(self, images=images, noisy=noisy, noise="unknown", noise_model=None, digest=f"{self.digest}-gray")

    @property
    def can_sample_noise(self) -> bool:
        return self.noise == "gaussian" or self.noise_model is not None

    def weights(self) -> Tensor:
        """Probability weight of each image, [images]: its area over the variance that its label's error is expected to have.

        A label of a nearly clean image is worth more than one of a very noisy image. Measured on training images, the stated error
        falls short where the noise is strong, and grows with about 0.3 sigma there; (2/255)^2 keeps the weight finite.
        """
        error = torch.tensor(self.stds) ** 2 + (0.3 * torch.tensor(self.sigmas)) ** 2 + (2 / 255) ** 2
        weights = self.images.areas / error
        return torch.cat([part / part.sum() for part in weights.split(self.parts)]) if self.parts else weights

    def noisy_image(self, i: int) -> Tensor:
        return self.noisy.images[i] if self.noisy else to_tensor(read_image(self.noisy_paths[i]))

    def load_noisy(self) -> ImageSet:
        return self.noisy or ImageSet([self.noisy_image(i) for i in range(len(self.noisy_paths))], self.images.names)

    def sample_noise(self, target: Tensor, index: list[int], generator: torch.Generator) -> Tensor:
        """Fresh noise [B, C, H, W] for clean targets; "gaussian" takes the noise levels of the images `index`."""
        if self.noise == "gaussian":
            sigma = torch.tensor([self.sigmas[i] for i in index], device=target.device)[:, None, None, None]
            return sigma * torch.randn(target.shape, generator=generator, device=target.device)
        assert self.noise_model is not None
        with torch.no_grad():
            return self.noise_model.to(target.device).sample(target, generator)


@dataclass(frozen=True)
class Label:
    """One label [C, H, W] in the image's dtype, its pixelwise std or None, mean noise sigma and RMS stated error."""

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
    scale = white(image)
    frames = Frames(image, teacher.channels, "CYX", data_range=scale)
    if not teacher.gives_error:
        teacher.run(frames, strength=strength)
        white_level = 0.0 if teacher.is_teacher else float(teacher.level(frames, 0).mean())
        return Label(frames.result(), None, white_level, 0.0)
    levels = teacher.levels(frames)
    teacher.run(frames, sigma="posterior", levels=levels, strength=strength)
    std = torch.as_tensor(frames.sigma()) / scale
    return Label(frames.result(), std.half(), float(levels[0]) if levels else 0.0, float((std**2).mean().sqrt()))


def generate(
    noisy: str | Path,
    output: str | Path,
    teacher: str | Path,
    device: str = "auto",
    backend: str = "auto",
    dtype: str = "auto",
    std: bool = False,
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
    strength: float = 1.0,
) -> tuple[int, list[str]]:
    """Write one label per image of the folder `noisy` into `output`; existing labels are kept.

    Args:
        noisy: folder of noisy images.
        output: label folder, made if needed.
        teacher: file written by `train_teacher`, or a student by file or bundled name.
        device, backend, dtype: of the teacher, see `Denoiser`.
        std: also store the standard deviation of each pixel's error (float16).
        shard: (i, n): label only every n-th image starting at i; the run that finds all labels present writes the manifest.
        progress: show a progress bar.
        strength: see `label_image`.

    Returns:
        Number of labels written now, and one sentence per image that could not be labelled.

    Raises:
        InputError: no images; WeightsError: not a usable teacher file.
    """
    noisy, output = Path(noisy), Path(output)
    paths = list_images(noisy)
    if not paths:
        raise InputError(f"{noisy}: no images found; expected PNG, JPEG, TIFF or .npy files")
    engine = load_teacher(teacher, device, backend, dtype)
    teacher_bytes = find_model(teacher).read_bytes()
    options = (b"std" if std else b"") + (b"" if strength == 1 else f"strength {strength:g}".encode())
    output.mkdir(parents=True, exist_ok=True)
    model = _noise_model(engine)
    if model is not None and not (output / NOISE_MODEL).exists():
        save_networks(output / NOISE_MODEL, {"noise_model": model}, {"noise": engine.noise})
    files = [output / (digest(p.read_bytes(), teacher_bytes, options) + ".safetensors") for p in paths]
    written, failures = 0, []
    mine: Iterable[tuple[Path, Path]] = list(zip(paths, files, strict=True))[shard[0] :: shard[1]]
    for path, file in tqdm(mine, unit="image", disable=None if progress else True):
        if file.exists():
            continue
        try:
            made = label_image(engine, to_tensor(read_image(path)), strength)
        except FastBSNError as error:
            failures.append(f"{path.name}: {error}")
            continue
        tensors = {"label": made.label} | ({"std": made.std} if std and made.std is not None else {})
        save_tensors(file, tensors, {"image": path.name, "sigma": made.sigma, "error": made.error})
        written += 1
    present = [(p, f) for p, f in zip(paths, files, strict=True) if f.exists()]
    if len(present) + len(failures) == len(paths):
        write_json(output / MANIFEST, _manifest(noisy, engine.noise, present))
    return written, failures


def _manifest(noisy: Path, noise: str, present: list[tuple[Path, Path]]) -> dict[str, object]:
    rows = []
    for path, file in present:
        header = load_tensors(file)[1]
        rows.append({"image": path.name, "label": file.name, "sigma": header["sigma"], "error": header["error"]})
    return {"version": 1, "source": str(noisy.resolve()), "noise": noise, "labels": rows}
