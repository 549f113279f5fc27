"""Forward and backward of every operation through the kernels, against float64."""

from __future__ import annotations

import pytest
import torch

from fastbsn.kernels import runtime, tuning
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.tuning import Config
from tests.conftest import SEED
from tests.kernels import checks
from tests.kernels.interpreter import DEVICE

HALF, BF16, FULL = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("n", "c", "o", "h", "w", "k", "dtype"),
    [
        (1, 8, 8, 1, 1, 3, FULL),
        (2, 16, 24, 7, 5, 3, HALF),
        (1, 24, 16, 13, 19, 5, HALF),
        (3, 8, 8, 4, 6, 5, BF16),
        (1, 16, 16, 14, 16, 3, FULL),  # 255 positions: one less than the blocks hold
        (1, 8, 8, 15, 15, 3, HALF),  # 256 positions
        (2, 8, 16, 11, 10, 3, BF16),  # 264 positions
        (1, 136, 144, 3, 4, 3, HALF),  # columns in two blocks
        (1, 8, 136, 4, 3, 3, FULL),
    ],
)
def test_masked_convolution(n, c, o, h, w, k, dtype):
    checks.check_masked_conv(n, c, o, h, w, k, dtype, DEVICE, relu=(h + w) % 2 == 0)


@pytest.mark.parametrize(
    ("n", "c", "h", "w", "modules", "d", "dtype"),
    [
        (1, 8, 1, 1, 1, 2, FULL),
        (2, 24, 7, 5, 2, 2, HALF),
        (1, 16, 13, 17, 2, 3, FULL),
        (1, 48, 9, 6, 1, 3, BF16),
        (1, 16, 30, 30, 1, 2, HALF),  # d divides
        (1, 136, 3, 4, 2, 2, FULL),  # from here on layer by layer
        (1, 144, 3, 4, 1, 3, HALF),
    ],
)
def test_residual_modules(n, c, h, w, modules, d, dtype):
    checks.check_body("residual", n, c, h, w, modules, d, dtype, DEVICE)


@pytest.mark.parametrize(
    ("n", "c", "h", "w", "modules", "d", "dtype"),
    [
        (1, 8, 1, 1, 1, 3, FULL),
        (2, 16, 7, 5, 2, 2, HALF),
        (1, 24, 5, 11, 1, 3, FULL),
        (1, 8, 6, 4, 1, 2, BF16),
        (1, 136, 3, 4, 2, 2, HALF),
        (1, 144, 3, 4, 1, 3, FULL),
    ],
)
def test_mdc_modules(n, c, h, w, modules, d, dtype):
    checks.check_body("mdc", n, c, h, w, modules, d, dtype, DEVICE)


@pytest.mark.parametrize("c", [16, 136])
@pytest.mark.parametrize("kind", ["residual", "mdc"])
def test_a_module_on_phases_of_different_extent(kind, c):
    checks.check_module_on_phases(kind, 1, c, 7, 8, 3, HALF, DEVICE)


@pytest.mark.parametrize("tma", [True, False])
@pytest.mark.parametrize(("n", "block"), [(2, 64), (1, 256)])  # one block: it reads beyond a slot before any is written there
def test_memory(n, block, tma, monkeypatch):
    monkeypatch.setattr(runtime, "TMA_IN_INTERPRETER", tma)
    with tuning.forced(all=Config(block, 16, 4, 2)):
        checks.check_memory(24, 40, Flat(n, 7, 9, 2, 2), 5, HALF, DEVICE)


@pytest.mark.parametrize("i", range(4))
def test_random_shapes(i):
    checks.check_random(1000 * SEED + i, DEVICE, largest=14, widest=40)


def test_positions_that_do_not_split_evenly():
    with tuning.forced(wgrad=Config(16, 16, 4, 2)):  # 48 blocks in 10 parts of 5
        checks.check_body("residual", 1, 8, 24, 24, 1, 2, HALF, DEVICE)


def test_split_sums_repeat_bit_equal():
    checks.check_repeats(lambda: checks.weight_gradients_twice_split(8, Flat(1, 20, 24, 1, 1), HALF, DEVICE), 3)
