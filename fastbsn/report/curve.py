"""A loss over training steps, as points of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT, POINTS = 640, 200, 320  # of the drawing, in its own units, and number of points on the line
TICKS = 4


class Curve(NamedTuple):
    """A line of a training log: name, steps and losses [N] each."""

    name: str
    steps: Sequence[float]
    losses: Sequence[float]


class Drawing(NamedTuple):
    """An SVG line and where the labels of its axes stand."""

    name: str
    line: str  # "x,y x,y ..."
    across: list[tuple[float, str]]  # (x, label)
    up: list[tuple[float, str]]  # (y, label)


def draw(curve: Curve) -> Drawing | None:
    """The curve in a box of WIDTH x HEIGHT, neighbouring points averaged; None of fewer than two points.

    The first steps and outliers are cut off at the top: the box ends at the 98 % quantile of the losses.
    """
    parts = min(POINTS, len(curve.steps))
    if parts < 2:
        return None
    x, y = (np.array([part.mean() for part in np.array_split(np.asarray(values, float), parts)]) for values in curve[1:])
    low, high = float(y.min()), float(np.quantile(y, 0.98))
    span, length = (high - low) or 1.0, (x[-1] - x[0]) or 1.0
    line = " ".join(
        f"{a:.1f},{b:.1f}" for a, b in zip((x - x[0]) / length * WIDTH, HEIGHT * (1 - np.clip((y - low) / span, 0, 1)), strict=True)
    )
    at = np.linspace(0, 1, TICKS)
    across = [(float(t * WIDTH), f"{x[0] + t * length:.0f}") for t in at]
    up = [(float(HEIGHT * (1 - t)), f"{low + t * span:.3g}") for t in at]
    return Drawing(curve.name, line, across, up)
