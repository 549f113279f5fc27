"""The module of the light D-BSN as one kernel: x + 1x1(ReLU(3x3 x)) on [P, C]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime, tuning, wgrad
from .runtime import Call, constants
from .tiles import bias_block, blocks, is_inside, relu, sum_taps
from .tuning import Config, width

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@triton.jit
def residual_kernel(
    x,  # [P, C]
    w,  # [9 * C, C], tap-major
    w1,  # [C, C]
    b_ptr,  # [2, C] fp32: of the 3x3, of the 1x1
    inside_ptr,  # [P] uint8
    h,  # [P, C], or None: ReLU(3x3 x), kept for the backward pass
    y,  # [P, C]
    P,
    pitch,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = inside * (x + 1x1(ReLU(3x3 x))). The second product goes CHUNK columns at a time, which keeps two blocks resident per SM."""
    x, w, w1, y = blocks(x, P, C, BLOCK, CHUNK), blocks(w, 9 * C, C, CHUNK, N), blocks(w1, C, C, N, CHUNK), blocks(y, P, C, BLOCK, CHUNK)
    row = tl.program_id(0) * BLOCK
    acc = bias_block(b_ptr, 0, C, BLOCK, N)
    hidden = relu(sum_taps(acc, x, w, row, pitch, 0, C, 3, False, CHUNK, STAGES, PRECISION)).to(y.dtype)
    if h is not None:
        blocks(h, P, C, BLOCK, N).store([row, 0], hidden)
    inside = is_inside(inside_ptr, row, BLOCK)
    for c in tl.static_range(0, C, CHUNK):
        out = bias_block(b_ptr, C + c, C - c, BLOCK, CHUNK)
        out = tl.dot(hidden, w1.load([0, c]), out, input_precision=PRECISION) + x.load([row, c])
        y.store([row, c], tl.where(inside, out, 0.0).to(y.dtype))


def residual_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(x=(tile, chunk), w=(chunk, n), w1=(n, chunk), h=(tile, n), y=(tile, chunk))
    return Call(residual_kernel, config, shapes, constants(config, precision, C=c, N=n))


def residual_module(
    x: Tensor,  # [P, C]
    w: Tensor,  # [9 * C, C]
    w1: Tensor,  # [C, C]
    bias: Tensor,  # [2, C] float32
    inside: Tensor,  # [P] uint8
    y: Tensor,  # [P, C], written
    pitch: int,
    h: Tensor | None = None,  # [P, C], written if given: ReLU(3x3 x)
) -> None:
    if x.shape[1] > tuning.WIDEST:
        from . import wide  # which needs torch

        return wide.residual_module(x, w, w1, bias, inside, y, pitch, h)
    t = runtime.target(x)
    config = t.config("residual", x)
    arguments = dict(x=x, w=w, w1=w1, b_ptr=bias, inside_ptr=inside, h=h, y=y, P=x.shape[0], pitch=pitch)
    runtime.launch(residual_call(config, x.shape[1], t.precision), (x.shape[0] // config.block,), t.tma, **arguments)


def residual_table(device: torch.device, p: int, pitch: int, dy: int) -> Tensor:
    """Products of a module's weight gradients: 3x3 taps of x (slot 0) and dh (gradient slot 1), then h (slot 1) and dy."""
    return wgrad.product_table(device, (*wgrad.tap_products(3, pitch, z=p), (p, dy * p)))
