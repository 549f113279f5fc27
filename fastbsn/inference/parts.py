"""The channels of a picture by their meaning: colour together, every other channel by itself, alpha as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbsn.errors import InputError


def denoise_channels(
    array: NDArray, axes: str, channels: str, pick: Callable[[NDArray, str, bool], Any], named: bool, **options: Any
) -> NDArray:
    """Denoise one picture or stack.

    Args:
        array: any layout.
        axes: a letter of STCZYX for every axis.
        channels: a letter for every channel: R, G, B, L gray, A alpha, X something of its own.
        pick: (values with channels first, their axes, whether they are colour) -> the `Denoiser` that takes them.
        named: the model was chosen by name, and takes all channels but alpha together where it can.
        options: as those of `Denoiser.__call__`.

    Raises:
        InputError: the chosen model takes another number of channels.
    """
    last = np.moveaxis(array, axes.index("C"), -1) if "C" in axes else array[..., None]
    order = "C" + axes.replace("C", "")
    found = [i for i, letter in enumerate(channels) if letter != "A"]
    colour = [] if named else [i for i in found if channels[i] in "RGB"]
    rest = [i for i in found if i not in colour]
    output = np.empty(last.shape, last.dtype)
    for i in set(range(last.shape[-1])) - set(found):
        output[..., i] = last[..., i]
    for group in filter(None, (colour, rest)):
        values = last[..., group[0] : group[-1] + 1] if group == list(range(group[0], group[-1] + 1)) else last[..., group]
        values = np.moveaxis(values, -1, 0)  # channels first are never taken for alpha
        denoiser = pick(values, order, group == colour)
        if denoiser.channels not in (1, len(group)) and len(group) > 1:
            raise InputError(f"{channels} channels; the model takes {denoiser.channels}: use a gray model, or --model auto")
        same = denoiser.channels == 1 and group == colour and all(np.array_equal(values[0], values[i]) for i in (1, 2))
        values = values[:1] if same else values  # gray, stored in three channels
        output[..., group] = np.moveaxis(denoiser(values, axes=order, **options), 0, -1)
    return np.ascontiguousarray(np.moveaxis(output, -1, axes.index("C")) if "C" in axes else output[..., 0])
