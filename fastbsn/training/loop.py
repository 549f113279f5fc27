"""The training loop: one function, the same for teacher and student.

Budget in steps or minutes; learning rates follow the fraction of the budget that is used. Writes, in `<output>.run/`:
checkpoint.safetensors, log.csv, preview.png, curve.png; and at the end `output` itself with the averaged weights.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastbsn import ops
from fastbsn.backends.device import slow_bf16
from fastbsn.errors import Interrupted, TrainingError
from fastbsn.io.image_files import write_image
from fastbsn.io.weights import load_networks, save_networks
from fastbsn.signals import stop_on_signals
from fastbsn.training import checkpoint
from fastbsn.training.identity import check_identity
from fastbsn.training.monitor import CsvLog, draw_curve, tensorboard_writer
from fastbsn.training.muon import Muon
from fastbsn.training.ranks import join
from fastbsn.training.step import EagerStep, GraphedStep

logger = logging.getLogger("fastbsn")
EMA_SHARE = 0.03  # the average looks back at most this fraction of the steps so far


@dataclass(frozen=True)
class LoopConfig:
    """Budget and optimizer.

    steps, minutes: exactly one is given. lr: peak learning rate (see `Muon`). ema: largest decay of the weight average. seed: of every
    draw. checkpoint_seconds: between checkpoints. log_steps: between log lines.
    """

    steps: int | None = None
    minutes: float | None = None
    lr: float = 1e-3
    ema: float = 0.999
    seed: int = 0
    checkpoint_seconds: float = 60.0
    log_steps: int = 50

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError(f"budget: got steps={self.steps}, minutes={self.minutes}; give exactly one of them")
        if (self.steps or self.minutes or 0) <= 0:
            raise TrainingError(f"budget: got steps={self.steps}, minutes={self.minutes}; expected more than 0")

    def progress(self, step: int, seconds: float, spent: float = 0.0) -> float:
        """Fraction of the budget that is used; of minutes, what is left after `spent` seconds, but no less than a tenth."""
        if self.steps:
            return min(1.0, step / self.steps)
        total = 60 * (self.minutes or 1)
        return min(1.0, seconds / max(total - spent, 0.1 * total))


class Progress(NamedTuple):
    """Where a run is: "teacher", "labels" or "student"; fraction of this stage; step or image; latest mean loss, if there is one."""

    stage: str
    fraction: float
    step: int
    loss: float | None = None


Callback = Callable[[Progress], None]


class Trained(NamedTuple):
    """Weights file, the networks in it (evaluation mode, on the CPU) and its header."""

    path: Path
    networks: dict[str, nn.Module]
    header: dict[str, Any]


class Task(Protocol):
    """What is trained: networks, batches, a loss that depends on the objective, learning-rate factors, and a picture of how it goes."""

    networks: dict[str, nn.Module]
    config: dict[str, Any]

    def batch(self, step: int, places: torch.Generator, noise: torch.Generator) -> tuple[Tensor, ...]: ...
    def objective(self, progress: float) -> str: ...
    @property
    def loss(self) -> Callable[..., Tensor]: ...  # (objective, *batch) -> scalar
    def factors(self, progress: float) -> dict[str, float]: ...
    def preview(self, networks: dict[str, nn.Module]) -> np.ndarray: ...


def warmup_cosine(progress: float, start: float = 0.0, end: float = 1.0, warmup: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine to zero at `end`; zero outside [start, end]."""
    t = (progress - start) / (end - start)
    if t < 0 or t > 1:
        return 0.0
    return max(t / warmup, 1e-3) if t < warmup else 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):  # a captured graph reads it
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _layout(device: torch.device, networks: Iterable[str]) -> torch.memory_format:
    """Channels last, but for students on CPUs without fast bfloat16: with channels first their weights' gradients take half as long, a
    step 0.73 times (PyTorch 2.13, AVX2); a step of the light teacher would take 1.17 times."""
    slow = device.type == "cpu" and slow_bf16(device) is not None
    return torch.contiguous_format if slow and "student" in networks else torch.channels_last


def _place(net: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    return net.to(device=device).to(memory_format=layout).train()  # type: ignore[call-overload]


@torch.no_grad()
def _update_average(average: dict[str, nn.Module], networks: dict[str, nn.Module], decay: float) -> None:
    for name, net in networks.items():
        torch._foreach_lerp_(list(average[name].parameters()), list(net.parameters()), 1 - decay)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast where the device is fast at bf16, otherwise an autocast that does nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=slow_bf16(device) is None)


