"""Backward pass of the multiple-dilated-convolutions module: gradients of activations and biases in two kernels.

Slots of the gradient array, in order: t2, t1, u, join, a, b, c, a1, b1 (each the gradient before the ReLU of that layer, u after).
The 1x1 matrices in `w1t` [8 * C, C] are the transposes of those of the forward pass; `w5t`, `w3t` also have their taps reversed.
Bias gradients are sums over blocks of `sums_ptr` [blocks, 8, C], in the order of the biases.
"""

import triton
import triton.language as tl

from fastbsn.kernels.call import Call, Config, constants, width
from fastbsn.kernels.mdc import A1, B1, BIAS_A1, BIAS_A2, BIAS_B1, BIAS_B2, BIAS_C, BIAS_JOIN, BIAS_T1, BIAS_T2, CC, JA, JB, JC, T1, T2
from fastbsn.kernels.tiles import blocks, sum_taps

GRADIENTS = ("t2", "t1", "u", "join", "a", "b", "c", "a1", "b1")


@triton.jit
def _gate(d, saved, row):
    """d where the saved activation is positive: the derivative of ReLU."""
    return tl.where(saved.load([row, 0]) <= 0, 0.0, d)


@triton.jit
def _keep(d, g, row, sums_ptr, bias: tl.constexpr, C: tl.constexpr, N: tl.constexpr):
    """Store a gradient and its column sums; returns it as it was stored."""
    d = d.to(g.dtype)
    g.store([row, 0], d)
    n = tl.arange(0, N)
    tl.store(sums_ptr + (tl.program_id(0).to(tl.int64) * 8 + bias) * C + n, tl.sum(d.to(tl.float32), 0), mask=n < C)
    return d


@triton.jit
def mdc_backward_first_kernel(
    sn,  # [slots * P, C] of the forward pass
    g,  # [slots * P, C] of gradients
    w1t,  # [8 * C, C]
    sums_ptr,  # [blocks, 8, C] fp32
    rows,  # of sn
    g_rows,
    P,
    keep_row,  # first row of a, b, c, j, u, v
    y_row,
    dy_row,
    t2_row,  # first row of the nine gradient slots
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Through the two last 1x1 and the join, to the gradients of a, b and c."""
    sn, g, w1t = blocks(sn, rows, C, BLOCK, N), blocks(g, g_rows, C, BLOCK, N), blocks(w1t, 8 * C, C, N, N)
    p = tl.program_id(0) * BLOCK
    keep, out = keep_row + p, t2_row + p
    d = _keep(_gate(g.load([dy_row + p, 0]).to(tl.float32), sn, y_row + p), g, out, sums_ptr, BIAS_T2, C, N)
    d = tl.dot(d, w1t.load([T2 * C, 0]), input_precision=PRECISION)
    d = _keep(_gate(d, sn, keep + 5 * P), g, out + P, sums_ptr, BIAS_T1, C, N)
    d = tl.dot(d, w1t.load([T1 * C, 0]), input_precision=PRECISION)
    g.store([out + 2 * P, 0], d.to(g.dtype))
    d = _keep(_gate(d, sn, keep + 3 * P), g, out + 3 * P, sums_ptr, BIAS_JOIN, C, N)
    _keep(_gate(tl.dot(d, w1t.load([JA * C, 0]), input_precision=PRECISION), sn, keep), g, out + 4 * P, sums_ptr, BIAS_A2, C, N)
    _keep(_gate(tl.dot(d, w1t.load([JB * C, 0]), input_precision=PRECISION), sn, keep + P), g, out + 5 * P, sums_ptr, BIAS_B2, C, N)
    _keep(_gate(tl.dot(d, w1t.load([JC * C, 0]), input_precision=PRECISION), sn, keep + 2 * P), g, out + 6 * P, sums_ptr, BIAS_C, C, N)


@triton.jit
def mdc_backward_rest_kernel(
    sn,  # [slots * P, C] of the forward pass
    gk,  # [slots * P, C] of gradients in blocks [BLOCK, CHUNK]
    g,  # the same in blocks [BLOCK, N]
    w5t,  # [25 * C, C]
    w3t,  # [9 * C, C]
    w1t,  # [8 * C, C]
    sums_ptr,  # [blocks, 8, C] fp32
    rows,  # of sn
    g_rows,
    P,
    pitch,
    a1_row,
    t2_row,
    dx_row,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Through the 5x5, the 3x3 and the first 1x1 layers, to the gradient of x."""
    sn, g, gk = blocks(sn, rows, C, BLOCK, N), blocks(g, g_rows, C, BLOCK, N), blocks(gk, g_rows, C, BLOCK, CHUNK)
    w5t, w3t, w1t = blocks(w5t, 25 * C, C, CHUNK, N), blocks(w3t, 9 * C, C, CHUNK, N), blocks(w1t, 8 * C, C, N, N)
    p = tl.program_id(0) * BLOCK
    out = t2_row + p
    acc = tl.zeros([BLOCK, N], tl.float32)
    acc = sum_taps(acc, gk, w5t, out + 4 * P, pitch, 0, C, 5, False, CHUNK, STAGES, PRECISION)
    da1 = _keep(_gate(acc, sn, a1_row + p), g, out + 7 * P, sums_ptr, BIAS_A1, C, N)
    acc = tl.zeros([BLOCK, N], tl.float32)
    acc = sum_taps(acc, gk, w3t, out + 5 * P, pitch, 0, C, 3, False, CHUNK, STAGES, PRECISION)
    db1 = _keep(_gate(acc, sn, a1_row + P + p), g, out + 8 * P, sums_ptr, BIAS_B1, C, N)
    dx = tl.dot(da1, w1t.load([A1 * C, 0]), input_precision=PRECISION)
    dx = tl.dot(db1, w1t.load([B1 * C, 0]), dx, input_precision=PRECISION)
    dx = tl.dot(g.load([out + 6 * P, 0]), w1t.load([CC * C, 0]), dx, input_precision=PRECISION)
    dx += g.load([out + 2 * P, 0])
    g.store([dx_row + p, 0], dx.to(g.dtype))


def mdc_backward_first_call(config: Config, c: int, precision: str = "ieee") -> Call:
    n = width(c)
    sizes = dict(C=c, N=n, BLOCK=config.block, PRECISION=precision)
    return Call(mdc_backward_first_kernel, config, dict(sn=(config.block, n), g=(config.block, n), w1t=(n, n)), sizes)


def mdc_backward_rest_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(sn=(tile, n), gk=(tile, chunk), g=(tile, n), w5t=(chunk, n), w3t=(chunk, n), w1t=(n, n))
    return Call(mdc_backward_rest_kernel, config, shapes, constants(config, precision, C=c, N=n))
