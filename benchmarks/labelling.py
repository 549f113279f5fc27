"""Labels at scale, as ratios of one run: the engine over the bare network, two processes over one, memory over the number of images.

    python -m benchmarks.labelling --out benchmarks/results/labelling.json [--scale cpu --repeat 1 --add]

Rates are Mpixel/s with one thread per process on a CPU, with the GPU where there is one. *bare* computes the engine's own windows from
memory, writes nothing, and takes turns with the engine; *one by one* reads, labels and writes every fourth image, one after another;
*workers* are processes that have a core each.
Ratios of processor time leave out what else the machine does: *engine over bare* compares the thread that runs the network, *two over
one* twice all time of one process with that of two which run at the same time, per pixel; *measuring over bare* is what the noise of the
images takes, on the other core, of what the network takes. Memory is the peak of a process of its own. The
teacher has random weights. To be run on a machine that does nothing else; --add keeps
the rounds that the file has, so that a round may be a run of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastbsn.labelling.caches  # isort: skip  # noqa: F401 - before PyTorch
import numpy as np
import torch

from benchmarks.harness.images import SIGMA, photograph
from benchmarks.harness.machine import ROOT, describe
from benchmarks.subjects.networks import teacher
from fastbsn.inference.frames import Frames
from fastbsn.io.atomic import write_json
from fastbsn.io.image_files import read_image, write_image
from fastbsn.io.storage import open_storage
from fastbsn.io.weights import save_networks, save_tensors
from fastbsn.labelling import Labeller, Options
from fastbsn.labelling.inputs import list_units
from fastbsn.labelling.windows import Picture, Windows
from fastbsn.nets import NoiseModel
from fastbsn.pixels import white
from fastbsn.training.imageset import to_tensor
from fastbsn.training.labels import label_image, label_levels

SIDES = {"tiny": (40, 72), "cpu": (96, 320), "full": (256, 768)}  # pixels on a side, from and to
WIDTH = {"tiny": 16, "cpu": 32, "full": 48}
MEMORY_WIDTH = 8
REPEAT, FACTOR, PART = 3, 8, 4  # rounds; times as many images for the peak of memory; one of so many images is labelled one by one
TURNS = 4  # parts of the images, on which *bare* and the engine take turns: other machines of a host come and go


def make(folder: Path, count: int, scale: str, width: int) -> list[list[int]]:
    """Noisy 8-bit colour images of mixed sizes in folder/noisy, the largest first, and a teacher of random weights; gives the sizes."""
    rng = np.random.default_rng(0)
    low, high = SIDES[scale]
    sizes = rng.integers(low, high + 1, (count, 2))
    sizes[0] = high
    (folder / "noisy").mkdir(parents=True)
    chosen: list[list[int]] = sizes.tolist()
    for i, (h, w) in enumerate(chosen):
        y = photograph(3, h, w).numpy().transpose(1, 2, 0) + rng.normal(0, SIGMA, (h, w, 3))
        write_image(folder / "noisy" / f"{i:05}.png", np.rint(y.clip(0, 1) * 255).astype(np.uint8))
    net = teacher("light", 3, width=width, modules=4)
    torch.manual_seed(0)
    networks = {"teacher": net, "noise_model": NoiseModel("gaussian", 3, net.feature_channels)}
    save_networks(folder / "teacher.safetensors", networks, {"kind": "teacher", "noise": "gaussian"})
    return chosen


def engine(source: Path, output: Path, model: Path, shard: tuple[int, int] = (0, 1)) -> dict[str, float]:
    """Pixels and seconds of the engine, and the share of them that the device computes."""
    labeller = Labeller(source, output, model, options=Options())
    units = list_units(open_storage(source))[shard[0] :: shard[1]]
    start, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    rows = list(labeller.run(units))
    seconds = time.perf_counter() - start
    assert len(rows) == len(units) and labeller.written == len(units)
    return {
        "pixels": labeller.windows.pixels,
        "seconds": seconds,
        "computing": labeller.windows.seconds / seconds,
        "thread_cpu": time.thread_time() - thread,
        "process_cpu": time.process_time() - process,
        "peak_bytes": peak(),
    }


def peak() -> int:
    """Bytes of memory that this process held at most; `ru_maxrss` would begin with those of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "/proc/self/status has no VmHWM; expected Linux"
    return int(found[1]) * 1024


def memory(count: int, scale: str) -> list[dict[str, int]]:
    """Peak of this process after so many images, and after eight times as many."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = make(folder, FACTOR * count, scale, MEMORY_WIDTH)
        labeller = Labeller(folder / "noisy", folder / "labels", folder / "teacher.safetensors")
        for n, _ in enumerate(labeller.run(list_units(labeller.source)), 1):
            if n in (count, FACTOR * count):
                found.append({"images": n, "sizes": len(set(map(tuple, sizes[:n]))), "peak_bytes": peak()})
    return found


def bare(source: Path, model: Path, shard: tuple[int, int] = (0, 1)) -> dict[str, float]:
    """The network on the engine's windows, from memory."""
    labeller = Labeller(source, source, model)
    images = [to_tensor(read_image(path)) for path in sorted(source.iterdir())[shard[0] :: shard[1]]]
    frames = [Frames(x, 3, "CYX", data_range=white(x)) for x in images]
    thread = time.thread_time()
    levels = [label_levels(labeller.job.predictor, f) for f in frames]
    measuring = time.thread_time() - thread
    windows = Windows(labeller.job)
    start, thread = time.perf_counter(), time.thread_time()
    for f, level in zip(frames, levels, strict=True):
        for _ in windows.add(Picture(None, f, level)):
            pass
    windows.flush()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    cpu = time.thread_time() - thread
    return {"pixels": windows.pixels, "seconds": time.perf_counter() - start, "thread_cpu": cpu, "measuring_cpu": measuring}


