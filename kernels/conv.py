"""k x k convolution on [P, C], and the module of the light D-BSN as one kernel."""

import triton
import triton.language as tl

from fastbsn.kernels.call import Call, Config, constants, width
from fastbsn.kernels.tiles import bias_block, bias_row, blocks, is_inside, relu, sum_taps


@triton.jit
def conv_kernel(
    x,  # [P, C]
    w,  # [taps * C, CO], tap-major
    b_ptr,  # [CO] fp32, or None
    gate,  # [P, CO] saved activations, or None: the result is zero where they are not positive (the derivative of ReLU)
    residual,  # [P, CO], or None
    inside_ptr,  # [P] uint8
    y,  # [P, CO]
    sums_ptr,  # [blocks, CO] fp32, or None: column sums of y, for a bias gradient
    P,
    pitch,
    C: tl.constexpr,
    CO: tl.constexpr,
    K: tl.constexpr,
    MASKED: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = inside * (gate > 0) * act(conv(x) + b) + inside * residual. A masked tap does not exist in w and is never read."""
    x, w, y = blocks(x, P, C, BLOCK, CHUNK), blocks(w, (K * K - MASKED) * C, CO, CHUNK, N), blocks(y, P, CO, BLOCK, N)
    i_p = tl.program_id(0)
    row = i_p * BLOCK
    acc = tl.zeros([BLOCK, N], tl.float32)
    if b_ptr is not None:
        acc += bias_row(b_ptr, 0, CO, N)
    acc = sum_taps(acc, x, w, row, pitch, 0, C, K, MASKED, CHUNK, STAGES, PRECISION)
    if RELU:
        acc = relu(acc)
    if gate is not None:
        acc = tl.where(blocks(gate, P, CO, BLOCK, N).load([row, 0]) <= 0, 0.0, acc)
    if residual is not None:
        acc += blocks(residual, P, CO, BLOCK, N).load([row, 0])
    acc = tl.where(is_inside(inside_ptr, row, BLOCK), acc, 0.0)
    y.store([row, 0], acc.to(y.dtype))
    if sums_ptr is not None:
        n = tl.arange(0, N)
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


def conv_call(config: Config, c: int, co: int, k: int, masked: bool = False, relu: bool = False, precision: str = "ieee") -> Call:
    tile, n = config.block, width(co)
    shapes = dict(x=(tile, config.chunk), w=(config.chunk, n), gate=(tile, n), residual=(tile, n), y=(tile, n))
    return Call(conv_kernel, config, shapes, constants(config, precision, C=c, CO=co, K=k, MASKED=masked, RELU=relu, N=n))


def residual_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(x=(tile, chunk), w=(chunk, n), w1=(n, chunk), h=(tile, n), y=(tile, chunk))
    return Call(residual_kernel, config, shapes, constants(config, precision, C=c, N=n))
