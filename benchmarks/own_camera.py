"""What each way of `fit --noise camera` makes of noisy photographs, by their clean halves, which no training sees.

    python -m benchmarks.own_camera PAIRS --minutes 15 -o benchmarks/results/camera.json [--every 4] [--only fit]

PAIRS holds NAME_real.* and NAME_mean.* images. Every training has the same budget, in minutes or steps; that of `fit` counts its
labels, the other rows are given theirs. Rows: bundled models alone and with dither; `fit` from either bundled model; the labels
themselves; a second round (labels and noise of the first student); Recorrupted-to-Recorrupted (Pang et al., CVPR 2021: input y + a n,
target y - n / a, with n of the measured covariance).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.machine import describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.camera.fields import GRID, by_intensity, draw
from fastbsn.camera.sampler import MARGIN
from fastbsn.commands.train import _student
from fastbsn.evaluation.datasets import load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.atomic import write_json
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, distill, fit
from fastbsn.training.crops import cut, draw_places
from fastbsn.training.labels import LabelSet, load_teacher
from fastbsn.training.loop import run
from fastbsn.training.photographs import OWN_CAMERA, RATE, label_photographs, measure_noise
from fastbsn.training.student import StudentTask

ALPHA = 0.5  # a of Recorrupted-to-Recorrupted
GAIN = 1.5  # the measured level is known to be too low


class Recorrupted(StudentTask):
    """Pairs (y + a n, y - n / a) of the noisy photographs themselves, by squared error: unbiased for the clean image."""

    def _photographs(self, sampler: Any, count: int, places: torch.Generator) -> tuple[Tensor, ...]:
        size = self.settings.crop + MARGIN
        where = draw_places(self.targets, self.weights, count, size, places)
        noisy = self.labels.load_noisy().at_least(size)
        both = zip(
            cut(noisy, where, size).permute(0, 2, 3, 1).numpy(), cut(self.targets, where, size).permute(0, 2, 3, 1).numpy(), strict=True
        )
        rng, pairs = np.random.default_rng(int(torch.randint(2**62, (1,), generator=places))), []
        for (y, x), i in zip(both, where.image, strict=True):
            own = self.own.get(i, 0)
            n = GAIN * draw(sampler._factor(own), GRID, rng)[:size, :size] * by_intensity(x, sampler.bank[own].variance)
            pairs.append((y + ALPHA * n, y - n / ALPHA))
        inputs, targets = (torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2)[..., MARGIN:, MARGIN:] for side in zip(*pairs, strict=True))
        return inputs, targets, torch.zeros(count, 1, 1, 1)

    def loss(self, objective: str, y: Tensor, x: Tensor, level: Tensor) -> Tensor:
        return (self.networks["student"](y).float() - x).square().mean()


class Lab:
    """Photographs, their labels, and a folder for what is trained on them."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.pairs = list(load_pairs(args.pairs, channels=3))[:: args.every]
        arrays = [np.rint(p.noisy.transpose(1, 2, 0) * 255).astype(np.uint8) for p in self.pairs]
        self.noisy = ImageSet.from_arrays(arrays)

    @property
    def loop(self) -> LoopConfig:
        return LoopConfig(steps=self.args.steps, minutes=self.args.minutes, lr=RATE)

    @cached_property
    def labels(self) -> tuple[LabelSet, dict[str, Any]]:
        return label_photographs(self.noisy, "cpu")

    def fitted(self, init: str) -> Path:
        """The product's own way."""
        out = self.folder / f"fit-{init}.safetensors"
        if not out.exists():
            budget = {"steps": self.args.steps, "minutes": self.args.minutes}
            fit(self.noisy, **budget, noise="camera", workdir=self.folder / init, output=out, init=_student(init), device="cpu")
        return out

    def second_round(self, first: str) -> Path:
        labels = replace(LabelSet.compute(load_teacher(self.fitted(first), "cpu"), self.noisy), noise="unknown")
        bank = measure_noise(labels)
        out = self.folder / "second.safetensors"
        distill(labels, out, self.loop, StudentConfig(camera=OWN_CAMERA), init=_student(str(self.fitted(first))), bank=bank, progress=False)
        return out

    def recorrupted(self, init: str) -> Path:
        labels, bank = self.labels
        task = Recorrupted(labels, StudentConfig(camera=OWN_CAMERA), torch.device("cpu"), 0, None, bank)
        task.networks["student"].load_state_dict(_student(init).state_dict())
        return run(task, self.loop, self.folder / "recorrupted.safetensors", torch.device("cpu"), {"kind": "student"}, False).path

    def scores(self, outputs: list[np.ndarray]) -> dict[str, Any]:
        found = [psnr(p.clean, np.clip(x, 0, 1)) for p, x in zip(self.pairs, outputs, strict=True)]
        gains = [q - psnr(p.clean, p.noisy) for q, p in zip(found, self.pairs, strict=True)]
        return {
            "psnr": round(float(np.mean(found)), 3),
            "smallest gain": round(min(gains), 2),
            "worse than input": sum(g < 0 for g in gains),
        }

    def denoised(self, model: str | Path, strength: float = 1.0) -> list[np.ndarray]:
        d = Denoiser.from_pretrained(model, device="cpu")
        return [np.asarray(d(p.noisy, channel_axis=0, data_range=1.0, strength=strength)) for p in self.pairs]


