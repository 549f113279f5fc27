"""What a file holds besides the values: axes, the meaning of the channels, and what must come back into the output file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of formats whose number of channels says what they are


@dataclass
class Part:
    """One array of a file; pages of other sizes are other parts.

    array: in the byte order of this machine, white above black. axes: one letter of T, Z, C, Y, X per dimension. channels: a letter
    for each: L gray, R, G, B, A alpha (straight or premultiplied), X something of its own. white: its value, where the file's bit
    depth is not that of the array (4095 for 12 bits).
    """

    array: NDArray
    axes: str
    channels: str = "L"
    white: float | None = None

    @property
    def pixels(self) -> NDArray:
        """The array with its channels last."""
        return np.moveaxis(self.array, self.axes.index("C"), -1) if "C" in self.axes else self.array


@dataclass
class Picture:
    """A file that was read: its parts, and what `write_picture` needs to write another one like it."""

    parts: list[Part]
    kind: str
    kept: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def interleaved(image: NDArray, kind: str, kept: dict[str, Any] | None = None, warnings: list[str] | None = None) -> Picture:
    """A picture of one image [H, W] or [H, W, C] that is gray or RGB, with alpha or without."""
    depth = 1 if image.ndim == 2 else image.shape[2]
    part = Part(image, "YXC"[: image.ndim], CHANNELS.get(depth, "X" * depth))
    return Picture([part], kind, kept or {}, warnings or [])
