"""The multiple-dilated-convolutions modules of the paper D-BSN, forward: a kernel for the two 1x1 in front of the first one; then for each
the 5x5 (conv.py, in blocks for which all the rest would leave no registers), and the rest with the two 1x1 of the next. On architectures
that are not in `tuning.FUSES_NEXT` the two 1x1 are a kernel of their own before every module.

Every activation of a branch is a slot of one array [slots * P, C] and is named by its first row; P is a multiple of BLOCK, so that a
block never reaches the next slot. What is read with a halo is passed as a slot of its own, beyond which a block reads zero. Matrices in
`w1` [8 * C, C], applied as row vector @ matrix, and biases in `b_ptr` [8, C] are in the order of slots.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime, tuning
from .conv import conv2d
from .runtime import Call, constants
from .slots import BIASES, KEPT, MATRICES, Place, place
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
    a1_row,  # first row of a1
    b1_row,
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
        sn.store([(b1_row if i else a1_row) + p, 0], tl.where(inside, acc, 0.0).to(sn.dtype))


@triton.jit
def mdc_rest_kernel(
    s,  # [slots * P, C] in blocks [BLOCK, CHUNK]
    b1,  # [P, C] likewise
    sn,  # s in blocks [BLOCK, N]
    w3,  # [9 * C, C]
    w1,  # [8 * C, C], or with NEXT [16 * C, C], those of the next module behind; in blocks [N, N]
    wc,  # the same in blocks [CHUNK, N]
    b_ptr,  # [8, C] or [16, C] fp32
    inside_ptr,  # [P] uint8
    rows,  # of s
    P,
    pitch,
    x_row,
    a_row,  # that of y or of KEEP_A
    keep_row,  # first row of six slots a, b, c, j, u, v; the last five are written if KEEP
    y_row,
    next_a1_row,
    next_b1_row,
    C: tl.constexpr,
    KEEP: tl.constexpr,
    NEXT: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """b = ReLU(3x3 b1), c = ReLU(1x1 x), j = ReLU(1x1 [a, b, c]), u = j + x, v = ReLU(1x1 u), y = ReLU(1x1 v); a1 and b1 of y if NEXT."""
    s, b1, sn = blocks(s, rows, C, BLOCK, CHUNK), blocks(b1, P, C, BLOCK, CHUNK), blocks(sn, rows, C, BLOCK, N)
    matrices: tl.constexpr = 16 if NEXT else 8
    w3, w1, wc = blocks(w3, 9 * C, C, CHUNK, N), blocks(w1, matrices * C, C, N, N), blocks(wc, matrices * C, C, CHUNK, N)
    p = tl.program_id(0) * BLOCK
    keep, inside = keep_row + p, is_inside(inside_ptr, p, BLOCK)
    joined = bias_block(b_ptr, BIAS_JOIN * C, C, BLOCK, N)
    joined = tl.dot(sn.load([a_row + p, 0]), w1.load([JA * C, 0]), joined, input_precision=PRECISION)
    acc = bias_block(b_ptr, BIAS_B2 * C, C, BLOCK, N)
    b = relu(sum_taps(acc, b1, w3, p, pitch, 0, C, 3, False, CHUNK, STAGES, PRECISION)).to(s.dtype)
    joined = tl.dot(b, w1.load([JB * C, 0]), joined, input_precision=PRECISION)
    acc = bias_block(b_ptr, BIAS_C * C, C, BLOCK, N)
    c = relu(sum_taps(acc, s, wc, x_row + p, 0, CC * C, C, 1, False, CHUNK, STAGES, PRECISION)).to(s.dtype)
    joined = relu(tl.dot(c, w1.load([JC * C, 0]), joined, input_precision=PRECISION))
    if KEEP:
        sn.store([keep + KEEP_B * P, 0], b)
        sn.store([keep + KEEP_C * P, 0], c)
        sn.store([keep + KEEP_J * P, 0], joined.to(s.dtype))
    u = (joined + sn.load([x_row + p, 0])).to(s.dtype)
    v = bias_block(b_ptr, BIAS_T1 * C, C, BLOCK, N)
    v = relu(tl.dot(u, w1.load([T1 * C, 0]), v, input_precision=PRECISION)).to(s.dtype)
    if KEEP:
        sn.store([keep + KEEP_U * P, 0], u)
        sn.store([keep + KEEP_V * P, 0], v)
    y = bias_block(b_ptr, BIAS_T2 * C, C, BLOCK, N)
    y = relu(tl.dot(v, w1.load([T2 * C, 0]), y, input_precision=PRECISION))
    y = tl.where(inside, y, 0.0).to(s.dtype)
    sn.store([y_row + p, 0], y)
    if NEXT:
        for i in tl.static_range(2):
            acc = bias_block(b_ptr, (8 + BIAS_A1 + 2 * i) * C, C, BLOCK, N)
            acc = relu(tl.dot(y, w1.load([(8 + A1 + i) * C, 0]), acc, input_precision=PRECISION))
            sn.store([(next_b1_row if i else next_a1_row) + p, 0], tl.where(inside, acc, 0.0).to(s.dtype))


def mdc_first_call(config: Config, c: int, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    return Call(mdc_first_kernel, config, dict(s=(tile, chunk), sn=(tile, n), w1=(chunk, n)), constants(config, precision, C=c, N=n))


def mdc_rest_call(config: Config, c: int, keep: bool, following: bool, precision: str = "ieee") -> Call:
    tile, chunk, n = config.block, config.chunk, width(c)
    shapes = dict(s=(tile, chunk), b1=(tile, chunk), sn=(tile, n), w3=(chunk, n), w1=(n, n), wc=(chunk, n))
    return Call(mdc_rest_kernel, config, shapes, constants(config, precision, C=c, N=n, KEEP=keep, NEXT=following))


def mdc_module(
    s: Tensor,  # [slots, P, C], read and written
    w5: Tensor,  # [25 * C, C]
    w3: Tensor,  # [9 * C, C]
    w1: Tensor,  # [8 * C, C], or with `following` [16 * C, C], those of the next module behind
    bias: Tensor,  # [8, C] float32, or with `following` [16, C]
    inside: Tensor,  # [P] uint8
    pitch: int,
    at: Place,
    first: bool = True,  # a1 and b1 are to be computed: no module before has written them
    following: Place | None = None,  # of the next module, whose a1 and b1 are written
) -> None:
    (_, p, c), t, flat = s.shape, runtime.target(s), s.view(-1, s.shape[-1])
    shared = dict(s=flat, sn=flat, w1=w1, b_ptr=bias, inside_ptr=inside, rows=flat.shape[0], P=p, x_row=at.x * p)
    if first:
        config = t.config("mdc_first", s)
        rows = dict(a1_row=at.a1 * p, b1_row=at.b1 * p)
        runtime.launch(mdc_first_call(config, c, t.precision), (p // config.block,), t.tma, **shared, **rows)
    a = at.y if at.keep is None else at.keep
    conv2d(s[at.a1], w5, bias[BIASES.index("a2")], inside, s[a], pitch, 5, act=True, tuned="mdc_taps")
    config = t.config("mdc_rest", s)
    call = mdc_rest_call(config, c, at.keep is not None, following is not None, t.precision)
    after = following or at
    rows = dict(a_row=a * p, keep_row=(at.keep or 0) * p, y_row=at.y * p, next_a1_row=after.a1 * p, next_b1_row=after.b1 * p)
    runtime.launch(call, (p // config.block,), t.tma, **shared, b1=s[at.b1], w3=w3, wc=w1, pitch=pitch, **rows)


def mdc_body(
    s: Tensor,  # [slots, P, C] with x in the slot of the first `place`, read and written
    w5: Tensor,  # [M, 25 * C, C]
    w3: Tensor,  # [M, 9 * C, C]
    w1: Tensor,  # [M, 8 * C, C]
    bias: Tensor,  # [M, 8, C] float32
    inside: Tensor,  # [P] uint8
    pitch: int,
    keep: bool,  # what the backward pass reads
) -> None:
    """M modules in a row; the result is in the last slot."""
    modules, fuses = len(w5), runtime.target(s).arch in tuning.FUSES_NEXT
    places = [place(m, modules, keep) for m in range(modules)]
    for m, at in enumerate(places):
        if s.shape[-1] > tuning.WIDEST:
            from . import wide  # which needs torch

            wide.mdc_module(s, w5[m], w3[m], w1[m], bias[m], inside, pitch, at)
            continue
        following = places[m + 1] if fuses and m + 1 < modules else None
        both = slice(m, m + 1 + (following is not None))
        mdc_module(s, w5[m], w3[m], w1[both].flatten(0, 1), bias[both].flatten(0, 1), inside, pitch, at, m == 0 or not fuses, following)