def ways(lab: Lab) -> dict[str, Callable[[], list[np.ndarray]]]:
    found = {
        "color-awgn": lambda: lab.denoised("color-awgn"),
        "color-awgn, strength 2": lambda: lab.denoised("color-awgn", 2.0),
        "color-photo": lambda: lab.denoised("color-photo"),
        "fit from color-awgn": lambda: lab.denoised(lab.fitted("color-awgn")),
        "fit from color-photo": lambda: lab.denoised(lab.fitted("color-photo")),
        "labels of fit": lambda: [x.float().numpy() for x in lab.labels[0].images.images],
        "second round": lambda: lab.denoised(lab.second_round("color-awgn")),
        "Recorrupted-to-Recorrupted from color-awgn": lambda: lab.denoised(lab.recorrupted("color-awgn")),
    }
    only = lab.args.only
    return {name: make for name, make in found.items() if only is None or any(part in name for part in only)}


def _rows(file: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by way that the file holds already, if it was measured with the same settings."""
    found = json.loads(file.read_text()) if file.exists() else {}
    return {r.pop("way"): r for r in found["rows"]} if found.get("settings") == settings else {}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.own_camera", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--every", type=int, default=1, help="use every n-th pair")
    parser.add_argument(
        "--only", nargs="*", help="only rows whose names contain one of these; others of the same settings in the file stay"
    )
    parser.add_argument("--work", type=Path, help="keep trained files here; default: a temporary folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    with tempfile.TemporaryDirectory() as temporary:
        lab = Lab(args, args.work or Path(temporary))
        lab.folder.mkdir(parents=True, exist_ok=True)
        budget = f"{args.minutes:g} minutes" if args.minutes else f"{args.steps} steps"
        settings = {"pairs": args.pairs.name, "n": len(lab.pairs), "budget": budget, "threads": torch.get_num_threads()}
        kept = _rows(args.out, settings) if args.only else {}
        rows: dict[str, dict[str, Any]] = {"input": lab.scores([p.noisy for p in lab.pairs])}
        for name, make in ways(lab).items():
            rows[name] = lab.scores(make())
            print(name, rows[name], flush=True)
            result = {"machine": describe(), "settings": settings, "rows": [{"way": way} | r for way, r in (kept | rows).items()]}
            write_json(args.out, result)  # way by way: each may take an hour
    print(render("camera", result))


if __name__ == "__main__":
    main()
