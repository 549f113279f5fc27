"""What the tests start under torchrun: python -m tests.training.ranks_run STAGE OUTPUT STEPS [PAUSE]; trains a small teacher or student.

PAUSE: seconds after each step; "parts" instead: one process that sums what two ranks would.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

import fastbsn.training.loop
import fastbsn.training.student
import fastbsn.training.teacher
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, TeacherConfig, distill, train_teacher
from fastbsn.training.labels import LabelSet


class InParts(fastbsn.training.loop.EagerStep):
    """The step of two ranks in one process: the gradients of either part of the batch, and their sum."""

    def __call__(self, objective: str, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        sums = []
        for part in zip(*(x.tensor_split(2) for x in batch), strict=True):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(objective, *part)
            loss.backward()
            share = len(part[0]) / len(batch[0])
            sums.append([share * x for x in (loss.detach(), *(p.grad for p in self.parameters if p.grad is not None))])
        loss, *gradients = (a + b for a, b in zip(*sums, strict=True))
        for p, gradient in zip([p for p in self.parameters if p.grad is not None], gradients, strict=True):
            p.grad = gradient
        self.optimizer.step()
        return loss


def main(stage: str, output: str, steps: str, pause: str = "0") -> None:
    torch.set_num_threads(1)
    if pause == "parts":
        fastbsn.training.loop.EagerStep, pause = InParts, "0"
    for task in (fastbsn.training.teacher, fastbsn.training.student):  # bfloat16 would hide what the sum over ranks adds
        task.autocast = lambda device: torch.autocast(device.type, enabled=False)
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([rng.random((40, 48)).astype(np.float32) for _ in range(4)])
    loop = LoopConfig(steps=int(steps), checkpoint_seconds=0, log_steps=2)

    def callback(now: object) -> None:
        step = now.step  # type: ignore[attr-defined]
        Path(f"{output}.{os.environ.get('RANK', '0')}.pid").write_text(f"{os.getpid()} {step}")
        time.sleep(float(pause))

    if stage == "teacher":
        config = TeacherConfig("heteroscedastic", channels=8, modules=1, batch=5, crop=24)
        train_teacher(images, output, loop, config, progress=False, callback=callback)
    else:
        labels = LabelSet(images, [0.1] * 4, [0.02] * 4, "gaussian", noisy=images)
        config = StudentConfig(channels=6, depth=2, batch=5, crop=24, renoised=0.5)
        distill(labels, output, loop, config, progress=False, callback=callback)


if __name__ == "__main__":
    main(*sys.argv[1:])
