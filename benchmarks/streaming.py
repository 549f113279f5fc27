"""Students from label shards that are larger than memory, beside students that have all labels in memory.

    python -m benchmarks.streaming --out benchmarks/results/streaming.json

Images are dead leaves (overlapping discs; Lee, Mumford and Huang, IJCV 2001), gray, with noise of sigma 25, in tar files; `gray-awgn`
labels them. For every seed a student is trained twice, by as many steps: with all labels in memory, and with memory for some of the
tar files. PSNR is of images that are in none of them. Steps per second leave out the first steps. Agreement: the mean PSNR of the
streaming students differs from that of the others by no more than these differ among each other (largest - smallest). To be run on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.machine import describe
from fastbsn.io.atomic import write_json
from fastbsn.io.tars import tar_bytes
from fastbsn.labelling import generate
from fastbsn.training import LoopConfig, StudentConfig, distill
from fastbsn.training.label_files import LabelFiles
from fastbsn.training.labels import LabelSet
from fastbsn.training.rotation import Rotation

SIGMA = 25  # of 255


@dataclass(frozen=True)
class Scale:
    """tars of `images` images each, with sides in the range; memory: tar files that fit. warm: steps that are not timed."""

    tars: int
    images: int
    sides: tuple[int, int]
    memory: int
    held_out: int
    steps: int
    warm: int
    channels: int
    crop: int


SCALES = {
    "tiny": Scale(8, 2, (40, 56), 4, 2, 12, 4, 6, 32),
    "full": Scale(40, 5, (96, 160), 4, 12, 400, 40, 18, 64),
}


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """[height, width] float32 in [0, 1]: discs of any gray over each other, with radii whose density falls as r^-3."""
    image = np.full((height, width), 0.5, np.float32)
    radii = 1 / np.sqrt(rng.uniform(1 / 60**2, 1 / 2**2, height * width // 16))
    for r, x, y, gray in zip(radii, *rng.uniform(0, [[width], [height], [1]], (3, len(radii))), strict=True):
        cv2.circle(image, (int(x), int(y)), int(r), float(0.05 + 0.9 * gray), -1)
    return cv2.GaussianBlur(image, (3, 3), 0.5)


def noisy_image(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A clean image, and a noisy one in 8 bits."""
    clean = dead_leaves(rng, *rng.integers(*sides, 2))
    noisy = clean + rng.normal(0, SIGMA / 255, clean.shape)
    return clean, np.rint(noisy.clip(0, 1) * 255).astype(np.uint8)


def make(folder: Path, s: Scale) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tar files of noisy images in folder/noisy, their labels in folder/labels; gives what is held out."""
    rng = np.random.default_rng(0)
    (folder / "noisy").mkdir()
    for i in range(s.tars):
        encoded = [cv2.imencode(".png", noisy_image(rng, s.sides)[1])[1].tobytes() for _ in range(s.images)]
        (folder / "noisy" / f"{i:05}.tar").write_bytes(tar_bytes((f"{k}.png", data) for k, data in enumerate(encoded)))
    generate(folder / "noisy", folder / "labels", "gray-awgn", progress=False)
    return [noisy_image(rng, s.sides) for _ in range(s.held_out)]


def psnr(student: nn.Module, images: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean PSNR in dB, data range 1, of the output clipped to [0, 1]."""
    found = []
    with torch.no_grad():
        for clean, noisy in images:
            out: Tensor = student(torch.from_numpy(noisy)[None, None] / 255)[0, 0].clip(0, 1)
            found.append(-10 * np.log10(float(((out.numpy() - clean) ** 2).mean())))
    return float(np.mean(found))


def train(labels: LabelSet | Rotation, output: Path, seed: int, s: Scale) -> tuple[nn.Module, float]:
    """A student, and the steps per second after the first ones."""
    times: list[float] = []
    loop = LoopConfig(steps=s.steps, seed=seed, log_steps=s.steps)
    config = StudentConfig(channels=s.channels, depth=3, batch=4, crop=s.crop)
    made = distill(labels, output, loop, config, progress=False, callback=lambda now: times.append(time.perf_counter()))
    assert len(times) >= s.steps, f"{len(times)} callbacks for {s.steps} steps"
    return made.networks["student"], (s.steps - s.warm) / (times[s.steps - 1] - times[s.warm - 1])


def run(scale: str, seeds: int) -> dict[str, Any]:
    s = SCALES[scale]
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        held_out = make(folder, s)
        files = LabelFiles(folder / "labels")
        sizes: dict[str, int] = {}
        for entry in files.entries:
            tar = entry.label.partition("/")[0]
            sizes[tar] = sizes.get(tar, 0) + entry.nbytes
        memory = s.memory * max(sizes.values())
        for seed in range(seeds):
            row: dict[str, float] = {"seed": seed}
            for kind in ("memory", "streaming") if seed % 2 == 0 else ("streaming", "memory"):
                labels = LabelSet.open(folder / "labels") if kind == "memory" else Rotation(LabelFiles(folder / "labels"), memory, seed)
                student, row[f"{kind}_steps_s"] = train(labels, folder / f"{kind}{seed}.safetensors", seed, s)
                row[f"{kind}_psnr"] = psnr(student, held_out)
                if isinstance(labels, Rotation):
                    row["turns"] = (s.steps - 1) // labels.steps_per_turn
                    assert len(labels.chunks) == s.tars and labels.resident + 1 == s.memory
            rows.append(row)
    inside, outside = ([r[f"{kind}_psnr"] for r in rows] for kind in ("memory", "streaming"))
    noisy = [-10 * np.log10(float(((y / 255 - x) ** 2).mean())) for x, y in held_out]
    return {
        "machine": describe(),
        "scale": scale,
        "tars": len(sizes),
        "tars_in_memory": s.memory,
        "label_bytes": sum(sizes.values()),
        "memory_bytes": memory,
        "steps": s.steps,
        "rows": rows,
        "input_psnr": float(np.mean(noisy)),
        "memory_psnr": float(np.mean(inside)),
        "streaming_psnr": float(np.mean(outside)),
        "spread": max(inside) - min(inside),
        "difference": float(np.mean(outside) - np.mean(inside)),
        "speed": float(np.median([r["streaming_steps_s"] / r["memory_steps_s"] for r in rows])),
    }


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", choices=tuple(SCALES), default="full")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--out", type=Path, help="JSON file")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    result = run(args.scale, args.seeds)
    for row in result["rows"]:
        print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(f"difference {result['difference']:+.3f} dB, spread of seeds {result['spread']:.3f} dB, speed {result['speed']:.3f}")
    if args.out:
        write_json(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
