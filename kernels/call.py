"""What a launch needs besides its tensors: one description, used to launch (launch.py) and to compile ahead of time (aot.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIDEST = 128  # columns of a block: what the registers of one program hold


@dataclass(frozen=True)
class Config:
    """Sizes a kernel is compiled for: positions per block, channels per step of the main loop, warps, pipeline stages."""

    block: int
    chunk: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Call:
    """A kernel, the block shape of each array it reads or writes by blocks, and its compile-time constants."""

    kernel: Any
    config: Config
    blocks: Mapping[str, tuple[int, int]]
    constants: Mapping[str, Any] = field(default_factory=dict)


def width(channels: int) -> int:
    """Columns of a block that holds `channels`: the next power of two, at least 16 (the smallest tensor-core tile)."""
    return max(16, 1 << (channels - 1).bit_length())


def column_block(channels: int) -> int:
    """Columns that one program computes where `channels` may be more than one can hold."""
    return min(width(channels), WIDEST)


def constants(config: Config, precision: str, **sizes: Any) -> dict[str, Any]:
    return sizes | {"BLOCK": config.block, "CHUNK": config.chunk, "STAGES": config.stages, "PRECISION": precision}
