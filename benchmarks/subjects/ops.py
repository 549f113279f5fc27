"""The teacher's operations one by one, on the shapes they have inside it: dilated, and dense on phase images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness.images import L2_ROTATIONS, MAX_INPUTS
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.harness.timing import Run
from benchmarks.subjects.networks import flop_per_pixel, weight_bytes
from benchmarks.subjects.rewrites import on_ops
from benchmarks.subjects.versions import SHORT, Cast, compiled, conv_relu, eager, eager_fp32
from fastbsn import ops
from fastbsn.nets.dbsn import MDC, MaskedConv2d, Residual

SIDE = {"tiny": 24, "cpu": 96, "gpu": 512, "full": 1024}


class Dilated(nn.Module):
    """A module of a branch as a function of one tensor."""

    def __init__(self, block: MDC | Residual, dilation: int):
        super().__init__()
        self.block, self.dilation = block, dilation

    def forward(self, x: Tensor) -> Tensor:
        run = ops.mdc_module if isinstance(self.block, MDC) else ops.residual_module
        return run(x, self.block.params(), self.dilation)


OPERATIONS = {
    "masked 3x3": (96, lambda c: MaskedConv2d(c, c, 3)),
    "masked 5x5": (96, lambda c: MaskedConv2d(c, c, 5)),
    "MDC d=1": (96, lambda c: Dilated(MDC(c), 1)),
    "MDC d=3": (96, lambda c: Dilated(MDC(c), 3)),
    "residual d=1": (128, lambda c: Dilated(Residual(c), 1)),
    "residual d=3": (128, lambda c: Dilated(Residual(c), 3)),
}


def _triton(dtype: torch.dtype) -> Callable[[nn.Module, torch.device], Run]:
    return lambda net, device: on_ops("triton", Cast(net, dtype, device))


def _subject(name: str, side: int, small: bool, device: torch.device) -> Subject:
    width, build = OPERATIONS[name]
    width = 16 if small else width
    torch.manual_seed(0)
    net = build(width).eval().requires_grad_(False)
    count = 2
    if device.type == "cuda":
        cache = L2_ROTATIONS * torch.cuda.get_device_properties(device).L2_cache_size
        count = min(MAX_INPUTS, max(count, -(-cache // (4 * width * side**2))))
    generator = torch.Generator(device).manual_seed(0)
    inputs = [torch.randn(1, width, side, side, generator=generator, device=device).relu_() for _ in range(count)]
    flop = flop_per_pixel(net, width) * side**2
    return Subject(net, inputs, eager_fp32(net, device), None, flop, 8 * width * side**2 + weight_bytes(net), side**2)


def cases(scale: str) -> Sequence[Case]:
    versions = {"eager fp32 NCHW": Version(eager_fp32, "float32", True)}
    for dtype in ("float16", "bfloat16"):
        what = getattr(torch, dtype)
        versions[f"eager {SHORT[dtype]}"] = Version(eager(False, what), dtype, True)
        versions[f"fastbsn triton {SHORT[dtype]}"] = Version(_triton(what), dtype)
    versions["cudnn_convolution_relu fp16"] = Version(conv_relu(False, torch.float16), "float16", True)
    versions["compile fp16"] = Version(compiled("max-autotune-no-cudagraphs", False, torch.float16), "float16", True, "compile")
    names = list(OPERATIONS) if scale != "tiny" else ["masked 3x3", "residual d=3"]
    return [Case("ops", f"{n} {SIDE[scale]}", versions, lambda d, n=n: _subject(n, SIDE[scale], scale == "tiny", d)) for n in names]
