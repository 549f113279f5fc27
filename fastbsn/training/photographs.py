"""The noise of the user's own camera, from noisy photographs only: measure it, label the photographs, re-noise the labels.

The labels are those of a model of white noise with dither (`inference.dither`), since it removes camera noise that no model has seen,
averaged with those of the bundled model of photographs, which err elsewhere: 0.08 dB better than either on PolyU, where both were the mean
of more turned images than here (four and two).
A student of re-noised labels is better than the labels: what the labels keep of the noise is no part of what it learns to remove.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastbsn.camera import CameraNoise, Mixture, measure
from fastbsn.camera.fields import factor
from fastbsn.camera.statistics import BINS, REACH
from fastbsn.errors import InputError
from fastbsn.inference.frames import Frames
from fastbsn.inference.predictor import Predictor
from fastbsn.io.atomic import atomic_file
from fastbsn.io.weights import load_networks
from fastbsn.models import find_model
from fastbsn.nets import UNet
from fastbsn.pixels import to_unit
from fastbsn.training.identity import digest, tensor_digest
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet, load_teacher

LABELLER, STRENGTH, TURNS = "color-awgn", 2.0, 2
BASE = "color-photo"  # what the student starts from, and what says whether a photograph is noisy at all
# What BASE removes from flat areas of a photograph: less than QUIET, and it is not measured; the median of a set below NOISY, and there is
# nothing to learn. Medians: CBSD68 1.3, BSDS500 1.6, Kodak 1.7 (its film has grain), cameras of PolyU 1.9 to 3.2. A student that learned
# from clean Kodak images was 0.7 dB worse on them than BASE.
QUIET, NOISY = 1.0 / 255, 1.85 / 255
OWN_CAMERA = Mixture(
    measured=0.9,
    raw=0.0,
    blurred=0.0,
    white=0.05,
    clean=0.05,
    gain=(1.0, 2.4),
    free=0.1,
    own=0.8,
    frames=0.03,
    other_content=0.1,
    pairs=0.5,
)

RATE = 5e-4  # peak learning rate: the student is trained already

logger = logging.getLogger("fastbsn")


def label_photographs(
    noisy: ImageSet, device: str = "auto", progress: bool = False, done: Callable[[int], None] | None = None, measured: bool = True
) -> tuple[LabelSet, dict[str, CameraNoise]]:
    """Labels of photographs, and the noise of each noisy one by name; what holds hardly any noise is labelled by BASE and not measured.

    Args:
        noisy: colour photographs.
        device: torch device name.
        progress: show a progress bar.
        done: called with the number of labels after each.
        measured: refuse a set that is hardly noisy.

    Raises:
        InputError: not colour, or no more noise than clean photographs seem to have.
    """
    if noisy.channels != 3:
        raise InputError(f"camera noise is that of colour photographs; got images of {noisy.channels} channels: use noise='gaussian'")
    labeller, judge = load_teacher(LABELLER, device), load_teacher(BASE, device)
    made, bank, levels = [], {}, []
    for name, image in zip(noisy.names, tqdm(noisy.images, "labels", unit="image", disable=None if progress else True), strict=True):
        y = to_unit(image)
        first = _run(judge, y)
        levels.append(_level(y, first))
        if levels[-1] < QUIET:
            made.append(first.half())
        else:
            dithered = _dithered(labeller, y)
            made.append(((dithered + first) / 2).half())
            bank[name] = measure(_array(y), _array(dithered))  # it keeps texture that BASE takes for noise
        if done:
            done(len(made))
    typical = float(np.median(levels))
    if measured and (not bank or typical < NOISY):
        raise InputError(
            f"photographs ({len(made)}) with noise of {255 * typical:.2g} levels of 255 (median); expected {255 * NOISY:g} or more: what "
            f"{BASE} takes from clean ones is about as much, so there is nothing to learn; use {BASE} as it is"
        )
    logger.info("noise in %d of %d photographs", len(bank), len(made))
    none = [0.0] * len(made)
    weights = [w for net in (*labeller.networks.values(), *judge.networks.values()) for w in net.state_dict().values()]
    found = digest(noisy.digest.encode(), tensor_digest(weights).encode(), b"photographs")
    return LabelSet(ImageSet(made, noisy.names), none, none, "camera", noisy=noisy, digest=found), bank


def _run(model: Predictor, image: Tensor, strength: float = 1.0, seed: int = 0) -> Tensor:
    """[C, H, W] in [0, 1] units -> the same, denoised."""
    frames = Frames(image, 3, "CYX", data_range=1.0)
    model.run(frames, strength=strength, seed=seed)
    return torch.as_tensor(frames.result())


def _level(noisy: Tensor, clean: Tensor) -> float:
    """Standard deviation of what was removed, in flat blocks; 0 where the image is constant or too small to tell."""
    try:
        return measure(_array(noisy), _array(clean)).sigma
    except InputError:
        return 0.0


def _dithered(labeller: Predictor, image: Tensor) -> Tensor:
    """The mean of dithered estimates of [C, H, W], each turned by another quarter: four are 0.1 dB better than one on PolyU."""
    turns = (torch.rot90(_run(labeller, torch.rot90(image, k, (1, 2)), STRENGTH, k), -k, (1, 2)) for k in range(TURNS))
    return torch.stack(list(turns)).mean(0)


def measure_noise(labels: LabelSet) -> dict[str, CameraNoise]:
    """Noise of every labelled photograph, by its name; those where it cannot be measured are left out, and named in the log."""
    bank = {}
    for i, (name, label) in enumerate(zip(labels.images.names, labels.images.images, strict=True)):
        try:
            bank[name] = measure(_array(labels.noisy_image(i)), _array(label))
        except InputError as error:
            logger.info("%s: %s", name, error)
    return bank


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(to_unit(x).permute(1, 2, 0).cpu().numpy())


def base_student() -> UNet:
    """The bundled student that training on photographs starts from."""
    student = load_networks(find_model(BASE))[0]["student"]
    assert isinstance(student, UNet)
    return student


def describe(bank: dict[str, CameraNoise]) -> dict[str, Any]:
    """What was found: median level in 1/255 units, correlation at 1, 2 and 3 pixels and between channels, number of photographs."""
    rho = {str(d): round(float(np.median([n.autocorrelation(d) for n in bank.values()])), 3) for d in (1, 2, 3)}
    return {
        "photographs": len(bank),
        "sigma": round(float(np.median([255 * n.sigma for n in bank.values()])), 2),
        "correlation": rho,
        "between channels": round(float(np.median([n.between_channels() for n in bank.values()])), 3),
    }


def draw_noise(bank: dict[str, CameraNoise], picture: Path) -> None:
    """Spectrum, autocorrelation and level by intensity, medians over the photographs, as a PNG; nothing without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    noises = list(bank.values())
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    power = np.median([(np.abs(factor(n, 64, 64)) ** 2).sum(-1).mean(-1) for n in noises[:32]], 0)
    shown = left.imshow(np.log10(np.fft.fftshift(power, 0) + 1e-3), aspect="auto", extent=(0, 0.5, -0.5, 0.5), origin="lower")
    figure.colorbar(shown, label="log10, white noise is 0")
    left.set(title="spectrum", xlabel="cycles per pixel", ylabel="cycles per pixel")
    lags = range(REACH + 1)
    middle.plot(lags, [np.median([n.autocorrelation(d) for n in noises]) for d in lags], marker="o")
    middle.set(title="autocorrelation", xlabel="pixels", ylim=(-0.2, 1.05))
    level = 255 * np.sqrt(np.median([n.variance for n in noises], 0))
    for c, colour in enumerate(("tab:red", "tab:green", "tab:blue")):
        right.plot(np.linspace(0, 255, BINS), level[c], color=colour)
    right.set(title="standard deviation", xlabel="intensity", ylim=(0, None))
    for axes in (middle, right):
        axes.grid(alpha=0.3)
    with atomic_file(picture) as f:
        figure.savefig(f, format="png", dpi=100)
