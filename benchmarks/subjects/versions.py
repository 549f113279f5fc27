"""Ways to run a network. All take and return float32 [N, C, H, W] on the device, so that any can stand in for any other.

Baselines get channels_last weights, `cudnn.benchmark`, and the residual of the student subtracted in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.measure import Unavailable, Version
from benchmarks.harness.timing import Run
from benchmarks.subjects.rewrites import PhaseUNet, fuse_conv_relu, in_strips, on_ops
from fastbsn import backends
from fastbsn.backends import capture as graphs
from fastbsn.names import AUTOMATIC
from fastbsn.nets import DBSN, UNet, pad_to_multiple
from fastbsn.training.step import WARM_UP

MODES = {"compile": "max-autotune", "compile, no graphs": "max-autotune-no-cudagraphs"}
SMALL = 2**20  # pixels; below it a network in eager PyTorch shows the speed of the host, so it is also measured in a CUDA graph
LAYOUT = torch.channels_last
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


class Student(nn.Module):
    """y - f(y) with f in `dtype`."""

    def __init__(self, net: UNet, dtype: torch.dtype, device: torch.device, phases: bool):
        super().__init__()
        self.net = (PhaseUNet(net) if phases else copy.deepcopy(net)).to(device, dtype, memory_format=LAYOUT)
        self.dtype = dtype

    def forward(self, y: Tensor) -> Tensor:
        h, w = y.shape[-2:]
        x = pad_to_multiple(y, self.net.multiple)
        return y - self.net.estimated_noise(x.to(self.dtype, memory_format=LAYOUT))[..., :h, :w].float()


class Mu(nn.Module):
    """mu of a teacher in `dtype`; with `phases`, branches run space-to-batch."""

    def __init__(self, net: DBSN, dtype: torch.dtype, device: torch.device, phases: bool):
        super().__init__()
        self.net, self.dtype, self.phases = copy.deepcopy(net).to(device, dtype, memory_format=LAYOUT), dtype, phases

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(self.dtype, memory_format=LAYOUT), phases=self.phases)[0].float()


def module(net: nn.Module, dtype: torch.dtype, device: torch.device, phases: bool) -> nn.Module:
    """`net` as float32 -> float32 with arithmetic in `dtype`, rewritten or not."""
    kind = {UNet: Student, DBSN: Mu}.get(type(net))
    if kind is not None:
        return kind(net, dtype, device, phases)
    return Cast(net, dtype, device)


class Cast(nn.Module):
    """Any other module, for instance a single operation."""

    def __init__(self, net: nn.Module, dtype: torch.dtype, device: torch.device):
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(device, dtype, memory_format=LAYOUT), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(self.dtype, memory_format=LAYOUT)).float()


def _finish(run: Run, net: nn.Module) -> Run:
    if isinstance(net, DBSN):
        run = in_strips(run, net.radius, (3 if net.variant == "paper" else 2) * net.feature_channels)
    return on_ops("reference", run)


def eager_fp32(net: nn.Module, device: torch.device) -> Run:
    net = copy.deepcopy(net).to(device)
    return _finish((lambda x: net(x, phases=False)[0]) if isinstance(net, DBSN) else net, net)


def eager(phases: bool, dtype: torch.dtype) -> Callable[[Any, torch.device], Run]:
    return lambda net, device: _finish(module(net, dtype, device, phases), net)


def conv_relu(phases: bool, dtype: torch.dtype) -> Callable[[Any, torch.device], Run]:
    """Every convolution + ReLU as one cuDNN call; rewritten for each input shape at its first call."""

    def make(net: nn.Module, device: torch.device) -> Run:
        if isinstance(net, UNet):
            raise Unavailable("the student's LeakyReLU is not the ReLU that cudnn_convolution_relu computes")
        if device.type != "cuda":
            raise Unavailable("needs a GPU: cudnn_convolution_relu is a cuDNN call")
        plain, graphs = module(net, dtype, device, phases), {}

        def run(x: Tensor) -> Tensor:
            if x.shape not in graphs:
                graphs[x.shape] = fuse_conv_relu(plain, x)
            return graphs[x.shape](x)

        return _finish(run, net)

    return make


def compiled(mode: str, phases: bool, dtype: torch.dtype) -> Callable[[Any, torch.device], Run]:
    def make(net: nn.Module, device: torch.device) -> Run:
        return _finish(torch.compile(module(net, dtype, device, phases), mode=mode, dynamic=False), net)

    return make


def captured(run: Run, device: torch.device) -> Run:
    """`run` in a CUDA graph, captured by the first call for inputs of its shape, as `fastbsn.training.step` captures."""
    made: list[tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = []

    def capture(y: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        x, stream = y.clone(), torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph, result = graphs.capture(lambda: run(x), device)
        return graph, x, result

    def replay(y: Tensor) -> Tensor:
        if not made:
            made.append(capture(y))
        graph, x, result = made[0]
        x.copy_(y)
        graph.replay()
        return result

    return replay


def graphed(make: Callable[[Any, torch.device], Run]) -> Callable[[Any, torch.device], Run]:
    """What `make` prepares, in a CUDA graph."""

    def prepare(net: nn.Module, device: torch.device) -> Run:
        if device.type != "cuda":
            raise Unavailable("needs a GPU: a CUDA graph")
        return captured(make(net, device), device)

    return prepare


def backend(name: str, dtype: str) -> Callable[[Any, torch.device], Run]:
    """One of fastbsn's own."""

    def make(net: nn.Module, device: torch.device) -> Run:
        what = getattr(torch, dtype)
        refusal = backends.why_not(name, net, device, what)
        if refusal is not None:
            raise Unavailable(refusal)
        run = backends.select(net, device, name, what)
        return (lambda x: run(x)[0]) if isinstance(net, DBSN) else run

    return make


def variant(name: str, dtype: str, **options: Any) -> Callable[[Any, torch.device], Run]:
    """A backend with options that `select` leaves at their defaults."""

    def make(net: nn.Module, device: torch.device) -> Run:
        run = import_module(f"fastbsn.backends.{name}").prepare(net, device, getattr(torch, dtype), **options)
        return (lambda x: run(x)[0]) if isinstance(net, DBSN) else run

    return make


def baselines(rewrite: str, dtype: str = "bfloat16", small: bool = False) -> dict[str, Version]:
    """Every baseline, with and without `rewrite` ("phase upsample" or "space-to-batch") in plain PyTorch.

    Of the compiled ones the most promising comes first. A `small` image also has eager PyTorch in a CUDA graph.
    """
    found, what = {"eager fp32 NCHW": Version(eager_fp32, "float32", True)}, getattr(torch, dtype)
    rewrites = ((False, ""), (True, f", {rewrite}"))
    for phases, suffix in rewrites:
        name = f"{SHORT[dtype]}{suffix}"
        found[f"eager {name}"] = Version(eager(phases, what), dtype, True)
        if small:
            found[f"eager {name}, graph"] = Version(graphed(eager(phases, what)), dtype, True)
        found[f"cudnn_convolution_relu {name}"] = Version(conv_relu(phases, what), dtype, True)
    for mode, argument in MODES.items():
        for phases, suffix in reversed(rewrites):
            found[f"{mode} {SHORT[dtype]}{suffix}"] = Version(compiled(argument, phases, what), dtype, True, "compile")
    return found


def own(dtypes: tuple[str, ...] = ("bfloat16",)) -> dict[str, Version]:
    """fastbsn's backends."""
    return {f"fastbsn {name} {SHORT[d]}": Version(backend(name, d), d) for name in reversed(AUTOMATIC) for d in dtypes}
