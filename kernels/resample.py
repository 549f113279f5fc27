"""2x2 max pooling and nearest upsampling between two levels of a U-Net in the layout [P, C], forward and backward.

A level has images of h x w pixels, one zero column behind each row and one zero row below each image; the finer level has twice the
pixels each way. The backward kernels also go through the LeakyReLU of the convolution in front, and sum up its bias gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from . import runtime
from .runtime import Call
from .tuning import Config, column_block

if TYPE_CHECKING:
    from torch import Tensor

Level = tuple[int, int, int]  # images, and height and width of the coarse level

CONFIG = Config(32, 16, 4, 1)  # bound by memory, whatever the block
SIZES = ("images", "h", "w")  # not worth a compilation of their own where they are 1 or a multiple of 16


@triton.jit
def _here(images, h, w, C: tl.constexpr, BLOCK: tl.constexpr, N: tl.constexpr):
    """This program's block at a level of h x w pixels: offsets, columns, pixels (image, row, column), and where there is a value."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * N + tl.arange(0, N)[None, :]
    image, i, j = p // ((h + 1) * (w + 1)), p // (w + 1) % (h + 1), p % (w + 1)
    inside = (image < images) & (i < h) & (j < w)
    return p.to(tl.int64)[:, None] * C + c, c, image, i, j, inside[:, None] & (c < C)


@triton.jit
def _place(image, i, j, h, w, C: tl.constexpr):
    """Offset of a pixel's row of C values, [BLOCK, 1]."""
    return (((image.to(tl.int64) * (h + 1) + i) * (w + 1) + j) * C)[:, None]


@triton.jit
def _sum_columns(values, sums_ptr, c, C: tl.constexpr):
    tl.store(sums_ptr + tl.program_id(0).to(tl.int64) * C + c, tl.sum(values, 0)[None, :], mask=c < C)


