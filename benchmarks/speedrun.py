"""Time from noisy images to a PSNR target: `python -m benchmarks.speedrun TRACK [--train CLEAN --test CLEAN] [--record]`.

Rules. The clock starts with the noisy training images decoded in host memory and stops when the weights file is written: data upload,
compilation, checkpoints, labelling and both trainings count; reading files, making the noise and the evaluation do not.
Training sees noisy images only, each with one frozen copy of the noise, and no test image. The recipe and its budget are fixed
before the run: no stopping at the target. A record is the mean time over the track's seeds, and counts if the mean PSNR of their last
weights reaches the target. `--record` appends it to benchmarks/results/speedrun.json, which is committed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.harness.machine import ROOT, describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import load_clean
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.io.atomic import write_json
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, TeacherConfig, fit, train_teacher

NOISE = parse_noise("gaussian:25")
LOG = ROOT / "benchmarks" / "results" / "speedrun.json"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # of scikit-image; `camera` is the test


class Track(NamedTuple):
    """target: PSNR in dB of `result` ("teacher": posterior mean, or "student"). Budget: steps of both trainings together."""

    target: float
    result: str
    steps: int
    seeds: tuple[int, ...]
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()


TRACKS = {
    # Without data folders: photographs that scikit-image ships. The noisy `camera` has 20.17 dB.
    "ci": Track(23.5, "student", 400, (0,), TeacherConfig(channels=16, modules=1, crop=32), StudentConfig(channels=12, depth=3, crop=32)),
    "minutes": Track(26.2, "student", 1600, (0, 1), TeacherConfig(channels=16, modules=2, crop=48), StudentConfig(channels=24, crop=64)),
    # BSD68 after BSDS500: the student past BM3D on a CPU; the paper's teacher and its student on a GPU.
    "bm3d": Track(28.57, "student", 24000, (0,)),
    "teacher": Track(28.88, "teacher", 60000, (0, 1, 2), TeacherConfig(variant="paper", channels=96, modules=8, batch=16)),
    "student": Track(29.38, "student", 120000, (0, 1, 2), TeacherConfig(variant="paper", channels=96, modules=8, batch=16)),
}


def photographs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Gray training and test images [1, H, W] in [0, 1] that need no download."""
    from skimage import color, data

    train = [color.rgb2gray(getattr(data, name)()) for name in PHOTOGRAPHS]
    return [x[None].clip(0, 1) for x in train], [data.camera()[None, 128:384, 128:384] / 255.0]


def train(track: Track, noisy: list[np.ndarray], seed: int, device: str, folder: Path) -> Path:
    """The timed part."""
    if track.result == "student":
        path = folder / "student.safetensors"
        fit(
            noisy,
            steps=track.steps,
            seed=seed,
            device=device,
            workdir=folder,
            output=path,
            teacher=track.teacher,
            student=track.student,
        )
        return path
    return train_teacher(
        ImageSet.from_arrays(noisy), folder / "teacher.safetensors", LoopConfig(track.steps, seed=seed), track.teacher, device
    ).path


def score(path: Path, test: list[np.ndarray], device: str) -> float:
    d = Denoiser.from_pretrained(path, device=device)
    outputs = [d(NOISE.add(x, 0), channel_axis=0, data_range=1.0) for x in test]
    return float(np.mean([psnr(x, np.clip(y, 0, 1)) for x, y in zip(test, outputs, strict=True)]))


def run(name: str, train_folder: Path | None, test_folder: Path | None, device: str) -> dict[str, Any]:
    track = TRACKS[name]
    if train_folder and test_folder:
        clean, test = ([x for _, x in load_clean(folder, 1)] for folder in (train_folder, test_folder))
    else:
        clean, test = photographs()
    seconds, values = [], []
    for seed in track.seeds:
        noisy = [NOISE.add(x, 1000 * seed + i).transpose(1, 2, 0).astype(np.float16) for i, x in enumerate(clean)]
        with tempfile.TemporaryDirectory(prefix="fastbsn-speedrun-") as folder:
            start = time.perf_counter()
            path = train(track, noisy, seed, device, Path(folder))
            seconds.append(round(time.perf_counter() - start, 1))
            values.append(round(score(path, test, device), 3))
        print(f"seed {seed}: {values[-1]:.3f} dB after {seconds[-1]:.1f} s", file=sys.stderr)
    found = describe()
    return {
        "track": name,
        "target": track.target,
        "psnr": round(float(np.mean(values)), 3),
        "seconds": round(float(np.mean(seconds)), 1),
        "seeds": list(track.seeds),
        "psnr_of_each": values,
        "seconds_of_each": seconds,
        "steps": track.steps,
        "images": [len(clean), len(test)],
        "hardware": found.get("gpu", found["cpu"]),
        "packages": found["packages"],
        "commit": found["commit"],
        "date": found["date"],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speedrun", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("track", choices=TRACKS)
    parser.add_argument("--train", type=Path, help="folder of clean training images")
    parser.add_argument("--test", type=Path, help="folder of clean test images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--record", action="store_true", help="append to the log")
    parser.add_argument("--log", type=Path, default=LOG, help="%(default)s")
    args = parser.parse_args(argv)
    if args.track not in ("ci", "minutes") and not (args.train and args.test):
        parser.error(f"track {args.track} needs --train and --test folders")
    entry = run(args.track, args.train, args.test, args.device)
    log = json.loads(args.log.read_text()) if args.log.exists() else {"runs": []}
    log["runs"].append(entry)
    if args.record:
        args.log.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.log, log)
    print(render("speedrun", {"runs": [entry]}))
    return int(entry["psnr"] < entry["target"])


if __name__ == "__main__":
    sys.exit(main())
