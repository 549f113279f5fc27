"""What the student needs to compute in INT8: the range of everything that its layers read, found on noisy images.

A range is part of a model (header "ranges" of its file, `UNet.ranges`); weights stay as they are, and are rounded where they are used. What
this costs in quality is measured by `python -m benchmarks.qat`, simulated, and `python -m benchmarks.vnni`, on the processor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.nets import UNet, pad_to_multiple
from fastbsn.ops import estimated_noise_reference

Ranges = dict[str, list[float]]  # [least, greatest] value, zero among them, by name as in `Layer.inputs`
SMALLEST, LARGEST = 1e-6, 1e30  # of greatest values: steps are float32
OUTSIDE = 3e-5  # share of values that are clipped, on each side


def read_by(net: UNet) -> list[str]:
    """Names of everything that the layers read."""
    return list(dict.fromkeys(name for layer in net.layers for name in layer.inputs))


def rounded(net: UNet) -> list[str]:
    """Names of what is rounded to 8 bits where it is read: all but the image and what the last layer reads, which cost most of the quality
    and take few of the operations."""
    return [name for name in read_by(net) if name != "image" and name not in net.layers[-1].inputs]


def usable(net: UNet) -> bool:
    """Whether `net.ranges`, which may come from any file, are the ranges of this network."""
    found: Any = net.ranges
    return isinstance(found, dict) and all(_is_range(found.get(name)) for name in rounded(net))


def _is_range(x: Any) -> bool:
    numbers = isinstance(x, list) and len(x) == 2 and all(isinstance(v, int | float) for v in x)
    return numbers and -LARGEST <= x[0] <= 0 and SMALLEST <= x[1] <= LARGEST


@torch.inference_mode()
def find_ranges(net: UNet, images: Iterable[Tensor]) -> Ranges:
    """Range of everything that is read: of no image lies more than OUTSIDE of the values below it, or above.

    All values within make steps so large that white noise of sigma 15 loses 0.01 dB more; at a share of 1e-4 noise half as strong again
    as any of these images loses 0.09 dB (0.02 dB at 1e-5).

    Args:
        net: float32, on the CPU.
        images: noisy ones like those to be denoised, the noisiest among them, float32 [N, C, H, W] in [0, 1] units.

    Raises:
        InputError: no images.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in read_by(net)}

    def look(layer: Any, convolution: Any) -> Any:
        def run(x: Tensor) -> Tensor:
            for name, part in zip(layer.inputs, x.split(layer.in_channels, 1), strict=True):
                count = 1 + int(OUTSIDE * part.numel())
                low, high = (float(part.flatten().topk(count, largest=side).values[-1]) for side in (False, True))
                seen[name].append((min(0.0, low), max(SMALLEST, high)))
            return convolution(x)

        return run

    looking = [look(layer, convolution) for layer, convolution in zip(net.layers, net.convolutions, strict=True)]
    for y in images:
        estimated_noise_reference(pad_to_multiple(y, net.multiple), net.layers, looking)
    if not seen["image"]:
        raise InputError("no images to find the ranges on; expected noisy images like those to be denoised")
    return {name: [min(low for low, _ in found), max(high for _, high in found)] for name, found in seen.items()}
