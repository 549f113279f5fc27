"""The multiple-dilated-convolutions module of the paper D-BSN, two kernels per direction.

Every activation of a branch is a slot of one array [slots * P, C] and is named by its first row; P is a multiple of BLOCK, so that a
block never reaches the next slot. Matrices in `w1` [8 * C, C], applied as row vector @ matrix, and biases in `b_ptr` [8, C] are in the
order of slots.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime, tuning
from .runtime import Call, constants
from .slots import BIASES, KEPT, MATRICES
from .tiles import bias_block, blocks, is_inside, relu, sum_taps
from .tuning import Config, width

if TYPE_CHECKING:
    from torch import Tensor

A1, B1, CC, JA, JB, JC, T1, T2 = (tl.constexpr(i) for i in range(len(MATRICES)))
BIAS_A1, BIAS_A2, BIAS_B1, BIAS_B2, BIAS_C, BIAS_JOIN, BIAS_T1, BIAS_T2 = (tl.constexpr(i) for i in range(len(BIASES)))
# Slots behind that of a, from which on the module keeps what only its backward pass reads.
KEEP_A, KEEP_B, KEEP_C, KEEP_J, KEEP_U, KEEP_V = (tl.constexpr(i) for i in range(len(KEPT) - KEPT.index("a")))


@triton.jit
def mdc_first_kernel(
    s,  # [slots * P, C] in blocks [BLOCK, CHUNK]
    sn,  # the same in blocks [BLOCK, N]
    w1,  # [8 * C, C]
    b_ptr,  # [8, C] fp32
    inside_ptr,  # [P] uint8
    rows,  # of s
    P,
    x_row,  # first row of x
    a1_row,  # first row of a1, with b1 behind it
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """a1 = inside * ReLU(1x1 x), b1 likewise: the halo of a 5x5 or 3x3 must read zero, not ReLU(bias)."""
    s, sn, w1 = blocks(s, rows, C, BLOCK, CHUNK), blocks(sn, rows, C, BLOCK, N), blocks(w1, 8 * C, C, CHUNK, N)
    p = tl.program_id(0) * BLOCK
    inside = is_inside(inside_ptr, p, BLOCK)
    for i in tl.static_range(2):
        acc = bias_block(b_ptr, (BIAS_A1 + 2 * i) * C, C, BLOCK, N)
        acc = relu(sum_taps(acc, s, w1, x_row + p, 0, (A1 + i) * C, C, 1, False, CHUNK, STAGES, PRECISION))
        sn.store([a1_row + i * P + p, 0], tl.where(inside, acc, 0.0).to(sn.dtype))


@triton.jit
def mdc_rest_kernel(
    s,  # [slots * P, C] in blocks [BLOCK, CHUNK]
    sb,  # the same up to the end of b1: the last taps reach beyond it, where this launch may be writing a
    sn,  # the same in blocks [BLOCK, N]
    w5,  # [25 * C, C]
    w3,  # [9 * C, C]
    w1,  # [8 * C, C], in blocks [N, N]
    wc,  # the same in blocks [CHUNK, CHUNK]
    wj,  # the same in blocks [CHUNK, N]
    b_ptr,  # [8, C] fp32
    inside_ptr,  # [P] uint8
    rows,  # of s
    P,
    pitch,
    x_row,
    a1_row,
    keep_row,  # first row of six slots a, b, c, j, u, v, written if KEEP
    y_row,
    C: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """a = ReLU(5x5 a1), b = ReLU(3x3 b1), c = ReLU(1x1 x), j = ReLU(1x1 [a, b, c]), u = j + x, v = ReLU(1x1 u), y = ReLU(1x1 v)."""
    s, sn = blocks(s, rows, C, BLOCK, CHUNK), blocks(sn, rows, C, BLOCK, N)
    sb = blocks(sb, a1_row + 2 * P, C, BLOCK, CHUNK)
    w5, w3 = blocks(w5, 25 * C, C, CHUNK, N), blocks(w3, 9 * C, C, CHUNK, N)
    w1, wc, wj = blocks(w1, 8 * C, C, N, N), blocks(wc, 8 * C, C, CHUNK, CHUNK), blocks(wj, 8 * C, C, CHUNK, N)
    p = tl.program_id(0) * BLOCK
    keep = keep_row + p
    acc = bias_block(b_ptr, BIAS_A2 * C, C, BLOCK, N)
    a = relu(sum_taps(acc, s, w5, a1_row + p, pitch, 0, C, 5, False, CHUNK, STAGES, PRECISION)).to(s.dtype)
    joined = bias_block(b_ptr, BIAS_JOIN * C, C, BLOCK, N)
    joined = tl.dot(a, w1.load([JA * C, 0]), joined, input_precision=PRECISION)
    acc = bias_block(b_ptr, BIAS_B2 * C, C, BLOCK, N)
    b = relu(sum_taps(acc, sb, w3, a1_row + P + p, pitch, 0, C, 3, False, CHUNK, STAGES, PRECISION)).to(s.dtype)
    joined = tl.dot(b, w1.load([JB * C, 0]), joined, input_precision=PRECISION)
    if KEEP:
        sn.store([keep + KEEP_A * P, 0], a)
        sn.store([keep + KEEP_B * P, 0], b)
    for m in tl.static_range(0, C, CHUNK):  # the 1x1 path goes CHUNK columns at a time, which saves registers
        part = bias_block(b_ptr, BIAS_C * C + m, C - m, BLOCK, CHUNK)
        for k in tl.static_range(0, C, CHUNK):
            part = tl.dot(s.load([x_row + p, k]), wc.load([CC * C + k, m]), part, input_precision=PRECISION)
        c = relu(part).to(s.dtype)
        joined = tl.dot(c, wj.load([JC * C + m, 0]), joined, input_precision=PRECISION)
        if KEEP:
            s.store([keep + KEEP_C * P, m], c)
    joined = relu(joined)
    if KEEP:
        sn.store([keep + KEEP_J * P, 0], joined.to(s.dtype))
    u = (joined + sn.load([x_row + p, 0])).to(s.dtype)
    v = bias_block(b_ptr, BIAS_T1 * C, C, BLOCK, N)
    v = relu(tl.dot(u, w1.load([T1 * C, 0]), v, input_precision=PRECISION)).to(s.dtype)
    if KEEP:
        sn.store([keep + KEEP_U * P, 0], u)
        sn.store([keep + KEEP_V * P, 0], v)
    y = bias_block(b_ptr, BIAS_T2 * C, C, BLOCK, N)
    y = relu(tl.dot(v, w1.load([T2 * C, 0]), y, input_precision=PRECISION))
    sn.store([y_row + p, 0], tl.where(is_inside(inside_ptr, p, BLOCK), y, 0.0).to(s.dtype))


def mdc_first_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    return Call(mdc_first_kernel, config, dict(s=(tile, chunk), sn=(tile, n), w1=(chunk, n)), constants(config, precision, C=c, N=n))


def mdc_rest_call(config: Config, c: int, keep: bool, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(
        s=(tile, chunk), sb=(tile, chunk), sn=(tile, n), w5=(chunk, n), w3=(chunk, n), w1=(n, n), wc=(chunk, chunk), wj=(chunk, n)
    )
    return Call(mdc_rest_kernel, config, shapes, constants(config, precision, C=c, N=n, KEEP=keep))


def mdc_module(
    s: Tensor,  # [slots, P, C], read and written
    w5: Tensor,  # [25 * C, C]
    w3: Tensor,  # [9 * C, C]
    w1: Tensor,  # [8 * C, C]
    bias: Tensor,  # [8, C] float32
    inside: Tensor,  # [P] uint8
    pitch: int,
    x: int,  # slot
    a1: int,  # first of two slots; the slot before, if any, must end in zeros: the halo above the first row
    y: int,  # slot
    keep: int | None = None,  # first of six slots for the backward pass
) -> None:
    if s.shape[-1] > tuning.WIDEST:
        from . import wide  # which needs torch

        return wide.mdc_module(s, w5, w3, w1, bias, inside, pitch, x, a1, y, keep)
    (_, p, c), t, flat = s.shape, runtime.target(s), s.view(-1, s.shape[-1])
    shared = dict(s=flat, sn=flat, w1=w1, b_ptr=bias, inside_ptr=inside, rows=flat.shape[0], P=p, x_row=x * p, a1_row=a1 * p)
    config = t.config("mdc_first", s)
    runtime.launch(mdc_first_call(config, c, t.precision), (p // config.block,), t.tma, **shared)
    config = t.config("mdc_rest", s)
    rest = dict(sb=flat[: (a1 + 2) * p], w5=w5, w3=w3, wc=w1, wj=w1, pitch=pitch, keep_row=(keep or 0) * p, y_row=y * p)
    runtime.launch(mdc_rest_call(config, c, keep is not None, t.precision), (p // config.block,), t.tma, **shared, **rest)
