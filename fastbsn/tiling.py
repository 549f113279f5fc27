"""Large images in overlapping windows: plan, memory budget, and a run that shrinks its windows when memory ends.

A *box* (top, bottom, left, right) is written; the *window* around it, wider by the halo, is read. With a halo of at least
the receptive-field radius and window origins at multiples of the network's pooling, a tile equals the whole image.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastbsn.errors import BackendError, InputError

Box = tuple[int, int, int, int]
MAX_RETRIES = 8
CPU_BUDGET = 2**30  # bytes of working memory on a CPU, however much is free
LARGE = 2**26  # pixels, from which working memory is kept small, so that 120 Mpixel stay within 2.5 times the input + 512 MiB
LARGE_BUDGET = 192 * 2**20  # bytes, and half the size of the input
CGROUP = Path("/sys/fs/cgroup")
MAX_WINDOW = 2**24  # pixels; with 99 channels, tensors stay below 2**31 elements
_NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "could not allocate")


@dataclass(frozen=True)
class Grid:
    """Geometry of one image: its size, the halo, and the multiple that windows start at, in pixels."""

    height: int
    width: int
    halo: int
    multiple: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.multiple) < 1 or self.halo < 0:
            raise InputError(f"{self}: expected sizes and multiple of at least 1 and a halo of at least 0")

    @property
    def overlap(self) -> int:
        """The halo, rounded up so that windows start at multiples."""
        return -(-self.halo // self.multiple) * self.multiple

    def window(self, box: Box) -> Box:
        top, bottom, left, right = box
        o = self.overlap
        return max(0, top - o), min(self.height, bottom + o), max(0, left - o), min(self.width, right + o)

    def pixels(self, box: Box) -> int:
        """Pixels of the window around `box`."""
        top, bottom, left, right = self.window(box)
        return (bottom - top) * (right - left)

    def split(self, box: Box) -> tuple[Box, Box] | None:
        """Two halves along the longer side, or None if both sides are a single multiple."""
        top, bottom, left, right = box
        tall = bottom - top >= right - left
        start, stop = (top, bottom) if tall else (left, right)
        middle = start + -(-(stop - start) // (2 * self.multiple)) * self.multiple
        if middle >= stop:
            return None
        if tall:
            return (top, middle, left, right), (middle, bottom, left, right)
        return (top, bottom, left, middle), (top, bottom, middle, right)


def plan(grid: Grid, tile: tuple[int, int]) -> list[Box]:
    """Boxes that cover every pixel exactly once, in row-major order.

    Args:
        grid: of the image.
        tile: height and width of a box in pixels, rounded up to the grid's multiple.
    """
    if min(tile) < 1:
        raise InputError(f"tile={tile}; expected a height and a width of at least 1 pixel")
    h, w = (-(-t // grid.multiple) * grid.multiple for t in tile)
    rows, cols = range(0, grid.height, h), range(0, grid.width, w)
    return [(y, min(y + h, grid.height), x, min(x + w, grid.width)) for y in rows for x in cols]


def choose_tile(grid: Grid, pixels: int) -> tuple[int, int]:
    """The evenly spaced tile (height, width) whose windows hold at most `pixels` and that computes the fewest pixels in all.

    Where no window fits, the smallest tile.
    """
    m, o = grid.multiple, grid.overlap

    def steps(size: int) -> list[tuple[int, int, int]]:
        """(tile side, longest window, sum of windows) for every number of tiles along a side."""
        sides = sorted({-(-size // (count * m)) * m for count in range(1, -(-size // m) + 1)})
        windows = [[min(size, start + side + o) - max(0, start - o) for start in range(0, size, side)] for side in sides]
        return [(side, max(w), sum(w)) for side, w in zip(sides, windows, strict=True)]

    fitting = (
        (height_sum * width_sum, (h, w))
        for h, height, height_sum in steps(grid.height)
        for w, width, width_sum in steps(grid.width)
        if height * width <= pixels
    )
    return min(fitting, default=(0, (m, m)))[1]


def free_bytes(device: torch.device) -> int:
    """Memory in bytes that can be allocated on `device` now (of the process's control group, where it has a limit)."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = _system_bytes()
    try:
        limit, used, stat = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        cache = dict(line.split() for line in stat.splitlines())["inactive_file"]
        free = min(free, int(limit) - int(used) + int(cache))
    except (OSError, ValueError, KeyError):  # no control group, or no limit ("max")
        pass
    return max(free, 0)


def _system_bytes() -> int:
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):
        return 2**31


def budget(device: torch.device, bytes_per_pixel: int, pixels: int, nbytes: int) -> int:
    """Pixels that a window may hold: half of the free memory, on a CPU at most 1 GiB (see LARGE for large images).

    Args:
        device: that the windows are computed on.
        bytes_per_pixel: working memory of a window.
        pixels: of the frame.
        nbytes: of the whole input.
    """
    memory = free_bytes(device) // 2
    if device.type == "cpu":
        memory = min(memory, CPU_BUDGET if pixels < LARGE else LARGE_BUDGET + nbytes // 2)
    return min(memory // bytes_per_pixel, MAX_WINDOW)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def run(
    jobs: Iterable[tuple[int, Box]],
    work: Callable[[int, Box], None],
    grid: Grid,
    done: Callable[[int], None] | None = None,
    release: Callable[[], None] | None = None,
) -> int:
    """Call `work(frame, box)` for every job; out of memory, halve the windows of this and all later jobs and go on.

    Args:
        jobs: frame numbers and boxes of `grid`.
        work: reads the window, computes, and writes the box last, so that a failed call has written nothing.
        grid: of every frame.
        done: called with the number of pixels written after every box.
        release: called after a failure, when nothing refers to its tensors any more, to return cached memory.

    Returns:
        The number of retries.

    Raises:
        BackendError: out of memory after 8 retries.
    """
    todo, limit, retries = deque(jobs), math.inf, 0
    while todo:
        frame, box = todo.popleft()
        halves = grid.split(box)
        if grid.pixels(box) > limit and halves:
            todo.extendleft((frame, half) for half in reversed(halves))
            continue
        failed = False
        try:
            work(frame, box)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            failed = True
        if not failed:
            if done:
                done((box[1] - box[0]) * (box[3] - box[2]))
            continue
        # Out of the except block, the exception no longer keeps the failed window's tensors alive.
        retries += 1
        if release:
            release()
        if retries > MAX_RETRIES:
            top, bottom, left, right = grid.window(box)
            raise BackendError(
                f"out of memory on a window of {bottom - top} x {right - left} pixels after {retries} attempts; "
                "free some memory, use a smaller network, or device='cpu'"
            )
        limit = grid.pixels(box) / 2
        todo.appendleft((frame, box))
    return retries
