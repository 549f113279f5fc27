"""Images of mixed sizes through one network: in windows, those of full size in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastbsn.errors import BackendError, InputError
from fastbsn.inference import dither
from fastbsn.inference.frames import Frames
from fastbsn.inference.tiling import Box, Grid
from fastbsn.labelling.job import Job


@dataclass
class Picture:
    """One frame on its way: read in windows, written in boxes. `owner` is what it belongs to."""

    owner: Any
    frames: Frames
    levels: list[Tensor]
    left: int = 0  # boxes to write
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, box: Box, image: Tensor, error: Tensor | None) -> bool:
        """Write a box; whether it was the last one. InputError: the result is not finite."""
        if not image.isfinite().all():
            raise InputError(f"the result is not finite around pixel {box[0], box[2]}; check the image, or use --dtype float32")
        with self.lock:
            self.frames.write(0, box, image)
            if error is not None:
                self.frames.write_sigma(0, box, error)
            self.left -= 1
            return self.left == 0


class Part(NamedTuple):
    picture: Picture
    box: Box
    window: Box


class Result(NamedTuple):
    """A box of a picture as the device gave it: image and stated error [1, C, h, w] or None."""

    part: Part
    image: Tensor
    error: Tensor | None

    def store(self) -> bool:
        """Copy it to the host and into its picture; whether the picture is complete."""
        return self.part.picture.write(self.part.box, self.image.cpu(), None if self.error is None else self.error.cpu())


class Windows:
    """Windows of pictures, computed as they come.

    A window of full size waits for others, and a batch that is not full is filled with zeros: a label does not depend on which
    images came with it. Smaller windows, of smaller images, are computed one at a time.

    Attributes:
        pixels: of the boxes so far. seconds: that the device has computed.
    """

    def __init__(self, job: Job):
        self.job, self.predictor = job, job.predictor
        self.device = job.predictor.prepared.device
        self.pixels, self._seconds = 0, 0.0
        self._waiting: list[Part] = []
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def add(self, picture: Picture) -> Iterator[list[Result]]:
        """Take a picture; gives the results of every batch that became full."""
        frames, p = picture.frames, self.predictor.prepared
        whole = self.predictor.is_teacher and self.predictor.noise == "correlated"  # its refinement is of whole images
        side = max(frames.height, frames.width) if whole else self.job.tile
        grid = Grid(frames.height, frames.width, (side, side), p.radius, p.multiple)
        full = 2 * (side + 2 * grid.halo,) if not whole else None
        parts = [Part(picture, box, grid.window(box)) for box in grid.boxes()]
        picture.left = len(parts)
        for part in parts:
            top, bottom, left, right = part.window
            if self.job.batch == 1 or (bottom - top, right - left) != full:
                yield self._compute([part], 1)
                continue
            self._waiting.append(part)
            if len(self._waiting) == self.job.batch:
                yield self.flush()

    def flush(self) -> list[Result]:
        """Compute what waits."""
        parts, self._waiting = self._waiting, []
        return self._compute(parts, self.job.batch) if parts else []

    def _compute(self, parts: list[Part], size: int) -> list[Result]:
        y = torch.cat([p.picture.frames.read(0, p.window) for p in parts])
        y = torch.cat([y, y.new_zeros(size - len(y), *y.shape[1:])])
        y = (y.pin_memory() if self.device.type == "cuda" else y).to(self.device, non_blocking=True)
        levels = [p.picture.levels[0] for p in parts if p.picture.levels]
        level = torch.cat(levels + [torch.ones(1, 1, 1, 1)] * (size - len(parts))).to(y) if levels else None
        with torch.no_grad(), _Clock(self):
            try:
                image, error, _ = self.predictor.estimate_at(y, level, self.job.strength, lambda: _white_noise(y, parts))
            except (torch.OutOfMemoryError, MemoryError) as problem:
                raise BackendError(
                    f"out of memory on {size} windows of {y.shape[2]} x {y.shape[3]} pixels; expected {self.job.tile} x {self.job.tile} "
                    "and its surroundings to fit: use a smaller --tile"
                ) from problem
        results = []
        for i, part in enumerate(parts):
            box, window = part.box, part.window
            rows, cols = slice(box[0] - window[0], box[1] - window[0]), slice(box[2] - window[2], box[3] - window[2])
            std = None if error is None else error.expand_as(y)[i : i + 1, :, rows, cols]
            results.append(Result(part, image[i : i + 1, :, rows, cols], std))
            self.pixels += (box[1] - box[0]) * (box[3] - box[2])
        return results

    @property
    def seconds(self) -> float:
        done = [pair for pair in self._events if pair[1].query()]
        self._events = [pair for pair in self._events if pair not in done]
        self._seconds += sum(a.elapsed_time(b) / 1000 for a, b in done)
        return self._seconds


def _white_noise(y: Tensor, parts: list[Part]) -> Tensor:
    """[N, C, H, W] on the host, a function of the place in the image; zeros where a batch is filled up."""
    noise = torch.zeros(y.shape)
    for i, part in enumerate(parts):
        noise[i] = dither.white_noise(0, part.window, y.shape[1])
    return noise


class _Clock:
    """Adds the time that the device computes: by the host's clock on a CPU, between events on a GPU, which the host does not wait for."""

    def __init__(self, windows: Windows):
        self.windows = windows

    def __enter__(self) -> None:
        self.start = time.perf_counter()
        if self.windows.device.type == "cuda":
            self.events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self.events[0].record()

    def __exit__(self, *_: object) -> None:
        if self.windows.device.type == "cuda":
            self.events[1].record()
            self.windows._events.append(self.events)
        else:
            self.windows._seconds += time.perf_counter() - self.start
