"""The noise of the user's own camera, from noisy photographs only: measure it, label the photographs, re-noise the labels.

The labels are those of a model of white noise with dither (`inference.dither`), since it removes camera noise that no model has seen.
A student of re-noised labels is better than the labels: what the labels keep of the noise is no part of what it learns to remove.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastbsn.camera import CameraNoise, Mixture, measure
from fastbsn.camera.fields import factor
from fastbsn.camera.measure import BINS, REACH
from fastbsn.errors import InputError
from fastbsn.inference.predictor import Predictor
from fastbsn.io.atomic import atomic_file
from fastbsn.pixels import to_unit
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet, load_teacher

LABELLER, STRENGTH = "color-awgn", 2.0
QUIET = 0.5 / 255  # measured noise below this is none: the photograph is its own label, since dither would only blur it
OWN_CAMERA = Mixture(
    measured=0.9, raw=0.0, blurred=0.0, white=0.05, clean=0.05, gain=(1.0, 2.4), free=0.1, own=0.8, frames=0.03, other_content=0.1
)

log = logging.getLogger("fastbsn")


def label_photographs(noisy: ImageSet, device: str = "auto", progress: bool = False) -> tuple[LabelSet, dict[str, CameraNoise]]:
    """Labels of photographs, and the noise of each by name; both are made once more where there is hardly any noise.

    Args:
        noisy: colour photographs.
        device: torch device name.
        progress: show a progress bar.

    Raises:
        InputError: not colour, or no photograph with noise that can be measured.
    """
    if noisy.channels != 3:
        raise InputError(f"camera noise is that of colour photographs; got images of {noisy.channels} channels: use noise='gaussian'")
    labeller: Predictor = load_teacher(LABELLER, device)
    labels = LabelSet.compute(labeller, noisy, progress, strength=STRENGTH)
    bank = measure_noise(labels)
    for i, name in enumerate(noisy.names):
        if name not in bank:
            labels.images.images[i] = noisy.images[i]
    labels.images = ImageSet(labels.images.images, labels.images.names)
    if not bank:
        raise InputError(f"none of {len(noisy.images)} photographs has noise of more than {255 * QUIET:g} levels of 255: nothing to learn")
    return labels, bank


def measure_noise(labels: LabelSet) -> dict[str, CameraNoise]:
    """Noise of every labelled photograph, by its name; those without measurable noise are left out, and named in the log."""
    bank, quiet = {}, []
    for i, (name, label) in enumerate(zip(labels.images.names, labels.images.images, strict=True)):
        try:
            noise = measure(_array(labels.noisy_image(i)), _array(label))
        except InputError as error:
            log.info("%s: %s", name, error)
            continue
        if noise.sigma < QUIET:
            quiet.append(name)
        else:
            bank[name] = noise
    if quiet:
        log.info("hardly any noise in %d photographs: %s", len(quiet), ", ".join(quiet[:5]) + (", ..." if len(quiet) > 5 else ""))
    return bank


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(to_unit(x).permute(1, 2, 0).cpu().numpy())


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
