"""Weight gradients of any set of convolutions whose inputs and output gradients share a layout, in one launch.

Tap t of a convolution with input x and output gradient z has the gradient sum over p of x[p + offset(t)]^T z[p]. Two products that
share z go through one program. The sum over p is split into parts that are added afterwards in a fixed order: no atomics, so
repeats are bit-equal. A masked tap has no entry.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import triton
import triton.language as tl

from . import runtime
from .runtime import Call
from .tiles import blocks
from .tuning import Config, column_block

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@triton.jit(do_not_specialize=("x_rows", "z_rows", "entries", "per_split", "total"))
def wgrad_kernel(
    x,  # [x_rows, C]
    z,  # [z_rows, CO], zero outside the image
    table_ptr,  # [groups, 5] int32: first row in x, first row in x, first row in z, place in dw, place in dw or -1
    dw_ptr,  # [splits, entries, C, CO] fp32
    x_rows,
    z_rows,
    entries,
    per_split,  # blocks of positions
    total,  # blocks of positions
    C: tl.constexpr,
    CO: tl.constexpr,
    BLOCK: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    x, z = blocks(x, x_rows, C, BLOCK, M), blocks(z, z_rows, CO, BLOCK, N)
    m0, n0 = tl.program_id(2) // tl.cdiv(CO, N) * M, tl.program_id(2) % tl.cdiv(CO, N) * N
    i_s, group = tl.program_id(0), table_ptr + tl.program_id(1) * 5
    row0, row1, z_row = tl.load(group), tl.load(group + 1), tl.load(group + 2)
    acc0, acc1 = tl.zeros([M, N], tl.float32), tl.zeros([M, N], tl.float32)
    for i in tl.range(i_s * per_split, tl.minimum((i_s + 1) * per_split, total), num_stages=STAGES):
        d = z.load([z_row + i * BLOCK, n0])
        acc0 = tl.dot(x.load([row0 + i * BLOCK, m0]).T, d, acc0, input_precision=PRECISION)
        acc1 = tl.dot(x.load([row1 + i * BLOCK, m0]).T, d, acc1, input_precision=PRECISION)
    m, n = m0 + tl.arange(0, M)[:, None], n0 + tl.arange(0, N)[None, :]
    inside = (m < C) & (n < CO)
    out = dw_ptr + i_s.to(tl.int64) * entries * C * CO + m * CO + n
    tl.store(out + tl.load(group + 3) * C * CO, acc0, mask=inside)
    place = tl.load(group + 4)
    tl.store(out + place * C * CO, acc1, mask=inside & (place >= 0))


def wgrad_call(config: Config, c: int, co: int, precision: str = "ieee") -> Call:
    m, n = column_block(c), column_block(co)
    sizes = dict(C=c, CO=co, M=m, N=n, BLOCK=config.block, STAGES=config.stages, PRECISION=precision)
    return Call(wgrad_kernel, config, dict(x=(config.block, m), z=(config.block, n)), sizes)


def pairs(products: list[tuple[int, int]]) -> list[tuple[int, int, int, int, int]]:
    """Rows of `table_ptr` for products (first row in x, first row in z), in order; neighbours with the same z share a program."""
    table, i = [], 0
    while i < len(products):
        row, z = products[i]
        shared = i + 1 < len(products) and products[i + 1][1] == z
        table.append((row, products[i + 1][0], z, i, i + 1) if shared else (row, row, z, i, -1))
        i += 1 + shared
    return table


def tap_products(k: int, pitch: int, masked: bool = False, x: int = 0, z: int = 0) -> list[tuple[int, int]]:
    """(row of x, row of z) of every tap of a k x k convolution, in the order of its weights."""
    taps = [t for t in range(k * k) if not masked or t != k * k // 2]
    return [(x + (t // k - k // 2) * pitch + t % k - k // 2, z) for t in taps]


def weight_gradients(
    x: Tensor,  # [rows, C]
    z: Tensor,  # [rows, CO]
    table: Tensor,  # [groups, 5] int32, of `product_table`
    entries: int,
    positions: int,
) -> Tensor:  # [splits, entries, C, CO] float32, to be summed over the first dimension
    t, (c, co) = runtime.target(x), (x.shape[1], z.shape[1])
    config = t.config("wgrad", z if co > c else x)
    call = wgrad_call(config, c, co, t.precision)
    columns = -(-c // call.constants["M"]) * -(-co // call.constants["N"])
    total = positions // config.block
    splits = max(1, min(total, runtime.programs(x) // (table.shape[0] * columns)))
    per_split = -(-total // splits)
    splits = -(-total // per_split)
    dw = runtime.empty_float32(x, splits, entries, c, co)
    rows = dict(x_rows=x.shape[0], z_rows=z.shape[0], entries=entries, per_split=per_split, total=total)
    runtime.launch(call, (splits, table.shape[0], columns), t.tma, x=x, z=z, table_ptr=table, dw_ptr=dw, **rows)
    return dw


@cache  # for good: a captured CUDA graph may be reading one
def product_table(device: torch.device, products: tuple[tuple[int, int], ...]) -> Tensor:
    """Of `pairs`, on `device`."""
    import torch

    return torch.tensor(pairs(list(products)), dtype=torch.int32, device=device)


def taps_table(device: torch.device, pitch: int, k: int, masked: bool) -> Tensor:
    """For `weight_gradients` of one convolution."""
    return product_table(device, tuple(tap_products(k, pitch, masked)))
