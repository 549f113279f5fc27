"""Large images in overlapping windows: plan, memory budget, and a run that shrinks its windows when memory ends.

A *box* (top, bottom, left, right) is written; the *window* around it, wider by the halo, is read. With a halo of at least
the receptive-field radius and windows that start at multiples of the network's pooling, a tile equals the whole image.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from fastbsn.errors import BackendError, InputError

Box = tuple[int, int, int, int]
MAX_RETRIES = 8
CPU_BUDGET = 2**30  # bytes of working memory on a CPU, however much is free
LARGE = 2**26  # pixels, from which working memory is kept small, so that 120 Mpixel stay within 2.5 times the input + 512 MiB
LARGE_BUDGET = 184 * 2**20  # bytes, and half the size of the input
CGROUP = Path("/sys/fs/cgroup")
MAX_WINDOW = 2**24  # pixels; with 99 channels, tensors stay below 2**31 elements
_NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "could not allocate")


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class Grid:
    """How one image is cut.

    Args:
        height, width: size of the image in pixels.
        tile: height and width of a box; rounded up to multiples.
        halo: pixels that a window reaches beyond its box; rounded up to a multiple.
        multiple: windows start at multiples of it.
    """

    height: int
    width: int
    tile: tuple[int, int]
    halo: int
    multiple: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.multiple, *self.tile) < 1 or self.halo < 0:
            raise InputError(f"{self}: expected height, width, tile=(height, width) and multiple of at least 1, and halo of at least 0")
        sides = zip(self.tile, (self.height, self.width), strict=True)
        object.__setattr__(self, "tile", tuple(_up(min(side, size), self.multiple) for side, size in sides))
        object.__setattr__(self, "halo", _up(self.halo, self.multiple))

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of every window, padding to a multiple included: all are equal, so that buffers can be reused."""
        sides = zip(self.tile, (self.height, self.width), strict=True)
        h, w = (min(_up(size, self.multiple), side + 2 * self.halo) for side, size in sides)
        return h, w

    def boxes(self) -> list[Box]:
        """Boxes that cover every pixel exactly once, in row-major order."""
        return self.cut((0, self.height, 0, self.width))

    def cut(self, box: Box) -> list[Box]:
        """The parts of `box` that are not larger than a tile."""
        top, bottom, left, right = box
        h, w = self.tile
        return [(y, min(y + h, bottom), x, min(x + w, right)) for y in range(top, bottom, h) for x in range(left, right, w)]

    def window(self, box: Box) -> Box:
        """What is read for `box`; it ends at a multiple or at the end of the image."""
        top, left = (
            max(0, min(start - self.halo, _up(size, self.multiple) - side))
            for start, size, side in zip(box[::2], (self.height, self.width), self.window_size, strict=True)
        )
        h, w = self.window_size
        return top, min(self.height, top + h), left, min(self.width, left + w)

    def shrunk(self) -> Grid:
        """With windows of at most half as many pixels, or as small as they get."""
        limit, grid = prod(self.window_size) / 2, self
        while prod(grid.window_size) > limit and max(grid.tile) > grid.multiple:
            h, w = grid.tile
            grid = replace(grid, tile=(-(-h // 2), w) if h >= w else (h, -(-w // 2)))
        return grid


def choose_tile(height: int, width: int, halo: int, multiple: int, pixels: int) -> tuple[int, int]:
    """The evenly spaced tile (height, width) whose windows hold at most `pixels` and that computes the fewest pixels in all.

    Where no window fits, the smallest tile.
    """
    halo = _up(halo, multiple)

    def sides(size: int) -> list[tuple[int, int, int]]:
        """(tile side, window side, sum of window sides) for every number of tiles along a side of the image."""
        tiles = sorted({_up(-(-size // count), multiple) for count in range(1, -(-size // multiple) + 1)})
        windows = [min(_up(size, multiple), side + 2 * halo) for side in tiles]
        return [(side, window, -(-size // side) * window) for side, window in zip(tiles, windows, strict=True)]

    fitting = ((rows * columns, (h, w)) for h, tall, rows in sides(height) for w, wide, columns in sides(width) if tall * wide <= pixels)
    return min(fitting, default=(0, (multiple, multiple)))[1]


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


def budget(device: torch.device, bytes_per_pixel: int, pixels: int, nbytes: int, held: int = 0) -> int:
    """Pixels that a window may hold: half of the free memory, on a CPU at most 1 GiB (see LARGE for large images).

    Args:
        device: that the windows are computed on.
        bytes_per_pixel: working memory of a window.
        pixels: number of pixels of a frame.
        nbytes: size of the whole input.
        held: bytes that are held besides input and output.
    """
    memory = free_bytes(device) // 2
    if device.type == "cpu":
        memory = min(memory, CPU_BUDGET if pixels < LARGE else LARGE_BUDGET + nbytes // 2 - held)
    return max(1, min(memory // bytes_per_pixel, MAX_WINDOW))


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def run(
    frames: int,
    grid: Grid,
    work: Callable[[int, Box, Box], None],
    done: Callable[[int], None] | None = None,
    release: Callable[[], None] | None = None,
) -> int:
    """Call `work(frame, box, window)` for all boxes of all frames; out of memory, shrink this and all later windows and go on.

    Args:
        frames: number of images of the grid's size.
        grid: how they are cut.
        work: reads the window, computes, and writes the box last, so that a failed call has written nothing.
        done: called with the number of pixels written after every box.
        release: called after a failure, when nothing refers to its tensors any more, to return cached memory.

    Returns:
        The number of retries.

    Raises:
        BackendError: out of memory after 8 retries.
    """
    todo, retries = deque((frame, box) for frame in range(frames) for box in grid.boxes()), 0
    while todo:
        frame, box = todo.popleft()
        parts = grid.cut(box)
        if len(parts) > 1:
            todo.extendleft((frame, part) for part in reversed(parts))
            continue
        failed = False
        try:
            work(frame, box, grid.window(box))
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
            raise BackendError(
                f"out of memory on a window of {grid.window_size[0]} x {grid.window_size[1]} pixels after {retries} attempts; "
                "free some memory, use a smaller network, or device='cpu'"
            )
        grid = grid.shrunk()
        todo.appendleft((frame, box))
    return retries
