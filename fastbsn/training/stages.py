"""Both stages in one call: noisy images in, student out."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastbsn.backends import resolve_device
from fastbsn.inference.predictor import Predictor
from fastbsn.io.atomic import write_json
from fastbsn.nets import UNet
from fastbsn.signals import interrupted_by_signals
from fastbsn.training.check import check
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet
from fastbsn.training.loop import Callback, LoopConfig, Progress, Trained
from fastbsn.training.photographs import OWN_CAMERA, RATE, base_student, describe, draw_noise, label_photographs
from fastbsn.training.ranks import join
from fastbsn.training.student import StudentConfig, distill
from fastbsn.training.teacher import TeacherConfig, train_teacher

logger = logging.getLogger("fastbsn")
TEACHER_SHARE = 0.5  # of the budget; of minutes, labelling uses the student's
LABEL_SHARE = 0.2  # of the minutes, at most
WINDOW = 256  # pixels on a side of the windows that are labelled where whole images take too long
STOPPED = "stopped while labelling: run the same command again to go on"


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
    overwrite: bool = False,
    progress: bool = True,
    callback: Callback | None = None,
    teacher: TeacherConfig | None = None,
    student: StudentConfig | None = None,
    init: UNet | None = None,
    repair: str = "auto",
) -> Trained:
    """Train teacher, make labels, train student; or, for photographs, make labels with a bundled model, measure the noise, train.

    Args:
        images: noisy images [H, W] or [H, W, C]: uint8, uint16, or floats in [0, 1] units.
        minutes, steps: budget for everything, or for both trainings together; exactly one.
        noise: "gaussian", "heteroscedastic", "multivariate" or "correlated"; or "camera": see `fastbsn.training.photographs`, no teacher.
        seed: seed of every draw.
        device: "auto", "cpu" or "cuda".
        workdir: keeps teacher, checkpoints, logs and previews, and lets an interrupted call go on; default: a temporary folder.
        output: student file; default: `<workdir>/student.safetensors`.
        overwrite: start anew where `workdir` or `output` holds a run; otherwise the same run goes on, and another one is refused.
        progress: show progress bars.
        callback: called after every step and label; what it raises ends the call, and a checkpoint is written first.
        teacher, student: further settings.
        init: "camera" only: start from this student; default `color-photo`.
        repair: "auto" or "off": impulses and stripes, see `fastbsn.training.check`.

    Returns:
        The student's file, "student" and, where there is one, "noise_model", and the file's header.

    Raises:
        TrainingError, InputError, Interrupted: see `fastbsn.training.loop.run`.
    """
    LoopConfig(steps, minutes)  # refuses a budget of nothing
    ranks = join()
    noisy = check(images if isinstance(images, ImageSet) else ImageSet.from_arrays(images), repair)
    stored = {dtype: list(given) if isinstance(given, tuple) else given for dtype, given in noisy.data_ranges.items()}
    ranges: dict[str, Any] = {"data_ranges": stored} if stored else {}
    device = str(resolve_device(device)[0])

    def budget(share: float, lr: float = LoopConfig.lr) -> LoopConfig:
        if steps is None:
            return LoopConfig(minutes=(minutes or 0) * share, lr=lr, seed=seed)
        return LoopConfig(steps=max(1, round(steps * share)), lr=lr, seed=seed)

    def labelled(count: int) -> None:
        if callback:
            callback(Progress("labels", count / len(noisy.images), count))

    def part(label: Callable[[ImageSet], Any]) -> ImageSet:
        """What is labelled: all, or as many windows as a share of the minutes allows; the same when the run goes on."""
        chosen = folder / "labels.json"
        if ranks.first and not chosen.exists() and minutes is not None:
            window = noisy.windows(WINDOW, 1, seed)
            label(window)  # the first time something is prepared
            start = time.monotonic()
            label(window)
            seconds = time.monotonic() - start
            per_window = seconds * WINDOW**2 / float(window.areas.sum())
            write_json(chosen, {"windows": max(1, int(60 * minutes * LABEL_SHARE / per_window))})
        ranks.meet()
        if not chosen.exists():
            return noisy
        made = noisy.windows(WINDOW, int(json.loads(chosen.read_text())["windows"]), seed)
        if made is not noisy:
            text = "labels of %d windows of %d pixels on a side: all %d images would take longer than %d %% of the minutes"
            logger.warning(text, len(made.images), WINDOW, len(noisy.images), 100 * LABEL_SHARE)
        return made

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(workdir or temporary)
        teacher_file, student_file = folder / "teacher.safetensors", Path(output or folder / "student.safetensors")
        for file in (teacher_file, student_file) if overwrite and ranks.first else ():
            file.unlink(missing_ok=True)
            (folder / "labels.json").unlink(missing_ok=True)
            shutil.rmtree(file.with_name(file.name + ".run"), ignore_errors=True)
        ranks.meet()  # nobody looks for files that rank 0 removes
        folder.mkdir(parents=True, exist_ok=True)
        if noise == "camera":
            start = time.monotonic()
            with interrupted_by_signals(STOPPED):
                noisy = part(lambda images: label_photographs(images, device, measured=False))
                labels, bank = label_photographs(noisy, device, progress, labelled)
            logger.info("noise found: %s", describe(bank))
            draw_noise(bank, folder / "noise.png")
            return distill(
                labels,
                student_file,
                budget(1.0, RATE),
                student or StudentConfig(camera=OWN_CAMERA),
                init=init or base_student(),
                device=device,
                progress=progress,
                header={"camera": describe(bank)} | ranges,
                bank=bank,
                callback=callback,
                spent=time.monotonic() - start,
            )
        config = teacher or TeacherConfig(noise)
        first = train_teacher(noisy, teacher_file, budget(TEACHER_SHARE), config, device, progress, callback=callback)
        start = time.monotonic()
        predictor = Predictor(first.networks, first.header["noise"], device)
        with interrupted_by_signals(STOPPED):
            noisy = part(lambda images: LabelSet.compute(predictor, images))
            labels = LabelSet.compute(predictor, noisy, progress, labelled)
        spent = time.monotonic() - start
        logger.info("%d images labelled in %.1f s", len(noisy.images), spent)
        mixture = student or StudentConfig(renoised=1.0 if labels.can_sample_noise else 0.0)
        last = distill(
            labels,
            student_file,
            budget(1 - TEACHER_SHARE),
            mixture,
            device=device,
            progress=progress,
            header=ranges,
            callback=callback,
            spent=spent,
        )
    model = {name: net for name, net in first.networks.items() if name == "noise_model"}
    return last._replace(networks=last.networks | model)
