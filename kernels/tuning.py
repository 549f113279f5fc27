"""Block sizes by GPU architecture, kernel, channels and element size, from the checked-in table tuning.json.

Nothing is timed unless asked: see tune.py. FASTBSN_TUNING names another table, written by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("tuning.json")
SHARED = {"sm_80": 163 * 1024, "sm_89": 99 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "sm_120": 99 * 1024}  # bytes per block
TMA = ("sm_90", "sm_100", "sm_120")
# Where a module of the paper computes the first layers of the next: elsewhere, with operands in registers, that spills.
FUSES_NEXT = ("sm_90", "sm_100", "interpreter")
TUNED = (48, 64, 96, 128)
WIDEST = 128  # columns of a block: what the registers of one program hold


@dataclass(frozen=True)
class Config:
    """Sizes a kernel is compiled for: positions per block, channels per step of the main loop, warps, pipeline stages."""

    block: int
    chunk: int
    warps: int
    stages: int


INTERPRETER = Config(128, 32, 4, 2)
_forced: dict[str, Config] = {}


def width(channels: int) -> int:
    """Columns of a block that holds `channels`: the next power of two, at least 16 (the smallest tensor-core tile)."""
    return max(16, 1 << (channels - 1).bit_length())


def column_block(channels: int) -> int:
    """Columns that one program computes where `channels` may be more than one can hold."""
    return min(width(channels), WIDEST)


def architecture(major: int, minor: int) -> str:
    """The table column for a compute capability: by tensor-core generation and shared memory; of unknown ones, the least of both."""
    if major == 8:
        return "sm_80" if minor in (0, 7) else "sm_89"
    return {9: "sm_90", 10: "sm_100", 11: "sm_100"}.get(major, "sm_120")


@cache
def table() -> dict[str, Any]:
    return json.loads(Path(os.environ.get("FASTBSN_TUNING", TABLE)).read_text())


@contextmanager
def forced(**configs: Config) -> Iterator[None]:
    """Use these configurations by kernel name ("all": for every kernel), for tests and for tuning."""
    before = dict(_forced)
    _forced.update(configs)
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def config(kernel: str, arch: str, channels: int, itemsize: int) -> Config:
    """Sizes for `kernel` at `channels`: the entry of the next tuned width (or of the last), its chunk no wider than the channels need."""
    chosen = _forced.get(kernel) or _forced.get("all")
    if chosen is None:
        if arch == "interpreter":
            chosen = INTERPRETER
        else:
            near = next((c for c in TUNED if c >= channels), TUNED[-1])
            chosen = Config(*table()[arch][f"{kernel}/{near}/{8 * itemsize}"])
    return Config(chosen.block, min(chosen.chunk, width(channels)), chosen.warps, chosen.stages)
