"""The two ends of a D-BSN at inference: image -> phases of a branch, and both branches -> prediction and features.

Phases of a branch with dilation D are stored as in tiles.py; the image is read and the outputs are written at full resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime
from .runtime import Call, constants
from .tiles import bias_block, blocks, relu, tap_of
from .tuning import Config, width

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def pack_kernel(
    image_ptr,  # [N, IN, H, W] fp32
    packed_ptr,  # [N * H * W, KX]
    pixels,  # N * H * W
    plane,  # H * W
    IN: tl.constexpr,
    KX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Channels last, in two parts that add up to the float32 value, then two columns of ones, then zeros.

    Columns of a product come in 16 anyway, so the image keeps its precision and the ones carry the bias of the first
    layer (also in two parts) at no cost; a pixel outside the image, read as zeros, then has ReLU(0) = 0 after that layer.
    """
    i = (tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK))[:, None]
    k = tl.arange(0, KX)[None, :]
    known = (i < pixels) & (k < 2 * IN)
    value = tl.load(image_ptr + (i // plane * IN + k % IN) * plane + i % plane, mask=known, other=0.0)
    high = value.to(packed_ptr.dtype.element_ty).to(tl.float32)
    low = tl.where(tl.abs(high) < float("inf"), value - high, 0.0)
    ones = tl.where((k >= 2 * IN) & (k < 2 * IN + 2), 1.0, 0.0)
    packed = tl.where(k < IN, high, tl.where(k < 2 * IN, low, ones))
    tl.store(packed_ptr + i * KX + k, packed.to(packed_ptr.dtype.element_ty), mask=i < pixels)


@triton.jit
def head_kernel(
    packed_ptr,  # [N * H * W, KX]
    wh,  # [KX, C] head 1x1 with its bias in the rows of ones
    wm,  # [(K * K - 1) * C, C] masked convolution
    w1,  # [2 * C, C] the two 1x1 behind it
    b_ptr,  # [3, C] fp32: masked convolution, the two 1x1
    y,  # [P, C]
    images,
    height,
    width,
    rows,
    pitch,
    C: tl.constexpr,
    D: tl.constexpr,
    KX: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = ReLU(1x1(ReLU(1x1(ReLU(masked(ReLU(1x1 image))))))): the head is computed again for every tap, from KX columns instead of C."""
    K: tl.constexpr = 2 * D - 1
    wh, wm = blocks(wh, KX, C, KX, CHUNK), blocks(wm, (K * K - 1) * C, C, CHUNK, N)
    w1, y = blocks(w1, 2 * C, C, N, N), blocks(y, tl.num_programs(0) * BLOCK, C, BLOCK, N)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    phase = p // pitch // rows
    py, px = p // pitch % rows * D + phase % (D * D) // D, p % pitch * D + phase % D
    inside = (phase < images * D * D) & (py < height) & (px < width)
    pixel = (phase // (D * D) * height + py).to(tl.int64) * width + px
    k = tl.arange(0, KX)[None, :]
    acc = bias_block(b_ptr, 0, C, BLOCK, N)
    for i in tl.range(0, K * K - 1, num_stages=STAGES):
        tap = tap_of(i, K, True)
        dy, dx = tap // K - K // 2, tap % K - K // 2
        ok = inside & (py + dy >= 0) & (py + dy < height) & (px + dx >= 0) & (px + dx < width)
        near = tl.load(packed_ptr + (pixel + dy * width + dx)[:, None] * KX + k, mask=ok[:, None], other=0.0)
        for c in tl.static_range(0, C, CHUNK):
            head = relu(tl.dot(near, wh.load([0, c]), input_precision=PRECISION)).to(y.dtype)
            acc = tl.dot(head, wm.load([i * C + c, 0]), acc, input_precision=PRECISION)
    out = relu(acc).to(y.dtype)
    out = relu(tl.dot(out, w1.load([0, 0]), bias_block(b_ptr, C, C, BLOCK, N), input_precision=PRECISION)).to(y.dtype)
    out = relu(tl.dot(out, w1.load([C, 0]), bias_block(b_ptr, 2 * C, C, BLOCK, N), input_precision=PRECISION))
    y.store([tl.program_id(0) * BLOCK, 0], tl.where(inside[:, None], out, 0.0).to(y.dtype))


@triton.jit
def _branch(
    z,
    s_ptr,
    wp,
    wc,
    b_ptr,
    known,
    n,
    py,
    px,
    rows,
    pitch,
    i: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    LIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """z + pixels of branch i [P, C] times matrix i, or (LIGHT) z + ReLU(pixels times matrix i + bias i) times matrix i + 2."""
    row = ((n * D + py % D) * D + px % D) * rows + py // D
    at = (row.to(tl.int64) * pitch + px // D)[:, None] * C
    for m in tl.static_range(0, C, CHUNK):
        k = m + tl.arange(0, CHUNK)[None, :]
        if LIGHT:
            part = bias_block(b_ptr, i * C + m, C - m, BLOCK, CHUNK)
            for c in tl.static_range(0, C, CHUNK):
                k = c + tl.arange(0, CHUNK)[None, :]
                a = tl.load(s_ptr + at + k, mask=known & (k < C), other=0.0)
                part = tl.dot(a, wc.load([i * C + c, m]), part, input_precision=PRECISION)
            z = tl.dot(relu(part).to(wp.dtype), wp.load([(i + 2) * C + m, 0]), z, input_precision=PRECISION)
        else:
            a = tl.load(s_ptr + at + k, mask=known & (k < C), other=0.0)
            z = tl.dot(a, wp.load([i * C + m, 0]), z, input_precision=PRECISION)
    return z


@triton.jit
def tail_kernel(
    s2_ptr,  # [P, C] branch of dilation 2
    s3_ptr,  # [P, C] branch of dilation 3
    w,  # [7 * C, C] in blocks [N, N]: of branch 2, of branch 3, join of 2, join of 3, three tail layers
    wp,  # the same in blocks [CHUNK, N]
    wc,  # the same in blocks [CHUNK, CHUNK]
    wn,  # the same in blocks [N, CHUNK]
    wo,  # the same in blocks [CHUNK, NO], for the last layer
    b_ptr,  # [7, C] fp32: of branch 2, of branch 3, join, unused, three tail layers
    mu_ptr,  # [N, IN, H, W] fp32
    features,  # [N * H * W, C] fp32, or None
    pixels,  # N * H * W
    height,
    width,
    rows2,
    pitch2,
    rows3,
    pitch3,
    IN: tl.constexpr,
    NO: tl.constexpr,
    C: tl.constexpr,
    LIGHT: tl.constexpr,
    FOLDED: tl.constexpr,  # the first tail layer is already in the matrices of the branches
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Light: ReLU(1x1) per branch, join, ReLU, tail. Paper: the linear 1x1 of the branches are folded into the join."""
    w, wp, wc = blocks(w, 7 * C, C, N, N), blocks(wp, 7 * C, C, CHUNK, N), blocks(wc, 7 * C, C, CHUNK, CHUNK)
    wn, wo = blocks(wn, 7 * C, C, N, CHUNK), blocks(wo, 7 * C, C, CHUNK, NO)
    first = tl.program_id(0) * BLOCK
    i = first + tl.arange(0, BLOCK)
    known = (i < pixels)[:, None]
    plane = height * width
    n, r = i // plane, i % plane
    py, px = r // width, r % width
    z = bias_block(b_ptr, 2 * C, C, BLOCK, N)
    z = _branch(z, s2_ptr, wp, wc, b_ptr, known, n, py, px, rows2, pitch2, 0, C, 2, LIGHT, BLOCK, CHUNK, PRECISION)
    z = _branch(z, s3_ptr, wp, wc, b_ptr, known, n, py, px, rows3, pitch3, 1, C, 3, LIGHT, BLOCK, CHUNK, PRECISION)
    if features is not None:
        blocks(features, pixels, C, BLOCK, N).store([first, 0], z)
    if LIGHT:
        z = relu(z)
    if not FOLDED:
        z = tl.dot(z.to(w.dtype), w.load([4 * C, 0]), bias_block(b_ptr, 4 * C, C, BLOCK, N), input_precision=PRECISION)
    z = relu(z).to(w.dtype)
    out = bias_block(b_ptr, 6 * C, C, BLOCK, NO)
    for m in tl.static_range(0, C, CHUNK):
        part = tl.dot(z, wn.load([5 * C, m]), bias_block(b_ptr, 5 * C + m, C - m, BLOCK, CHUNK), input_precision=PRECISION)
        out = tl.dot(relu(part).to(w.dtype), wo.load([6 * C + m, 0]), out, input_precision=PRECISION)
    column = tl.arange(0, NO)[None, :]
    at = (n.to(tl.int64) * IN * plane + r)[:, None] + column.to(tl.int64) * plane
    tl.store(mu_ptr + at, out, mask=known & (column < IN))


def packed_width(in_channels: int) -> int:
    """KX: columns of the packed image."""
    return width(2 * in_channels + 2)


def pack_call(config: Config, in_channels: int) -> Call:
    return Call(pack_kernel, config, {}, dict(IN=in_channels, KX=packed_width(in_channels), BLOCK=config.block))


def head_call(config: Config, c: int, d: int, in_channels: int, precision: str = "ieee") -> Call:
    n, kx = width(c), packed_width(in_channels)
    shapes = dict(wh=(kx, config.chunk), wm=(config.chunk, n), w1=(n, n), y=(config.block, n))
    return Call(head_kernel, config, shapes, constants(config, precision, C=c, D=d, KX=kx, N=n))


def tail_call(config: Config, c: int, in_channels: int, light: bool, folded: bool, precision: str = "ieee") -> Call:
    n = width(c)
    sizes = dict(IN=in_channels, NO=width(in_channels), C=c, LIGHT=light, FOLDED=folded, N=n)
    tile, chunk, no = config.block, config.chunk, width(in_channels)
    shapes = dict(w=(n, n), wp=(chunk, n), wc=(chunk, chunk), wn=(n, chunk), wo=(chunk, no), features=(tile, n))
    return Call(tail_kernel, config, shapes, sizes | dict(BLOCK=config.block, CHUNK=config.chunk, PRECISION=precision))


def pack(image: Tensor, packed: Tensor) -> None:
    """[N, IN, H, W] float32, contiguous -> [N * H * W, KX], written."""
    n, channels, h, w = image.shape
    config = runtime.target(image).config("pack", packed)
    grid = (-(-packed.shape[0] // config.block),)
    runtime.launch(pack_call(config, channels), grid, False, image_ptr=image, packed_ptr=packed, pixels=n * h * w, plane=h * w)


def head(
    packed: Tensor,  # [N * H * W, KX]
    wh: Tensor,  # [KX, C]
    wm: Tensor,  # [taps * C, C]
    w1: Tensor,  # [2 * C, C]
    bias: Tensor,  # [3, C] float32
    y: Tensor,  # [P, C], written
    shape: tuple[int, int, int, int],  # of the image
    rows: int,
    pitch: int,
    d: int,
) -> None:
    t, (n, in_channels, h, w) = runtime.target(y), shape
    config = t.config("head", y)
    call = head_call(config, y.shape[1], d, in_channels, t.precision)
    sizes = dict(images=n, height=h, width=w, rows=rows, pitch=pitch)
    runtime.launch(call, (y.shape[0] // config.block,), t.tma, packed_ptr=packed, wh=wh, wm=wm, w1=w1, b_ptr=bias, y=y, **sizes)


def tail(
    branches: tuple[Tensor, Tensor],  # [P, C] of dilation 2 and 3
    geometry: tuple[int, int, int, int],  # rows, pitch of either
    w: Tensor,  # [7 * C, C]
    bias: Tensor,  # [7, C] float32
    mu: Tensor,  # [N, IN, H, W] float32, written
    features: Tensor | None,  # [N * H * W, C] float32, written if given
    light: bool,
    folded: bool,
) -> None:
    (s2, s3), (n, in_channels, height, width) = branches, mu.shape
    t, c = runtime.target(s2), s2.shape[1]
    config = t.config("tail", s2)
    sizes = dict(zip(("rows2", "pitch2", "rows3", "pitch3"), geometry, strict=True))
    sizes |= dict(pixels=n * height * width, height=height, width=width)
    call = tail_call(config, c, in_channels, light, folded, t.precision)
    arguments = dict(s2_ptr=s2, s3_ptr=s3, w=w, wp=w, wc=w, wn=w, wo=w, b_ptr=bias, mu_ptr=mu, features=features)
    runtime.launch(call, (-(-n * height * width // config.block),), t.tma, **arguments, **sizes)
