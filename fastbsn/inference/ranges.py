"""What a value means: the data range, given, stored with the model, or read off the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.pixels import RANGES

Array = np.ndarray | Tensor
DataRange = float | tuple[float, float]  # white minus black, or black and white
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
_BAND = 2**20  # values looked at together when an array is scanned


@dataclass(frozen=True)
class Statistics:
    """Of the finite values of an array: extremes, the fraction outside [-0.5, 1.5], and the number of non-finite values."""

    low: float
    high: float
    outside: float
    bad: int


def scan(frames: Iterator[Array]) -> Statistics:
    """Statistics of [C, H, W] frames, band by band."""
    low, high, outside, bad, total = np.inf, -np.inf, 0, 0, 0
    for frame in frames:
        rows = max(1, _BAND // max(1, frame.shape[0] * frame.shape[2]))
        for top in range(0, frame.shape[1], rows):
            x = to_tensor(frame[:, top : top + rows], torch.float64)
            finite = x if x.sum().isfinite() else x[x.isfinite()]
            total, bad = total + x.numel(), bad + x.numel() - finite.numel()
            if finite.numel():
                low, high = min(low, finite.min().item()), max(high, finite.max().item())
                outside += int(((finite < -0.5) | (finite > 1.5)).sum())
    return Statistics(low, high, outside / max(1, total - bad), bad)


def resolve_range(dtype: str, given: float | None, stored: float | None, stats: Statistics) -> float:
    """The data range: as given, or as stored with the model, or 255 (uint8), 65535 (uint16) or 1 (floats).

    Floats are taken to be in [0, 1] units, noise beyond included, if all values lie in [-2, 3] and at most 5% of them outside
    [-0.5, 1.5]. The rule looks at the whole array once, never at a tile or a frame.

    Raises:
        InputError: not a positive number; not given for floats outside that range or for other integers.
    """
    if given is not None:
        if not isinstance(given, int | float | np.integer | np.floating) or not 0 < given < float("inf"):
            raise InputError(f"data_range={given!r}; expected one positive number, the value of white minus that of black")
        return float(given)
    if stored is not None:
        return stored
    if dtype in RANGES:
        return RANGES[dtype]
    observed = f"{dtype} values from {stats.low:g} to {stats.high:g}"
    if dtype in INTEGERS:
        raise InputError(f"{observed}: the range is not known; pass data_range, for instance data_range=4095 for 12-bit data")
    if stats.low < -2 or stats.high > 3 or stats.outside > 0.05:
        raise InputError(
            f"{observed}, {100 * stats.outside:.1f}% of them outside [-0.5, 1.5]; floats are expected in [0, 1] units, noise beyond "
            "included: pass data_range, the value of white minus that of black (255 for 8-bit data as floats)"
        )
    return 1.0


def split_range(data_range: DataRange | None) -> tuple[float, float | None]:
    """The value of black, and white minus black where it is known.

    Raises:
        InputError: not a number, and not two finite numbers in ascending order.
    """
    if not isinstance(data_range, tuple | list):
        return 0.0, data_range
    try:
        low, high = map(float, data_range)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not -np.inf < low < high < np.inf:
        raise InputError(f"data_range={data_range!r}; expected white minus black, or (black, white) with black below white")
    return low, high - low


def to_tensor(x: Array, dtype: torch.dtype) -> Tensor:
    if isinstance(x, Tensor):
        return x.to(dtype)
    return torch.from_numpy(x.astype(str(dtype).removeprefix("torch.")))