def run(
    task: Task,
    config: LoopConfig,
    output: Path,
    device: torch.device,
    header: dict[str, Any] | None = None,
    progress: bool = True,
    callback: Callback | None = None,
    backend: str = "auto",
    spent: float = 0.0,
) -> Trained:
    """Train until the budget is used, resuming from a checkpoint of the same run; where the run has finished before, return its result.

    A run is what `task.config` (with digests of the data) and `config` say. On a GPU the whole step (forward, backward, optimizer) is
    one CUDA graph.

    Args:
        output: safetensors file to write; its header holds configuration, seconds, steps and `header`.
        callback: called after every step; what it raises ends the training, and the checkpoint is written first.
        backend: implementation of the operations, see `ops.backend`.
        spent: seconds of a budget in minutes that are used before the first step.

    Returns:
        The averaged networks.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the checkpoint was written first.
        TrainingError: the loss became non-finite, or a file of another run is in the way.
    """
    ranks = join()
    ranks.meet()
    folder = output.with_name(output.name + ".run")
    folder.mkdir(parents=True, exist_ok=True)
    ckpt = folder / "checkpoint.safetensors"
    settings = {"task": task.config, "loop": asdict(config)}
    if output.exists():
        found, written = load_networks(output)
        check_identity(output, written.get("config", {}), settings)
        logger.info("%s: this run has finished before", output)
        return Trained(output, found, written)
    layout = _layout(device, task.networks)
    networks = {n: _place(net, device, layout) for n, net in task.networks.items()}
    average = {n: copy.deepcopy(net).eval().requires_grad_(False) for n, net in networks.items()}
    groups = [{"params": list(net.parameters()), "name": name} for name, net in networks.items()]
    gpu = device.type == "cuda"
    optimizer = Muon(groups, torch.tensor(config.lr, device=device) if gpu else config.lr)
    train_step = (GraphedStep if gpu else EagerStep)(task.loss, optimizer, ranks)
    generators = {"places": torch.Generator().manual_seed(config.seed), "noise": torch.Generator(device).manual_seed(config.seed + 1)}
    step, seconds, stage = 0, 0.0, next(iter(networks))
    latest: float | None = None
    if ckpt.exists():
        state = checkpoint.load(ckpt, networks, average, optimizer, generators, settings)
        step, seconds, spent = int(state["step"]), float(state["seconds"]), float(state.get("spent", 0.0))
        logger.info("%s: going on at step %d", ckpt, step)
        if (threads := state.get("threads")) != torch.get_num_threads():
            warnings.warn(f"the checkpoint was written with {threads} threads: training goes on, but not bit for bit", stacklevel=2)
    start, spent = ranks.of_first(step, spent)
    if start != step:
        raise TrainingError(f"rank {ranks.rank} is at step {step} and rank 0 at {start}; expected one {folder} that all ranks see")
    log = CsvLog(folder / "log.csv", ("step", "seconds", "loss", "lr"), keep_until=step) if ranks.first else None
    board = tensorboard_writer(folder) if ranks.first else None

    def save() -> None:
        if not ranks.first:
            return
        position = {"step": step, "seconds": seconds, "spent": spent, "threads": torch.get_num_threads()}
        checkpoint.save(ckpt, networks, average, optimizer, generators, {"config": settings, **position})
        write_image(folder / "preview.png", task.preview(average))
        draw_curve(folder / "log.csv", folder / "curve.png")

    bar = tqdm(
        total=1.0,
        initial=config.progress(step, seconds, spent),
        disable=None if progress and ranks.first else True,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    )
    losses: list[Tensor] = []
    with stop_on_signals() as stop, ops.backend(backend), bar:
        clock = last_save = time.monotonic()
        while (fraction := config.progress(step, seconds, spent)) < 1:
            factors = task.factors(fraction)
            for group in optimizer.param_groups:
                _set_rate(group, config.lr * factors[group["name"]])
            batch = task.batch(step, generators["places"], generators["noise"])
            loss = train_step(task.objective(fraction), tuple(x.contiguous(memory_format=layout) for x in batch))
            step += 1
            _update_average(average, networks, min(config.ema, 1 - 1 / (1 + EMA_SHARE * step)))
            losses.append(loss)
            now = time.monotonic()
            seconds, clock = seconds + now - clock, now
            if step % config.log_steps == 0:
                mean = float(torch.stack(losses).mean())
                losses.clear()
                if not math.isfinite(mean):
                    raise TrainingError(
                        f"loss is {mean} at step {step}; expected a finite number: lower the learning rate (now {config.lr})"
                    )
                latest = mean
                if log:
                    log.write(step, round(seconds, 1), mean, max(float(g["lr"]) for g in optimizer.param_groups))
                if board:
                    board.add_scalar("loss", mean, step)
                bar.set_postfix_str(f"step {step}, {step / max(seconds, 1e-9):.2f} steps/s, loss {mean:.5f}", refresh=False)
                bar.update(config.progress(step, seconds, spent) - bar.n)
            if callback:
                try:
                    callback(Progress(stage, config.progress(step, seconds, spent), step, latest))
                except BaseException:
                    save()
                    raise
            seconds, stopped = ranks.total(seconds if ranks.first else 0.0, bool(stop))
            if stopped or now - last_save > config.checkpoint_seconds:
                save()
                last_save = time.monotonic()
            if stopped:
                message = f"stopped at step {step}; checkpoint written to {ckpt}: run the same command again to go on"
                raise Interrupted(message, stop.signal or signal.SIGTERM)
    save()
    written = {"config": settings, "seconds": round(seconds, 1), "steps": step, **(header or {})}
    if ranks.first:
        save_networks(output, average, written)
    ranks.meet()  # the others come back to a file that is there
    return Trained(output, {n: _place(net, torch.device("cpu"), torch.contiguous_format).eval() for n, net in average.items()}, written)