def by_turns(source: Path, output: Path, model: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """`bare` and `engine` on one part of the images after another, each of them first every other time."""
    plain, ours = [], []
    for part in range(TURNS):
        for ours_now in (part % 2 == 1, part % 2 == 0):
            if ours_now:
                ours.append(engine(source, output, model, (part, TURNS)))
            else:
                plain.append(bare(source, model, (part, TURNS)))
    return plain, ours


def one_by_one(source: Path, output: Path, model: Path) -> dict[str, float]:
    predictor, pixels = Labeller(source, output, model).job.predictor, 0
    output.mkdir()
    start = time.perf_counter()
    for path in sorted(source.iterdir())[::PART]:
        label = label_image(predictor, to_tensor(read_image(path))).label
        save_tensors(output / f"{path.name}.safetensors", {"label": label}, {})
        pixels += label.shape[1] * label.shape[2]
    return {"pixels": pixels, "seconds": time.perf_counter() - start}


def workers(source: Path, output: Path, model: Path, count: int) -> list[dict[str, float]]:
    """`engine` in processes of their own, all at the same time, each on a core of its own where the system allows that."""
    command = [sys.executable, "-m", "benchmarks.labelling", "--worker", str(source), str(output), str(model)]
    started = [subprocess.Popen([*command, f"{i}/{count}"], stdout=subprocess.PIPE, cwd=ROOT) for i in range(count)]
    return [json.loads(process.communicate()[0]) for process in started]


def pace(found: list[dict[str, float]]) -> float:
    """Mpixel/s of what ran one after the other."""
    return sum(f["pixels"] for f in found) / sum(f["seconds"] for f in found) / 1e6


def rate(found: list[dict[str, float]]) -> float:
    """Mpixel/s of what ran at the same time."""
    return sum(f["pixels"] for f in found) / max(f["seconds"] for f in found) / 1e6


def cost(found: list[dict[str, float]], what: str) -> float:
    """Processor seconds per pixel."""
    return sum(f[what] for f in found) / sum(f["pixels"] for f in found)


def run(scale: str, count: int, repeat: int, rounds: list[dict[str, float]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder / "whole", count, scale, WIDTH[scale])
        model = folder / "whole" / "teacher.safetensors"
        source = folder / "whole" / "noisy"
        for i in range(repeat):
            out = folder / f"out{i}"
            out.mkdir()
            plain, ours = by_turns(source, out / "engine", model)
            simple = one_by_one(source, out / "simple", model)
            one, two = workers(source, out / "one", model, 1), workers(source, out / "two", model, 2)
            rounds.append(
                {
                    "bare_mpixel_s": pace(plain),
                    "engine_mpixel_s": pace(ours),
                    "one_by_one_mpixel_s": pace([simple]),
                    "engine_over_bare": pace(ours) / pace(plain),
                    "engine_over_one_by_one": pace(ours) / pace([simple]),
                    "engine_over_bare_cpu": cost(plain, "thread_cpu") / cost(ours, "thread_cpu"),
                    "measuring_over_bare_cpu": cost(plain, "measuring_cpu") / cost(plain, "thread_cpu"),
                    "computing": float(np.mean([o["computing"] for o in ours])),
                    "one_worker_mpixel_s": rate(one),
                    "two_over_one": rate(two) / rate(one),
                    "two_over_one_cpu": 2 * cost(one, "process_cpu") / cost(two, "process_cpu"),
                    "label_bytes_per_pixel": sum(p.stat().st_size for p in (out / "one").rglob("*.safetensors")) / one[0]["pixels"],
                    "peak_bytes": one[0]["peak_bytes"],
                }
            )
    median = {key: float(np.median([r[key] for r in rounds])) for key in rounds[-1] if all(key in r for r in rounds)}
    return {
        "machine": describe(),
        "scale": scale,
        "images": count,
        "sides": list(SIDES[scale]),
        "width": WIDTH[scale],
        "rounds": rounds,
        "median": median,
    }


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=200)
    p.add_argument("--scale", choices=tuple(SIDES), default="full")
    p.add_argument("--repeat", type=int, default=REPEAT, help="rounds, of which the median is reported (%(default)s)")
    p.add_argument("--out", type=Path, help="JSON file")
    p.add_argument("--add", action="store_true", help="to the rounds that the file has")
    p.add_argument("--memory", action="store_true", help="only the peak of memory over the number of images, added to the file")
    p.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    if args.worker:
        source, output, model, shard = args.worker
        i, n = map(int, shard.split("/"))
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[i % len(cores)]})
        print(json.dumps(engine(Path(source), Path(output), Path(model), (i, n))))
        return 0
    if args.memory:
        found = memory(args.images, args.scale)
        print("\n".join(f"{row['images']:>7} images: {row['peak_bytes'] / 2**20:.0f} MiB" for row in found))
        if args.out:
            write_json(args.out, (json.loads(args.out.read_text()) if args.out.exists() else {}) | {"memory": found})
        return 0
    before: dict[str, Any] = json.loads(args.out.read_text()) if args.add and args.out.exists() else {"rounds": []}
    if before["rounds"] and (before["scale"], before["images"]) != (args.scale, args.images):
        p.error(f"--add: {args.out} has {before['images']} images of scale {before['scale']}; expected the same")
    result = {**before, **run(args.scale, args.images, args.repeat, before["rounds"])}
    for key, value in result["median"].items():
        print(f"{key:>26} {value:.3f}")
    if args.out:
        write_json(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
