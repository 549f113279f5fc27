import math
import weakref
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbsn.errors import BackendError, InputError
from fastbsn.inference import tiling
from fastbsn.inference.tiling import Grid, choose_tile, run
from tests.reliability.numbers import cases


def random_grid(rng: np.random.Generator, largest: int = 300) -> Grid:
    height, width, *tile = (int(n) for n in rng.integers(1, largest, 4))
    return Grid(height, width, tuple(tile), int(rng.integers(0, 40)), int(rng.choice([1, 2, 8, 32])))


def test_random_plans_cover_every_pixel_once(rng):
    for _ in range(cases("G5 random tile plans")):
        grid = random_grid(rng, 120)
        count = np.zeros((grid.height, grid.width), np.uint8)
        for top, bottom, left, right in grid.boxes():
            count[top:bottom, left:right] += 1
        assert (count == 1).all(), grid


def test_windows_hold_the_halo_start_at_multiples_and_have_one_size(rng):
    for _ in range(500):
        grid = random_grid(rng)
        for box in grid.boxes():
            window = grid.window(box)
            for axis, size, side in zip((0, 2), (grid.height, grid.width), grid.window_size, strict=True):
                start, stop = window[axis : axis + 2]
                assert start >= 0 and start % grid.multiple == 0
                assert stop == size or stop % grid.multiple == 0
                assert start <= max(0, box[axis] - grid.halo)
                assert stop >= min(size, box[axis + 1] + grid.halo)
                assert -(-stop // grid.multiple) * grid.multiple - start == side


def test_shrinking_halves_windows_and_keeps_boxes_aligned(rng):
    for _ in range(500):
        grid = random_grid(rng)
        smaller = grid.shrunk()
        if max(grid.tile) > grid.multiple:
            assert prod(smaller.window_size) <= prod(grid.window_size) / 2 or max(smaller.tile) == grid.multiple
        else:
            assert smaller == grid
        parts = [part for box in grid.boxes() for part in smaller.cut(box)]
        assert all(part[0] % grid.multiple == part[2] % grid.multiple == 0 for part in parts)
        assert sum((b - t) * (r - left) for t, b, left, r in parts) == grid.height * grid.width


def test_chosen_tile_fits_and_is_the_cheapest(rng):
    def cost(grid):
        return prod(grid.window_size) * len(grid.boxes())

    for _ in range(40):
        m = int(rng.choice([8, 32]))
        h, w, halo = int(rng.integers(1, 15 * m)), int(rng.integers(1, 15 * m)), int(rng.integers(0, 2 * m))
        limit = int(rng.integers((5 * m) ** 2, 2 * h * w + (5 * m) ** 2 + 1))
        grids = [Grid(h, w, (y, x), halo, m) for y in range(m, h + m, m) for x in range(m, w + m, m)]
        best = min(cost(grid) for grid in grids if prod(grid.window_size) <= limit)
        chosen = Grid(h, w, choose_tile(h, w, halo, m, limit), halo, m)
        assert prod(chosen.window_size) <= limit and cost(chosen) == best


def test_whole_image_where_it_fits_and_smallest_tile_where_nothing_fits():
    assert len(Grid(1000, 700, choose_tile(1000, 700, 128, 32, 1024 * 704), 128, 32).boxes()) == 1
    assert choose_tile(1000, 700, 128, 32, 10) == (32, 32)


@pytest.mark.parametrize("bad", [(0, 5, (1, 1), 0), (5, 0, (1, 1), 0), (5, 5, (0, 1), 0), (5, 5, (1, 1), -1), (5, 5, (1, 1), 0, 0)])
def test_impossible_grid_is_an_input_error(bad):
    with pytest.raises(InputError, match="expected height, width, tile="):
        Grid(*bad)


class Memory:
    """Work that writes its box once and runs out of memory on the calls in `failing`, or for windows above `limit` pixels."""

    def __init__(self, grid: Grid, failing: set[int] = frozenset(), limit: float = math.inf, error: Exception | None = None):
        self.failing, self.limit, self.calls = failing, limit, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.written = np.zeros((grid.height, grid.width), np.uint8)

    def __call__(self, frame: int, box: tiling.Box, window: tiling.Box) -> None:
        self.calls += 1
        if self.calls - 1 in self.failing or (window[1] - window[0]) * (window[3] - window[2]) > self.limit:
            raise self.error
        self.written[box[0] : box[1], box[2] : box[3]] += 1


GRID = Grid(256, 256, (32, 32), 20, 8)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_at_every_tile(error):
    assert len(GRID.boxes()) == 64
    for k in range(64):
        work = Memory(GRID, {k}, error=error)
        done: list[int] = []
        assert run(1, GRID, work, done.append) == 1
        assert (work.written == 1).all() and sum(done) == 256 * 256


def test_nested_shrinks(rng):
    for _ in range(20):
        first = int(rng.integers(64))
        work = Memory(GRID, {first, first + 1, first + 2})
        assert run(1, GRID, work) == 3
        assert (work.written == 1).all()


def test_windows_shrink_until_they_fit():
    grid = Grid(512, 512, (512, 512), 8, 8)
    work = Memory(grid, limit=10_000)
    assert 1 <= run(1, grid, work) <= tiling.MAX_RETRIES
    assert (work.written == 1).all()


def test_memory_that_never_suffices_is_a_backend_error():
    work = Memory(GRID, limit=0)
    with pytest.raises(BackendError, match="out of memory on a window of 56 x 56 pixels after 9 attempts"):
        run(1, GRID, work)
    assert work.written.sum() == 0


def test_other_errors_are_not_retried():
    work = Memory(GRID, {3}, error=RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(1, GRID, work)
    assert work.calls == 4


def test_the_failed_tensors_are_free_before_the_retry():
    alive = []

    def work(frame, box, window):
        buffer = np.zeros(10)
        alive.append(weakref.ref(buffer))
        if len(alive) == 1:
            raise MemoryError

    run(1, GRID, work, release=lambda: alive.append(alive[0]()))
    assert alive[1] is None and len(alive) > 64


def test_budget_is_bounded_and_follows_free_memory(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(tiling, "free_bytes", lambda device: 2**40)
    assert tiling.budget(cpu, 100, 10**6, 10**6) == tiling.CPU_BUDGET // 100
    assert tiling.budget(cpu, 100, 10**8, 10**8) == (tiling.LARGE_BUDGET + 10**8 // 2) // 100
    assert tiling.budget(cpu, 1, 10**6, 10**6) == tiling.MAX_WINDOW
    monkeypatch.setattr(tiling, "free_bytes", lambda device: 10**6)
    assert tiling.budget(cpu, 100, 10**6, 10**6) == 5000


def test_free_memory_heeds_the_limit_of_the_control_group(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tiling, "CGROUP", tmp_path)
    without = tiling.free_bytes(torch.device("cpu"))
    assert without > 2**20
    for name, text in {"max": "5000000", "current": "4000000", "stat": "anon 1\ninactive_file 300000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert tiling.free_bytes(torch.device("cpu")) == 1_300_000
    (tmp_path / "memory.max").write_text("max\n")
    assert tiling.free_bytes(torch.device("cpu")) > 2**20
