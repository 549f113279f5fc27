"""The blocks of csrc/plan.cpp are the layers of the network in Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from fastbsn.ops.topology import Layer, layers


def planned(library: ctypes.CDLL, in_channels: int, channels: int, depth: int) -> list[tuple[object, ...]]:
    """(level, inputs and their channels, channels of the result, pooled) of every layer; an input is the number of a layer, or "image"."""
    numbers = (ctypes.c_int * 1000)()
    count = library.describe_plan(in_channels, channels, depth, numbers)
    found: list[tuple[object, ...]] = []
    result: dict[int, int] = {}  # buffer -> layer
    for start in range(0, 10 * count, 10):
        level, up, skip, *widths, pool, coarse, fine, out = numbers[start : start + 10]
        inputs: tuple[tuple[object, int], ...] = ((result[coarse], up),) if up else ()
        inputs += ((result[fine], skip),) if skip else (("image", in_channels),)
        widths = [n for n in widths if n]
        for i, n in enumerate(widths):
            found.append((level, inputs, n, bool(pool) and i == len(widths) - 1))
            inputs = ((len(found) - 1, n),)
        result[out] = len(found) - 1
    return found


def stated(net: tuple[Layer, ...]) -> list[tuple[object, ...]]:
    number: dict[str, object] = {layer.result: i for i, layer in enumerate(net)} | {"image": "image"}
    return [
        (
            layer.level,
            tuple((number[name], c) for name, c in zip(layer.inputs, layer.in_channels, strict=True)),
            layer.out_channels,
            bool(layer.pooled),
        )
        for layer in net
    ]


@pytest.mark.parametrize("config", [(1, 6, 1), (3, 12, 2), (2, 18, 3), (3, 48, 5)])
def test_blocks_are_the_layers(library: Callable[[str], ctypes.CDLL], config: tuple[int, int, int]) -> None:
    assert planned(library("host.cpp"), *config) == stated(layers(*config))
