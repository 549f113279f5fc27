"""The report of a training: both curves, the noise in the training images, and what the student makes of some of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from fastbsn.denoiser import Denoiser
from fastbsn.io.weights import load_networks
from fastbsn.report.curve import Curve
from fastbsn.report.page import Report
from fastbsn.training import ImageSet
from fastbsn.training.monitor import read_log

SHOWN, SIDE = 4, 1024  # training images that the student denoises, and pixels on a side of the part of each


def training_report(images: ImageSet, student: Path, workdir: Path, device: str) -> Report:
    """Report of `fastbsn.training.fit`.

    Args:
        images: that were trained on.
        student: file that was written.
        workdir: of the same call; it holds the teacher, where there is one, and the logs.
        device: that the shown images are denoised on.

    Raises:
        WeightsError, InputError: a file of the training is damaged or missing.
    """
    files = {"teacher": workdir / "teacher.safetensors", "student": student}
    files = {name: file for name, file in files.items() if file.exists() or name == "student"}  # no teacher of photographs
    curves = [_curve(name, file) for name, file in files.items()]
    facts = {"training images": str(len(images.images)), **{name: _cost(load_networks(file)[1]) for name, file in files.items()}}
    denoiser = Denoiser.from_pretrained(student, device=device)
    facts["kind of noise"] = str(denoiser.header_.get("noise", "unknown"))
    page = Report(f"Training of {student.name}", facts, curves)
    for i in np.linspace(0, len(images.images) - 1, min(SHOWN, len(images.images))).round().astype(int):
        noisy = _middle(images.images[i].numpy().transpose(1, 2, 0))
        start = time.perf_counter()
        clean = denoiser(noisy, axes="YXC")
        name = images.names[i] if images.names else str(i)
        page.add(name, noisy, clean, "YXC", time.perf_counter() - start)
    return page


def _curve(name: str, file: Path) -> Curve:
    rows = read_log(file.with_name(file.name + ".run") / "log.csv")
    return Curve(name, [float(r["step"]) for r in rows], [float(r["loss"]) for r in rows])


def _cost(header: dict[str, Any]) -> str:
    return f"{header['steps']} steps in {header['seconds'] / 60:.1f} minutes"


def _middle(x: np.ndarray) -> np.ndarray:
    top, left = (max(0, (n - SIDE) // 2) for n in x.shape[:2])
    return x[top : top + SIDE, left : left + SIDE]
