import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbsn import tiling
from fastbsn.errors import BackendError, InputError
from fastbsn.tiling import Grid, choose_tile, plan, run
from tests.reliability.numbers import cases


def coverage(grid: Grid, boxes: list[tiling.Box]) -> np.ndarray:
    count = np.zeros((grid.height, grid.width), np.uint8)
    for top, bottom, left, right in boxes:
        count[top:bottom, left:right] += 1
    return count


def random_grid(rng: np.random.Generator, largest: int = 300) -> Grid:
    height, width = rng.integers(1, largest, 2)
    return Grid(int(height), int(width), int(rng.integers(0, 40)), int(rng.choice([1, 2, 8, 32])))


def test_random_plans_cover_every_pixel_once(rng):
    for _ in range(cases("G5 random tile plans")):
        grid = random_grid(rng, 120)
        boxes = plan(grid, tuple(int(t) for t in rng.integers(1, 150, 2)))
        assert (coverage(grid, boxes) == 1).all(), grid


def test_windows_hold_the_halo_and_start_at_multiples(rng):
    for _ in range(300):
        grid = random_grid(rng)
        for box in plan(grid, tuple(int(t) for t in rng.integers(1, 200, 2))):
            window = grid.window(box)
            for axis, size in ((0, grid.height), (2, grid.width)):
                start, stop = window[axis : axis + 2]
                assert start % grid.multiple == 0
                assert stop == size or stop % grid.multiple == 0
                assert start == max(0, start) and start <= max(0, box[axis] - grid.halo)
                assert stop >= min(size, box[axis + 1] + grid.halo)


def test_split_halves_cover_the_box_and_stay_aligned(rng):
    for _ in range(500):
        grid = random_grid(rng)
        box = plan(grid, (200, 200))[-1]
        halves = grid.split(box)
        if halves is None:
            assert max(box[1] - box[0], box[3] - box[2]) <= grid.multiple
            continue
        assert (coverage(grid, list(halves)) == coverage(grid, [box])).all()
        assert all(half[0] % grid.multiple == half[2] % grid.multiple == 0 for half in halves)


def test_chosen_tile_fits_and_is_the_cheapest(rng):
    def cost(grid, tile):
        return sum(grid.pixels(box) for box in plan(grid, tile))

    for _ in range(40):
        m = int(rng.choice([8, 32]))
        grid = Grid(int(rng.integers(1, 20 * m)), int(rng.integers(1, 20 * m)), int(rng.integers(0, 2 * m)), m)
        limit = int(rng.integers((m + 2 * grid.overlap) ** 2, 2 * grid.height * grid.width + (m + 2 * grid.overlap) ** 2))
        chosen = choose_tile(grid, limit)
        assert max(grid.pixels(box) for box in plan(grid, chosen)) <= limit
        sides = [range(m, m * (-(-n // m) + 1), m) for n in (grid.height, grid.width)]
        fitting = [(h, w) for h in sides[0] for w in sides[1] if max(grid.pixels(b) for b in plan(grid, (h, w))) <= limit]
        assert cost(grid, chosen) <= 1.02 * min(cost(grid, tile) for tile in fitting)


def test_whole_image_where_it_fits_and_smallest_tile_where_nothing_fits():
    grid = Grid(1000, 700, 160, 32)
    h, w = choose_tile(grid, 700_000)
    assert h >= 1000 and w >= 700
    assert choose_tile(grid, 10) == (32, 32)


@pytest.mark.parametrize("bad", [(0, 5, 1, 1), (5, 0, 1, 1), (5, 5, -1, 1), (5, 5, 1, 0)])
def test_impossible_grid_is_an_input_error(bad):
    with pytest.raises(InputError, match="expected sizes"):
        Grid(*bad)


def test_tile_of_no_pixels_is_an_input_error():
    with pytest.raises(InputError, match="at least 1 pixel"):
        plan(Grid(5, 5, 0), (0, 3))


class Memory:
    """Work that writes its box once and runs out of memory on the calls in `failing`, or for windows above `limit` pixels."""

    def __init__(self, grid: Grid, failing: set[int] = frozenset(), limit: float = math.inf, error: Exception | None = None):
        self.grid, self.failing, self.limit, self.calls = grid, failing, limit, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.written = np.zeros((grid.height, grid.width), np.uint8)

    def __call__(self, frame: int, box: tiling.Box) -> None:
        self.calls += 1
        if self.calls - 1 in self.failing or self.grid.pixels(box) > self.limit:
            raise self.error
        self.written[box[0] : box[1], box[2] : box[3]] += 1


GRID = Grid(256, 256, 20, 8)
JOBS = [(0, box) for box in plan(GRID, (32, 32))]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_at_every_tile(error):
    assert len(JOBS) == 64
    for k in range(64):
        work = Memory(GRID, {k}, error=error)
        done: list[int] = []
        assert run(JOBS, work, GRID, done.append) == 1
        assert (work.written == 1).all() and sum(done) == 256 * 256


def test_nested_shrinks(rng):
    for _ in range(20):
        first = int(rng.integers(64))
        work = Memory(GRID, {first, first + 1, first + 2})
        assert run(JOBS, work, GRID) == 3
        assert (work.written == 1).all()


def test_windows_shrink_until_they_fit():
    grid = Grid(512, 512, 8, 8)
    work = Memory(grid, limit=10_000)
    assert 1 <= run([(0, (0, 512, 0, 512))], work, grid) <= tiling.MAX_RETRIES
    assert (work.written == 1).all()


def test_memory_that_never_suffices_is_a_backend_error():
    work = Memory(GRID, limit=0)
    with pytest.raises(BackendError, match="out of memory on a window of .* after 9 attempts"):
        run(JOBS, work, GRID)
    assert work.written.sum() == 0


def test_other_errors_are_not_retried():
    work = Memory(GRID, {3}, error=RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(JOBS, work, GRID)
    assert work.calls == 4


def test_the_failed_tensors_are_free_before_the_retry():
    alive = []

    def work(frame, box):
        window = np.zeros(10)
        alive.append(weakref.ref(window))
        if len(alive) == 1:
            raise MemoryError

    run(JOBS[:1], work, GRID, release=lambda: alive.append(alive[0]()))
    assert alive[1] is None


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
