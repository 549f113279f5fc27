"""Device time: events on a GPU, wall clock elsewhere; versions take turns, so that drift touches all of them alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Run = Callable[[Any], Any]
SHORTEST = 1e-3  # seconds of device time per sample; shorter calls are timed in groups
MAX_GROUP = 64


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sample(run: Run, inputs: Sequence[Any], device: torch.device, wall: bool = False) -> float:
    """Seconds per call, one call per input, in a row.

    Args:
        run: the version.
        inputs: its arguments.
        device: events are used on a GPU.
        wall: measure until the host has the result, even on a GPU.
    """
    synchronize(device)
    if device.type == "cuda" and not wall:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for x in inputs:
            run(x)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / len(inputs)
    t = time.perf_counter()
    for x in inputs:
        run(x)
    synchronize(device)
    return (time.perf_counter() - t) / len(inputs)


def interleave(
    runs: Mapping[str, Run], inputs: Sequence[Any], device: torch.device, seconds: float, rounds: int = 5, wall: bool = False
) -> dict[str, list[float]]:
    """Samples of every version, taken in turns and in changing order, over rotating inputs.

    Args:
        runs: versions, warmed up.
        inputs: in rotation; on a GPU more than its L2 cache holds.
        device: see `sample`.
        seconds: to spend; at least `rounds` samples of each version are taken whatever it costs.
        rounds: least number of samples of each version.
        wall: see `sample`.
    """
    names, position = list(runs), 0
    group = {}
    for name in names:
        once = sample(runs[name], inputs[:1], device, wall)
        group[name] = min(MAX_GROUP, max(1, math.ceil(SHORTEST / once))) if device.type == "cuda" else 1
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting, start, done = gc.isenabled(), time.perf_counter(), 0
    gc.disable()
    try:
        while names and (done < rounds or time.perf_counter() - start < seconds):
            for name in names[done % len(names) :] + names[: done % len(names)]:
                turn = [inputs[(position + i) % len(inputs)] for i in range(group[name])]
                position += group[name]
                samples[name].append(sample(runs[name], turn, device, wall))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return samples


def statistics(samples: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, p20 and p80, and the number of samples."""
    p20, median, p80 = (float(v) * 1e3 for v in np.percentile(samples, (20, 50, 80)))
    return {"ms": round(median, 4), "p20": round(p20, 4), "p80": round(p80, 4), "n": len(samples)}


def peak_mib(run: Run, x: Any, device: torch.device) -> float | None:
    """Device memory of one call above what was allocated before it, in MiB; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(x)
    synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)