@triton.jit(do_not_specialize=SIZES)
def pool_kernel(
    x_ptr,  # [fine P, C]
    y_ptr,  # [P, C]
    images,
    h,  # pixels of the coarse level
    w,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    """y = the largest of four pixels of x."""
    here, c, image, i, j, known = _here(images, h, w, C, BLOCK, N)
    at = x_ptr + _place(image, 2 * i, 2 * j, 2 * h, 2 * w, C) + c
    below = x_ptr + _place(image, 2 * i + 1, 2 * j, 2 * h, 2 * w, C) + c
    top = tl.maximum(tl.load(at, known, 0.0), tl.load(at + C, known, 0.0), propagate_nan=tl.PropagateNan.ALL)
    bottom = tl.maximum(tl.load(below, known, 0.0), tl.load(below + C, known, 0.0), propagate_nan=tl.PropagateNan.ALL)
    largest = tl.maximum(top, bottom, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y_ptr + here, largest, mask=c < C)


@triton.jit(do_not_specialize=SIZES)
def pool_backward_kernel(
    x_ptr,  # [fine P, C] what was pooled: LeakyReLU(z)
    y_ptr,  # [P, C] the result
    dy_ptr,  # [P, C]
    dz_ptr,  # [fine P, C], written
    sums_ptr,  # [blocks, C] fp32: column sums of dz
    images,
    h,  # pixels of the coarse level
    w,
    C: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    """The first of four equal pixels takes the gradient, as in PyTorch."""
    here, c, image, i, j, known = _here(images, 2 * h, 2 * w, C, BLOCK, N)
    coarse = _place(image, i // 2, j // 2, h, w, C) + c
    largest, d = tl.load(y_ptr + coarse, known, 0.0), tl.load(dy_ptr + coarse, known, 0.0).to(tl.float32)
    own = tl.load(x_ptr + here, known, 0.0)
    order = (i % 2 * 2 + j % 2)[:, None]
    takes = own == largest
    for k in tl.static_range(3):
        at = x_ptr + _place(image, i // 2 * 2 + k // 2, j // 2 * 2 + k % 2, 2 * h, 2 * w, C) + c
        earlier = tl.load(at, known & (k < order), 0.0)
        takes = takes & ((k >= order) | (earlier != largest))
    d = tl.where(takes & known, tl.where(own <= 0, SLOPE * d, d), 0.0)
    tl.store(dz_ptr + here, d.to(dz_ptr.dtype.element_ty), mask=c < C)
    _sum_columns(d, sums_ptr, c, C)


@triton.jit(do_not_specialize=SIZES)
def upsample_kernel(
    x_ptr,  # [P, C]
    y_ptr,  # [fine P, C], written
    images,
    h,  # pixels of the coarse level
    w,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    """Each pixel four times."""
    here, c, image, i, j, known = _here(images, 2 * h, 2 * w, C, BLOCK, N)
    x = tl.load(x_ptr + _place(image, i // 2, j // 2, h, w, C) + c, known, 0.0)
    tl.store(y_ptr + here, x, mask=c < C)


@triton.jit(do_not_specialize=SIZES)
def upsample_backward_kernel(
    x_ptr,  # [P, C] what was upsampled: LeakyReLU(z)
    dy_ptr,  # [fine P, C]
    dz_ptr,  # [P, C], written
    sums_ptr,  # [blocks, C] fp32: column sums of dz
    images,
    h,  # pixels of the coarse level
    w,
    C: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    here, c, image, i, j, known = _here(images, h, w, C, BLOCK, N)
    d = tl.zeros([BLOCK, N], tl.float32)
    for k in tl.static_range(4):
        d += tl.load(dy_ptr + _place(image, 2 * i + k // 2, 2 * j + k % 2, 2 * h, 2 * w, C) + c, known, 0.0)
    own = tl.load(x_ptr + here, known, 0.0)
    d = tl.where(own <= 0, SLOPE * d, d)
    tl.store(dz_ptr + here, d.to(dz_ptr.dtype.element_ty), mask=c < C)
    _sum_columns(d, sums_ptr, c, C)


def resample_call(kernel: triton.JITFunction, c: int, slope: float | None = None) -> Call:
    sizes = dict(C=c, BLOCK=CONFIG.block, N=column_block(c))
    return Call(kernel, CONFIG, {}, sizes if slope is None else sizes | dict(SLOPE=slope))


def _run(kernel: Any, over: Tensor, level: Level, slope: float | None = None, **tensors: Tensor) -> None:
    call = resample_call(kernel, over.shape[1], slope)
    grid = (over.shape[0] // call.config.block, -(-over.shape[1] // call.constants["N"]))
    runtime.launch(call, grid, False, **tensors, **dict(zip(("images", "h", "w"), level, strict=True)))


def _sums(over: Tensor) -> Tensor:
    return runtime.empty_float32(over, over.shape[0] // CONFIG.block, over.shape[1])


def pool(x: Tensor, y: Tensor, level: Level) -> None:
    """2x2 max of x into y."""
    _run(pool_kernel, y, level, x_ptr=x, y_ptr=y)


def pool_backward(x: Tensor, y: Tensor, dy: Tensor, dz: Tensor, level: Level, slope: float) -> Tensor:
    """Gradient before the LeakyReLU that made x, into dz; its column sums by block."""
    sums = _sums(dz)
    _run(pool_backward_kernel, dz, level, slope, x_ptr=x, y_ptr=y, dy_ptr=dy, dz_ptr=dz, sums_ptr=sums)
    return sums


def upsample(x: Tensor, y: Tensor, level: Level) -> None:
    """x, each pixel four times, into y."""
    _run(upsample_kernel, y, level, x_ptr=x, y_ptr=y)


def upsample_backward(x: Tensor, dy: Tensor, dz: Tensor, level: Level, slope: float) -> Tensor:
    """Gradient before the LeakyReLU that made x, into dz; its column sums by block."""
    sums = _sums(dz)
    _run(upsample_backward_kernel, dz, level, slope, x_ptr=x, dy_ptr=dy, dz_ptr=dz, sums_ptr=sums)
    return sums
