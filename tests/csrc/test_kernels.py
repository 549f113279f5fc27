"""The tensor-core kernels, compiled for a CPU and run thread by thread, against the CPU executor, block by block."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastbsn.nets import UNet

from ..conftest import SEED
from .conftest import layer_pointers, random_unet

SIZES = {"wide": (1, 166912), "narrow": (1, 101376), "hopper": (2, 232448)}  # path, and bytes for one block: sm_80; sm_86, 89, 120; sm_90


NAMES = (
    *("row_copies", "rows_at_once", "rows_outlived", "wavefronts", "conflicts", "matrices", "matrix_conflicts"),
    *("arrivals", "arrival_conflicts", "sectors", "uncoalesced"),
)


class Counts(ctypes.Structure):
    """`emulate::Counts`: what the emulated GPU saw of one block."""

    _fields_ = [(name, ctypes.c_int64) for name in NAMES]


def compare(
    library: ctypes.CDLL, net: UNet, x: Tensor, path: int, shared: int, processors: int, grid: int
) -> tuple[list[float], list[Counts]]:
    """Per block: the largest difference, relative to the largest value; and what was counted."""
    n, c, h, w = x.shape
    pointers, _alive = layer_pointers(net)
    y, message = torch.empty_like(x), ctypes.create_string_buffer(400)
    differences, counts = (ctypes.c_float * 32)(), (Counts * 32)()
    blocks = library.compare_paths(
        *(c, net.config["channels"], net.depth, n, h, w, path, ctypes.c_int64(shared), processors, grid, SEED, pointers),
        *(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), differences, counts, message, len(message)),
    )
    assert blocks >= 0, message.value.decode()
    return list(differences)[:blocks], list(counts)[:blocks]


@pytest.mark.parametrize(
    "size, in_channels, depth, shape, processors, grid",
    [
        ("wide", 3, 3, (1, 10, 88), 1, 1),  # several steps of rows in a tile
        ("wide", 1, 2, (1, 3, 86), 1, 1),
        ("narrow", 1, 2, (2, 5, 70), 1, 2),  # two tiles across, two images
        ("hopper", 3, 3, (1, 20, 5), 1, 1),
        ("hopper", 1, 2, (2, 4, 130), 1, 2),
        ("wide", 2, 2, (1, 18, 3), 8, 3),  # as narrow as the image;  # several tiles down, in one thread block after another
    ],
)
def test_kernels_equal_the_executor(
    library: Callable[[str], ctypes.CDLL],
    size: str,
    in_channels: int,
    depth: int,
    shape: tuple[int, int, int],
    processors: int,
    grid: int,
) -> None:
    net = random_unet(in_channels, 48, depth)
    x = torch.rand(shape[0], in_channels, *shape[1:])
    differences, counts = compare(library("kernels.cpp"), net, x, *SIZES[size], processors, grid)
    assert len(differences) == 2 * depth + 1
    # Sums in another order may round to the next bf16; the last block's result is fp32, after sums of such values.
    assert all(d <= 2**-7 for d in differences), differences
    # What the layout of the rings promises: operands without bank conflicts. Rows that arrive by parity of their columns take two turns,
    # and so does gathering im2col rows of a narrow tile, where a warp reads two rows of the image.
    for i, block in enumerate(counts):
        assert block.matrix_conflicts == 0 and block.arrival_conflicts <= block.arrivals
        assert block.conflicts <= (block.wavefronts if i in (0, len(counts) - 1) else 0)
        assert block.uncoalesced <= 0.75 * block.sectors or shape[2] < 60  # a short row has its ends in sectors of others


def test_rows_arrive_while_blocks_of_several_stages_multiply(library: Callable[[str], ctypes.CDLL]) -> None:
    """All but those that a tile begins with: 6 of the 18 that a tile of four steps reads."""
    x = torch.rand(1, 1, 34, 5)
    _, counts = compare(library("kernels.cpp"), random_unet(1, 48, 2), x, *SIZES["wide"], 1, 1)
    decoders = counts[3:]
    assert all(0 < block.rows_at_once <= 0.4 * block.row_copies for block in decoders), [c.rows_at_once / c.row_copies for c in decoders]
    # The wait for a chunk of weights, issued before them, leaves all of these on their way.
    assert all(block.rows_outlived == block.row_copies - block.rows_at_once for block in decoders)
