"""One training step without the optimizer: loss and gradients of all weights, on 96 x 96 crops.

On a GPU the training loop captures its step in a CUDA graph, so the versions that decide are those with "graph": launched one by one,
a step of hundreds of small operations shows the speed of the host.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.images import noisy_batches
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.harness.timing import Run
from benchmarks.subjects.networks import flop_per_pixel, student, teacher
from benchmarks.subjects.rewrites import on_ops
from benchmarks.subjects.versions import graphed

CROP, CHANNELS = 96, 3
BATCH = {"tiny": 1, "cpu": 4, "gpu": 8, "full": 32}
NETS: dict[str, Callable[[bool], nn.Module]] = {
    "student": lambda small: student(CHANNELS, bundled=False)[0],
    "teacher light": lambda small: teacher("light", CHANNELS, **({"width": 16, "modules": 1} if small else {})),
    "teacher paper": lambda small: teacher("paper", CHANNELS, **({"width": 16, "modules": 1} if small else {})),
}


def _gradients(net: nn.Module, forward: Callable[[Tensor], Any], dtype: torch.dtype, y: Tensor) -> Tensor:
    """Gradients of mean (output - 1)^2 for all weights, as one vector: far from an optimum, where they would be all rounding."""
    net.zero_grad(set_to_none=True)
    with torch.autocast(y.device.type, dtype, enabled=dtype != torch.float32):
        output = forward(y)
    output = output[0] if isinstance(output, tuple) else output
    (output.float() - 1).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def _maker(
    dtype: torch.dtype, layout: torch.memory_format, ours: bool = False, mode: str | None = None, graph: bool = False
) -> Callable[[Any, torch.device], Run]:
    def make(net: nn.Module, device: torch.device) -> Run:
        copied = copy.deepcopy(net).to(device, memory_format=layout).train().requires_grad_(True)
        run = partial(_gradients, copied, torch.compile(copied, mode=mode, dynamic=False) if mode else copied, dtype)
        return on_ops("triton" if ours else "reference", run)

    return graphed(make) if graph else make


def _subject(name: str, batch: int, small: bool, device: torch.device) -> Subject:
    net = NETS[name](small)
    _, noisy = noisy_batches((batch, CHANNELS, CROP, CROP), device)
    pixels = batch * CROP**2
    flop = 3 * flop_per_pixel(net, CHANNELS) * pixels
    reference = _maker(torch.float32, torch.contiguous_format)(net, device)
    return Subject(net, noisy, reference, None, flop, 0, pixels)


def cases(scale: str) -> Sequence[Case]:
    uncaptured = "max-autotune-no-cudagraphs"
    versions = {
        "eager fp32 NCHW": Version(_maker(torch.float32, torch.contiguous_format), "float32", True),
        "eager bf16": Version(_maker(torch.bfloat16, torch.channels_last), "bfloat16", True),
        "compile bf16": Version(_maker(torch.bfloat16, torch.channels_last, mode=uncaptured), "bfloat16", True, "compile"),
        "fastbsn bf16": Version(_maker(torch.bfloat16, torch.channels_last, ours=True), "bfloat16"),
        "eager bf16, graph": Version(_maker(torch.bfloat16, torch.channels_last, graph=True), "bfloat16", True),
        "fastbsn bf16, graph": Version(_maker(torch.bfloat16, torch.channels_last, ours=True, graph=True), "bfloat16"),
    }
    names, batch = ["student"] if scale == "tiny" else list(NETS), BATCH[scale]
    shape = f"{batch} x {CROP} x {CROP}"
    return [Case("training", f"{n} {shape}", versions, lambda d, n=n: _subject(n, batch, scale == "tiny", d), decides=True) for n in names]
