"""Video: frames in, frames out, in order. A backend with a `stream` of its own copies one frame while it computes another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

from torch import Tensor

from fastbsn.inference.frames import Frames

Stream = Callable[[Iterable[Tensor]], Iterator[Tensor]]
Item = tuple[Any, Frames, Tensor | None]  # the frame, opened, and its pixels if the backend may take them as they are


def stream(
    frames: Iterable[Any], denoise: Callable[[Any], Any], open_: Callable[[Any], Frames], fits: Callable[[Frames], bool], run: Stream | None
) -> Iterator[Any]:
    """Denoise `frames` lazily.

    Args:
        frames: arrays, tensors or PIL images; kinds and sizes may change from frame to frame.
        denoise: function of one frame.
        open_: a frame -> `Frames`.
        fits: whether a frame fits into memory without tiles.
        run: stream of the backend over [N, C, H, W] on the CPU, which keeps order, shape and dtype; None to call `denoise` only.

    Yields:
        What `denoise` would return, in order.
    """
    if run is None:
        yield from map(denoise, frames)
        return

    def look() -> Iterator[Item]:
        for x in frames:
            opened = open_(x)
            pixels = opened.direct()
            yield x, opened, pixels if pixels is not None and pixels.device.type == "cpu" and fits(opened) else None

    for direct, group in groupby(look(), key=lambda item: item[2] is not None):
        if not direct:
            yield from (denoise(x) for x, _, _ in group)
            continue
        under_way: deque[Frames] = deque()
        for values in run(_pixels(group, under_way)):
            opened = under_way.popleft()
            opened.write_direct(values)
            yield opened.result()


def _pixels(items: Iterator[Item], under_way: deque[Frames]) -> Iterator[Tensor]:
    for _, opened, pixels in items:
        assert pixels is not None
        under_way.append(opened)
        yield pixels
