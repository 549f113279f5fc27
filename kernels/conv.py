"""k x k convolution on [P, C], and the module of the light D-BSN as one kernel."""

from dataclasses import replace

import triton
import triton.language as tl

from fastbsn.kernels.call import Call, Config, column_block, constants, width
from fastbsn.kernels.tiles import bias_block, bias_row, blocks, is_inside, leaky, relu, sum_taps


@triton.jit
def conv_kernel(
    x,  # [P, C]
    x2,  # [P, C2], or None: further input channels, as if concatenated behind those of x
    w,  # [taps * C, CO], tap-major
    w2,  # [taps * C2, CO], or None
    b_ptr,  # [CO] fp32, or None
    gate,  # [P, CO] saved activations, or None: the result is multiplied by SLOPE where they are not positive (the derivative)
    residual,  # [P, CO], or None
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
    """y = inside * gate'(act(conv([x, x2]) + b)) + inside * residual. A masked tap does not exist in w and is never read."""
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
    if residual is not None:
        acc += blocks(residual, P, CO, BLOCK, N).load([row, column])
    acc = tl.where(is_inside(inside_ptr, row, BLOCK), acc, 0.0)
    y.store([row, column], acc.to(y.dtype))
    if sums_ptr is not None:
        n = column + tl.arange(0, N)
        tl.store(sums_ptr + i_p.to(tl.int64) * CO + n, tl.sum(acc, 0), mask=n < CO)


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
    shapes = dict(x=(tile, chunk), x2=(tile, chunk), w=(chunk, n), w2=(chunk, n), gate=(tile, n), residual=(tile, n), y=(tile, n))
    sizes = dict(C=c, C2=c2, CO=co, K=k, MASKED=masked, ACT=act, SLOPE=slope, N=n)
    return Call(conv_kernel, config, shapes, constants(config, precision, **sizes))


def residual_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(x=(tile, chunk), w=(chunk, n), w1=(n, chunk), h=(tile, n), y=(tile, chunk))
    return Call(residual_kernel, config, shapes, constants(config, precision, C=c, N=n))
