"""What each part of the method is worth, in one command: the same small budget for every training, the gain in dB.

    python -m benchmarks.ablation --clean bsds500/train --test bsd68 --pairs polyu --work RUNS --steps 4000

Trains on frozen noisy copies of the clean folder (gray), judges on the test folder with fresh noise, and, for correlated noise, trains
and judges on the pairs (NAME_real.*, NAME_mean.*). Run again after an interruption: finished trainings and rows in --work are kept.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.machine import ROOT, describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import Pair, load_clean, load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.inference.refine import denoise_correlated
from fastbsn.io.atomic import write_json
from fastbsn.io.weights import load_networks
from fastbsn.training import LoopConfig, StudentConfig, TeacherConfig, distill, train_teacher
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet, load_teacher

GAUSSIAN, SIGNAL_DEPENDENT, PHOTONS, REAL = "gaussian:25", "hg:40,10", "poisson:30", "real"
QUESTIONS = ("blind spot", "Bayes", "distillation", "supervision", "noise model", "downsampling", "refinement")
Estimator = Callable[[Tensor], Tensor]  # [1, C, H, W] -> the same


class Lab:
    """Data, trainings kept in a folder, and scores."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.work = args, args.work
        budget = {"steps": args.steps} if args.steps else {"minutes": args.minutes}
        self.loop = LoopConfig(**budget, seed=args.seed)
        small = {"channels": 8, "modules": 1, "crop": 32, "batch": 2} if args.tiny else {}
        self.teacher_config = functools.partial(TeacherConfig, **small)
        student = {"channels": 6, "crop": 32, "batch": 2} if args.tiny else {}
        self.student_config = functools.partial(StudentConfig, **student)

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        found = list(load_pairs(self.args.pairs))
        n = min(self.args.pairs_limit or len(found), len(found))
        return [found[i * len(found) // n] for i in range(n)]  # spread over the cameras

    @functools.cached_property
    def clean(self) -> list[np.ndarray]:  # each [1, H, W]
        return [x for _, x in load_clean(self.args.clean, 1)][: self.args.images]

    @functools.cached_property
    def test(self) -> list[np.ndarray]:
        return [x for _, x in load_clean(self.args.test, 1)][: self.args.test_images]

    @functools.lru_cache(maxsize=2)  # noqa: B019 - one Lab lives as long as the process
    def noisy(self, noise: str) -> ImageSet:
        """Training images with the noise they have for ever."""
        if noise == REAL:
            return ImageSet.from_arrays([_stored(p.noisy) for p in self.pairs])
        spec = parse_noise(noise)
        return ImageSet.from_arrays([_stored(spec.add(x, self.args.seed + i)) for i, x in enumerate(self.clean)])

    def teacher(self, name: str, trained_on: str, **config: Any) -> Path:
        path = self.work / f"{name}.safetensors"
        if not path.exists():
            train_teacher(self.noisy(trained_on), path, self.loop, self.teacher_config(**config), self.args.device)
        return path

    def student(self, name: str, labels: Callable[[], LabelSet], **config: Any) -> Path:
        path = self.work / f"{name}.safetensors"
        if not path.exists():
            distill(labels(), path, self.loop, self.student_config(**config), device=self.args.device)
        return path

    def labels(self, teacher: Path, noise: str) -> LabelSet:
        return LabelSet.compute(load_teacher(teacher, self.args.device), self.noisy(noise))

    def truth(self) -> LabelSet:
        """Perfect labels: the clean images themselves, so that supervised training differs in nothing else."""
        images = ImageSet.from_arrays([_stored(x) for x in self.clean])
        n, sigma = len(images.images), parse_noise(GAUSSIAN).values[0] / 255
        return LabelSet(images, [sigma] * n, [0.0] * n, "gaussian", noisy=self.noisy(GAUSSIAN), digest="clean")

    @torch.inference_mode()
    def score(self, estimate: Estimator, noise: str) -> float:
        """Mean PSNR in dB over the test images; synthetic noise from the seed 0 anew for every image."""
        if noise == REAL:
            items = [(p.clean, p.noisy) for p in self.pairs]
        else:
            items = [(x, parse_noise(noise).add(x, 0)) for x in self.test]
        outputs = [estimate(torch.from_numpy(y)[None].to(self.args.device))[0].float().cpu().numpy() for _, y in items]
        return float(np.mean([psnr(x, np.clip(z, 0, 1)) for (x, _), z in zip(items, outputs, strict=True)]))


def _stored(x: np.ndarray) -> np.ndarray:
    return x.transpose(1, 2, 0).astype(np.float16)


def mu(path: Path, device: str) -> Estimator:
    teacher = load_networks(path)[0]["teacher"].to(device)
    return lambda y: teacher(y)[0]


def denoiser(path: Path, device: str) -> Estimator:
    d = Denoiser.from_pretrained(path, device=device)
    return lambda y: d(y[0], channel_axis=0, data_range=1.0)[None]


def experiments(lab: Lab) -> list[tuple[str, str, str, str | None, Callable[[], Estimator]]]:
    """(question, estimate, noise, compared with, how to make it), in the order in which they are trained."""
    on = lab.args.device
    dilated = functools.partial(lab.teacher, "teacher-dilated", GAUSSIAN)
    plain = functools.partial(lab.teacher, "teacher-plain", GAUSSIAN, blind_spot="plain")

    def student() -> Estimator:
        return denoiser(lab.student("student", lambda: lab.labels(dilated(), GAUSSIAN)), on)

    found: list[tuple[str, str, str, str | None, Callable[[], Estimator]]] = [
        ("blind spot", "plain, mu", GAUSSIAN, None, lambda: mu(plain(), on)),
        ("blind spot", "dilated, mu", GAUSSIAN, "plain, mu", lambda: mu(dilated(), on)),
        ("Bayes", "posterior mean", GAUSSIAN, "dilated, mu", lambda: denoiser(dilated(), on)),
        ("distillation", "student", GAUSSIAN, "posterior mean", student),
        ("supervision", "same U-Net, clean targets", GAUSSIAN, "student", lambda: denoiser(lab.student("supervised", lab.truth), on)),
    ]
    for noise in (SIGNAL_DEPENDENT, PHOTONS):
        for kind in ("gaussian", "heteroscedastic"):
            train = functools.partial(lab.teacher, f"teacher-{noise.split(':')[0]}-{kind}", noise, noise=kind)
            versus = "gaussian posterior" if kind == "heteroscedastic" else None
            found.append(("noise model", f"{kind} posterior", noise, versus, lambda train=train: denoiser(train(), on)))
    if lab.args.pairs:
        found += real_experiments(lab)
    return found


def real_experiments(lab: Lab) -> list[tuple[str, str, str, str | None, Callable[[], Estimator]]]:
    on = lab.args.device
    without = functools.partial(lab.teacher, "teacher-real-1", REAL, noise="correlated", stride=1)
    with_pd = functools.partial(lab.teacher, "teacher-real", REAL, noise="correlated")

    def correlated(path: Callable[[], Path], downsample: bool, refine: bool) -> Estimator:
        return functools.partial(denoise_correlated, mu(path(), on), downsample=downsample, refine=refine)

    def student() -> Estimator:
        return denoiser(lab.student("student-real", lambda: lab.labels(with_pd(), REAL), renoised=0.0), on)

    return [
        ("downsampling", "noisy input", REAL, None, lambda: lambda y: y),
        ("downsampling", "no PD", REAL, "noisy input", lambda: correlated(without, False, False)),
        ("downsampling", "PD", REAL, "no PD", lambda: correlated(with_pd, True, False)),
        ("refinement", "PD + R3", REAL, "PD", lambda: correlated(with_pd, True, True)),
        ("refinement", "student of PD + R3", REAL, "PD + R3", student),
    ]


def settings(lab: Lab) -> dict[str, Any]:
    args = lab.args
    budget = f"{args.steps} steps" if args.steps else f"{args.minutes:g} minutes"
    found = {"budget": budget, "images": len(lab.clean), "test": len(lab.test), "seed": args.seed, "tiny": args.tiny}
    return found | ({"pairs": len(lab.pairs)} if args.pairs else {})


def run(lab: Lab, questions: tuple[str, ...]) -> dict[str, Any]:
    lab.work.mkdir(parents=True, exist_ok=True)
    state, now = lab.work / "rows.json", settings(lab)
    kept = json.loads(state.read_text()) if state.exists() else {"settings": now, "psnr": {}}
    if kept["settings"] != now:
        raise SystemExit(f"{lab.work} holds runs of {kept['settings']}, and this is {now}; use another --work folder")
    rows = []
    for question, name, noise, versus, make in experiments(lab):
        if question not in questions:
            continue
        key = f"{name}, {noise}"
        if key not in kept["psnr"]:
            kept["psnr"][key] = round(lab.score(make(), noise), 4)
            write_json(state, kept)
        base = kept["psnr"].get(f"{versus}, {noise}") if versus else None
        gain = None if base is None else round(kept["psnr"][key] - base, 4)
        rows.append({"question": question, "name": name, "noise": noise, "psnr": kept["psnr"][key], "versus": versus, "gain": gain})
        print(rows[-1], flush=True)
    return {"machine": describe(), "settings": now, "rows": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean training images")
    parser.add_argument("--test", type=Path, required=True, help="folder of clean test images")
    parser.add_argument("--pairs", type=Path, help="folder of real pairs; without it the rows on correlated noise are left out")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the runs")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=int, help="of every training")
    budget.add_argument("--minutes", type=float, help="of every training")
    parser.add_argument("--images", type=int, help="number of training images; default all")
    parser.add_argument("--test-images", type=int, help="number of test images; default all")
    parser.add_argument("--pairs-limit", type=int, help="number of pairs, trained on and judged; default all")
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=QUESTIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="networks of a few channels: a dry run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "local" / "ablation.json", help="%(default)s")
    args = parser.parse_args(argv)
    result = run(Lab(args), tuple(args.questions))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(render("ablation", result))


if __name__ == "__main__":
    main()
