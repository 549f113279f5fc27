"""Both stages in one call: noisy images in, student out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastbsn.backends import resolve_device
from fastbsn.errors import TrainingError
from fastbsn.io.weights import load_networks
from fastbsn.nets import UNet
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet, load_teacher
from fastbsn.training.loop import LoopConfig
from fastbsn.training.student import StudentConfig, distill
from fastbsn.training.teacher import TeacherConfig, train_teacher

TEACHER_SHARE = 0.5  # of the budget; labelling is not counted


def fit(
    images: Sequence[np.ndarray] | ImageSet,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    noise: str = "gaussian",
    seed: int = 0,
    device: str = "auto",
    workdir: str | Path | None = None,
    output: str | Path | None = None,
    progress: bool = True,
    teacher: TeacherConfig | None = None,
    student: StudentConfig | None = None,
) -> UNet:
    """Train teacher, make labels, train student.

    Args:
        images: noisy images [H, W] or [H, W, C]: uint8, uint16, or floats in [0, 1] units.
        minutes, steps: budget for both trainings together; exactly one.
        noise: "gaussian", "heteroscedastic", "multivariate" or "correlated".
        seed: of every draw.
        device: "auto", "cpu" or "cuda".
        workdir: keeps teacher, checkpoints, logs and previews, and lets an interrupted call go on; default: a temporary folder.
        output: student file; default: `<workdir>/student.safetensors`.
        progress: show progress bars.
        teacher, student: further settings.

    Returns:
        The trained student in evaluation mode.

    Raises:
        TrainingError, InputError, Interrupted: see `fastbsn.training.loop.run`.
    """
    noisy = images if isinstance(images, ImageSet) else ImageSet.from_arrays(images)
    if (minutes is None) == (steps is None):
        raise TrainingError(f"budget: got steps={steps}, minutes={minutes}; give exactly one of them")
    device = str(resolve_device(device)[0])
    teacher = teacher or TeacherConfig(noise=noise)

    def budget(share: float) -> LoopConfig:
        if minutes is not None:
            return LoopConfig(minutes=minutes * share, seed=seed)
        return LoopConfig(steps=max(1, round((steps or 0) * share)), seed=seed)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(workdir or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        teacher_file, student_file = folder / "teacher.safetensors", Path(output or folder / "student.safetensors")
        if not teacher_file.exists():
            train_teacher(noisy, teacher_file, budget(TEACHER_SHARE), teacher, device, progress)
        labels = LabelSet.compute(load_teacher(teacher_file, device), noisy)
        renoised = 1.0 if labels.can_sample_noise else 0.0
        distill(
            labels, student_file, budget(1 - TEACHER_SHARE), student or StudentConfig(renoised=renoised), device=device, progress=progress
        )
        network = load_networks(student_file)[0]["student"]
    assert isinstance(network, UNet)
    return network
