"""The CUDA kernel of the paper D-BSN's module on an emulated GPU: against PyTorch and float64, with guards around its memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.ops import mdc, mdc_cuda
from fastbsn.ops.operator import tap_major
from tests.kernels import checks

from ..conftest import SEED
from .test_kernels import Counts

C, GUARD = mdc_cuda.CHANNELS, 64
HALF, BF16 = torch.float16, torch.bfloat16
Library = Callable[[str], ctypes.CDLL]


@pytest.fixture(scope="session")
def emulated(library: Library) -> ctypes.CDLL:
    return library("mdc.cpp")


def packed(params: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    spatial = [tap_major(w.flatten(2), dtype) for w, _ in params if w.shape[-1] > 1]
    pointwise = torch.cat([m.T for m in mdc.pointwise_matrices(params)]).to(dtype)
    return mdc_cuda.pack(*spatial, pointwise), torch.stack([b for _, b in params]).float()


def run(
    library: ctypes.CDLL,
    x: Tensor,
    modules: list[list[tuple[Tensor, Tensor]]],
    d: int,
    grid: int,
    outside: Tensor | None = None,
    seed: int = SEED,
) -> tuple[Tensor, Counts]:
    """x through the modules, the order of threads drawn from `seed`; around the arrays, and between images and rows, everything is NaN."""
    flat, counts = Flat(x.shape[0], x.shape[2], x.shape[3], d, 2), Counts()
    arrays = [torch.full((flat.positions + 2 * GUARD, C), math.nan, dtype=x.dtype) for _ in range(2)]
    slots, inside = [a[GUARD:-GUARD] for a in arrays], flat.inside(x.device, outside)
    flat.pack(x if outside is None else x.masked_fill(outside, 0), out=slots[0])
    for params in modules:
        weights, bias = packed(params, x.dtype)
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*slots, inside, weights, bias)]
        images = flat.n * d * d
        library.run_mdc(int(x.dtype == HALF), *pointers, images, flat.hp, flat.wp, flat.rows, flat.pitch, grid, seed, ctypes.byref(counts))
        written = flat.pixels(torch.arange(flat.positions)[:, None]).flatten()
        assert slots[1][written].isfinite().all(), "a pixel was not written, or what is no pixel was read"
        assert (slots[1][inside == 0][slots[1][inside == 0].isfinite()] == 0).all()
        assert arrays[1].isfinite().any(1).sum() == len(written), "what is no pixel was written"
        slots.reverse(), arrays.reverse()
        arrays[1].fill_(math.nan)
    return flat.unpack(slots[0]), counts


def reference(x: Tensor, modules: list[list[tuple[Tensor, Tensor]]], d: int, dtype: torch.dtype, outside: Tensor | None) -> Tensor:
    x = x.to(dtype)
    for params in modules:
        x = mdc.mdc_module_reference(x, [(w.to(dtype), b.to(dtype)) for w, b in params], d, outside)
    return x


@pytest.mark.parametrize(
    "n, h, w, d, dtype, count, grid",
    [  # those of tests/kernels, then several tiles each way in one thread block after another, and several thread blocks
        (1, 1, 1, 3, HALF, 1, 1),
        (2, 7, 5, 2, HALF, 2, 1),
        (1, 5, 11, 3, BF16, 1, 2),
        (1, 6, 4, 2, BF16, 1, 3),
        (1, 3, 4, 2, HALF, 2, 1),
        (1, 18, 35, 1, BF16, 1, 2),
        (1, 34, 16, 1, HALF, 1, 1),
    ],
)
def test_as_good_as_pytorch(emulated: ctypes.CDLL, n: int, h: int, w: int, d: int, dtype: torch.dtype, count: int, grid: int) -> None:
    x = torch.randn(n, C, h, w).to(dtype)
    modules = [checks.random_module(C, "mdc", "cpu", dtype) for _ in range(count)]
    got, counts = run(emulated, x, modules, d, grid)
    checks.assert_as_good(got, reference(x, modules, d, dtype, None), reference(x, modules, d, torch.float64, None))
    assert counts.arrival_conflicts == 0


def test_the_order_of_threads_changes_nothing(emulated: ctypes.CDLL) -> None:
    x, modules = torch.randn(1, C, 20, 18).to(BF16), [checks.random_module(C, "mdc", "cpu", BF16)]
    first, *others = (run(emulated, x, modules, 1, 1, seed=seed)[0] for seed in range(SEED, SEED + 3))
    assert all(torch.equal(first, other) for other in others)


def test_positions_outside_a_phase(emulated: ctypes.CDLL) -> None:
    x, outside = torch.randn(2, C, 9, 19).to(HALF), torch.rand(2, 1, 9, 19) < 0.2
    modules = [checks.random_module(C, "mdc", "cpu", HALF)]
    kept = ~outside
    got, _ = run(emulated, x, modules, 1, 2, outside)
    x = x.masked_fill(outside, 0)
    checks.assert_as_good(
        got * kept, reference(x, modules, 1, HALF, outside) * kept, reference(x, modules, 1, torch.float64, outside) * kept
    )


@pytest.mark.parametrize("images, h, w, d", [(1, 1, 1, 1), (2, 37, 70, 2), (1, 16, 32, 3), (3, 33, 15, 1)])
def test_tiles_cover_every_pixel_once(emulated: ctypes.CDLL, images: int, h: int, w: int, d: int) -> None:
    flat = Flat(images, h, w, d, 2)
    written = torch.zeros(flat.positions, dtype=torch.int32)
    emulated.cover(images * d * d, flat.hp, flat.wp, flat.rows, flat.pitch, ctypes.c_void_p(written.data_ptr()))
    expected = torch.zeros(flat.positions, 1, dtype=torch.int32)
    flat.pixels(expected)[:] = 1
    assert torch.equal(written, expected[:, 0])
