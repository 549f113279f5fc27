"""k x k convolution on [P, C], with everything that a network does to its result before it is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime
from .runtime import Call, constants
from .tiles import bias_row, blocks, is_inside, leaky, sum_taps
from .tuning import Config, column_block, width

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def conv_kernel(
    x,  # [P, C]
    x2,  # [P, C2], or None: further input channels, as if concatenated behind those of x
    w,  # [taps * C, CO], tap-major
    w2,  # [taps * C2, CO], or None
    b_ptr,  # [CO] fp32, or None
    gate,  # [P, CO] saved activations, or None: the result is multiplied by SLOPE where they are not positive (the derivative)
    skip,  # [P, CO], or None: added to the result
    inside_ptr,  # [P] uint8
    y,  # [P, CO]
    sums_ptr,  # [blocks, CO] fp32, or None: column sums of y, for a bias gradient
    P,
    pitch,
    C: tl.constexpr,
    C2: tl.constexpr,
    CO: tl.constexpr,
    K: tl.constexpr,
    MASKED: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,  # of the activation below zero: 0 is ReLU
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = inside * gate'(act(conv([x, x2]) + b)) + inside * skip. A masked tap does not exist in w and is never read."""
    x, w, y = blocks(x, P, C, BLOCK, CHUNK), blocks(w, (K * K - MASKED) * C, CO, CHUNK, N), blocks(y, P, CO, BLOCK, N)
    i_p, column = tl.program_id(0), tl.program_id(1) * N
    row = i_p * BLOCK
    acc = tl.zeros([BLOCK, N], tl.float32)
    if b_ptr is not None:
        acc += bias_row(b_ptr, column, CO - column, N)
    acc = sum_taps(acc, x, w, row, pitch, 0, C, K, MASKED, CHUNK, STAGES, PRECISION, column)
    if x2 is not None:
        x2, w2 = blocks(x2, P, C2, BLOCK, CHUNK), blocks(w2, (K * K - MASKED) * C2, CO, CHUNK, N)
        acc = sum_taps(acc, x2, w2, row, pitch, 0, C2, K, MASKED, CHUNK, STAGES, PRECISION, column)
    if ACT:
        acc = leaky(acc, SLOPE)
    if gate is not None:
        off = 0.0 if SLOPE == 0 else SLOPE * acc  # not 0 * acc: an infinite sum would become NaN
        acc = tl.where(blocks(gate, P, CO, BLOCK, N).load([row, column]) <= 0, off, acc)
    if skip is not None:
        acc += blocks(skip, P, CO, BLOCK, N).load([row, column])
    acc = tl.where(is_inside(inside_ptr, row, BLOCK), acc, 0.0)
    y.store([row, column], acc.to(y.dtype))
    if sums_ptr is not None:
        n = column + tl.arange(0, N)
        tl.store(sums_ptr + i_p.to(tl.int64) * CO + n, tl.sum(acc, 0), mask=n < CO)


def conv_call(
    config: Config,
    c: int,
    co: int,
    k: int,
    masked: bool = False,
    act: bool = False,
    slope: float = 0.0,
    c2: int = 0,
    precision: str = "ieee",
) -> Call:
    config = replace(config, chunk=min(config.chunk, width(c)))
    tile, chunk, n = config.block, config.chunk, column_block(co)
    shapes = dict(x=(tile, chunk), x2=(tile, chunk), w=(chunk, n), w2=(chunk, n), gate=(tile, n), skip=(tile, n), y=(tile, n))
    sizes = dict(C=c, C2=c2, CO=co, K=k, MASKED=masked, ACT=act, SLOPE=slope, N=n)
    return Call(conv_kernel, config, shapes, constants(config, precision, **sizes))


def conv2d(
    x: Tensor,  # [P, C]
    w: Tensor,  # [taps * C, CO]
    bias: Tensor | None,  # [CO] float32
    inside: Tensor,  # [P] uint8
    y: Tensor,  # [P, CO], written
    pitch: int,
    k: int,
    masked: bool = False,
    act: bool = False,
    slope: float = 0.0,  # of the activation, and of the derivative that `gate` stands for
    gate: Tensor | None = None,  # [P, CO]
    skip: Tensor | None = None,  # [P, CO]
    sums: bool = False,
    x2: Tensor | None = None,  # [P, C2]
    w2: Tensor | None = None,  # [taps * C2, CO]
    tuned: str = "conv",  # entries of the table
) -> Tensor | None:  # column sums of y by block, [blocks, CO] float32, if `sums`
    (p, c), co, t = x.shape, y.shape[1], runtime.target(x)
    config = t.config(tuned, y if co > c else x)
    call = conv_call(config, c, co, k, masked, act, slope, 0 if x2 is None else x2.shape[1], t.precision)
    partial = runtime.empty_float32(x, p // config.block, co) if sums else None
    tensors = dict(x=x, x2=x2, w=w, w2=w2, b_ptr=bias, gate=gate, skip=skip, inside_ptr=inside, y=y, sums_ptr=partial)
    runtime.launch(call, (p // config.block, -(-co // call.constants["N"])), t.tma, **tensors, P=p, pitch=pitch)
    return partial
