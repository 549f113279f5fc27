"""Backward pass of the multiple-dilated-convolutions module: gradients of activations and biases in two kernels.

Slots of both arrays, matrices and biases are in the order of slots.py. The matrices in `w1t` [8 * C, C] are the transposes of those of
the forward pass; `w5t`, `w3t` also have their taps reversed. Bias gradients are sums over blocks of `sums_ptr` [blocks, 8, C].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import mdc, runtime, tuning, wgrad
from .runtime import Call, constants
from .slots import BIASES, GRADIENTS, KEPT, MATRICES
from .tiles import blocks, sum_taps
from .tuning import Config, width

if TYPE_CHECKING:
    import torch
    from torch import Tensor

D_T2, D_T1, D_U, D_JOIN, D_A, D_B, D_C, D_A1, D_B1 = (tl.constexpr(i) for i in range(len(GRADIENTS)))
BIAS_COUNT = tl.constexpr(len(BIASES))


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
    tl.store(sums_ptr + (tl.program_id(0).to(tl.int64) * BIAS_COUNT + bias) * C + n, tl.sum(d.to(tl.float32), 0), mask=n < C)
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
    d = _keep(_gate(g.load([dy_row + p, 0]).to(tl.float32), sn, y_row + p), g, out + D_T2 * P, sums_ptr, mdc.BIAS_T2, C, N)
    d = tl.dot(d, w1t.load([mdc.T2 * C, 0]), input_precision=PRECISION)
    d = _keep(_gate(d, sn, keep + mdc.KEEP_V * P), g, out + D_T1 * P, sums_ptr, mdc.BIAS_T1, C, N)
    d = tl.dot(d, w1t.load([mdc.T1 * C, 0]), input_precision=PRECISION)
    g.store([out + D_U * P, 0], d.to(g.dtype))
    d = _keep(_gate(d, sn, keep + mdc.KEEP_J * P), g, out + D_JOIN * P, sums_ptr, mdc.BIAS_JOIN, C, N)
    d_a = tl.dot(d, w1t.load([mdc.JA * C, 0]), input_precision=PRECISION)
    _keep(_gate(d_a, sn, keep + mdc.KEEP_A * P), g, out + D_A * P, sums_ptr, mdc.BIAS_A2, C, N)
    d_b = tl.dot(d, w1t.load([mdc.JB * C, 0]), input_precision=PRECISION)
    _keep(_gate(d_b, sn, keep + mdc.KEEP_B * P), g, out + D_B * P, sums_ptr, mdc.BIAS_B2, C, N)
    d_c = tl.dot(d, w1t.load([mdc.JC * C, 0]), input_precision=PRECISION)
    _keep(_gate(d_c, sn, keep + mdc.KEEP_C * P), g, out + D_C * P, sums_ptr, mdc.BIAS_C, C, N)


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
    acc = sum_taps(acc, gk, w5t, out + D_A * P, pitch, 0, C, 5, False, CHUNK, STAGES, PRECISION)
    da1 = _keep(_gate(acc, sn, a1_row + p), g, out + D_A1 * P, sums_ptr, mdc.BIAS_A1, C, N)
    acc = tl.zeros([BLOCK, N], tl.float32)
    acc = sum_taps(acc, gk, w3t, out + D_B * P, pitch, 0, C, 3, False, CHUNK, STAGES, PRECISION)
    db1 = _keep(_gate(acc, sn, a1_row + P + p), g, out + D_B1 * P, sums_ptr, mdc.BIAS_B1, C, N)
    dx = tl.dot(da1, w1t.load([mdc.A1 * C, 0]), input_precision=PRECISION)
    dx = tl.dot(db1, w1t.load([mdc.B1 * C, 0]), dx, input_precision=PRECISION)
    dx = tl.dot(g.load([out + D_C * P, 0]), w1t.load([mdc.CC * C, 0]), dx, input_precision=PRECISION)
    dx += g.load([out + D_U * P, 0])
    g.store([dx_row + p, 0], dx.to(g.dtype))


def mdc_backward_first_call(config: Config, c: int, precision: str = "ieee") -> Call:
    n = width(c)
    sizes = dict(C=c, N=n, BLOCK=config.block, PRECISION=precision)
    return Call(mdc_backward_first_kernel, config, dict(sn=(config.block, n), g=(config.block, n), w1t=(n, n)), sizes)


def mdc_backward_rest_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(sn=(tile, n), gk=(tile, chunk), g=(tile, n), w5t=(chunk, n), w3t=(chunk, n), w1t=(n, n))
    return Call(mdc_backward_rest_kernel, config, shapes, constants(config, precision, C=c, N=n))


def mdc_backward_module(
    s: Tensor,  # [slots, P, C] of the forward pass
    g: Tensor,  # [slots, P, C] of gradients, read and written
    w5t: Tensor,  # [25 * C, C]
    w3t: Tensor,  # [9 * C, C]
    w1t: Tensor,  # [8 * C, C]
    pitch: int,
    x: int,  # slot of the module's input, with the eight kept ones behind it
    y: int,  # slot of its output
    dy: int,  # slot of g
    t2: int,  # first of nine slots of g
    dx: int,  # slot of g
) -> Tensor:  # bias gradients by block, [blocks, 8, C] float32
    if s.shape[-1] > tuning.WIDEST:
        from . import wide  # which needs torch

        return wide.mdc_backward_module(s, g, w5t, w3t, w1t, pitch, x, y, dy, t2, dx)
    (_, p, c), t = s.shape, runtime.target(s)
    flat, gradients = s.view(-1, c), g.view(-1, c)
    first, rest = t.config("mdc_backward_first", s), t.config("mdc_backward_rest", s)
    block = min(first.block, rest.block)
    first, rest = (Config(block, config.chunk, config.warps, config.stages) for config in (first, rest))
    sums = runtime.empty_float32(s, p // block, len(BIASES), c)
    shared = dict(sn=flat, g=gradients, w1t=w1t, sums_ptr=sums, rows=flat.shape[0], g_rows=gradients.shape[0], P=p, t2_row=t2 * p)
    rows = dict(keep_row=(x + KEPT.index("a")) * p, y_row=y * p, dy_row=dy * p)
    runtime.launch(mdc_backward_first_call(first, c, t.precision), (p // block,), t.tma, **shared, **rows)
    arguments = dict(gk=gradients, w5t=w5t, w3t=w3t, pitch=pitch, a1_row=(x + KEPT.index("a1")) * p, dx_row=dx * p)
    runtime.launch(mdc_backward_rest_call(rest, c, t.precision), (p // block,), t.tma, **shared, **arguments)
    return sums


def mdc_table(device: torch.device, p: int, pitch: int) -> Tensor:
    """Products of an MDC module's weight gradients, as counted by `slots.TAPS`: KEPT from slot 0 on, GRADIENTS from slot 1 on."""
    x = {name: i * p for i, name in enumerate(KEPT)}
    z = {name: (1 + i) * p for i, name in enumerate(GRADIENTS)}
    taps = wgrad.tap_products(5, pitch, x=x["a1"], z=z["a"]) + wgrad.tap_products(3, pitch, x=x["b1"], z=z["b"])
    return wgrad.product_table(device, (*taps, *((x[of], z[made]) for of, made in MATRICES.values())))
