"""Antithetic dither: white noise is added to the image, once as it is and once with the opposite sign, and the two results are averaged.

A network that knows white noise takes an image for as noisy as its white part: added noise of standard deviation s makes it remove
whatever lies below s in the spectrum. It is nearly linear in a small addition, so the errors that the addition itself causes nearly
cancel between the two signs. Two passes instead of one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastbsn.inference.tiling import Box

BLOCK = 256  # pixels on a side of the blocks that are drawn together
LEVEL = 16 / 255  # standard deviation of the dither at strength 2, in units of the data range
STRONGEST = 4.0


def level(strength: float) -> float:
    """Standard deviation of the dither for a strength above 1, in units of the data range."""
    return (strength - 1) * LEVEL


def white_noise(frame: int, box: Box, channels: int, seed: int = 0) -> Tensor:
    """N(0, 1) noise of a window, [channels, h, w] float32: a function of seed, frame and position, so that tiles agree with the whole."""
    top, bottom, left, right = box
    noise = np.empty((channels, bottom - top, right - left), np.float32)
    for i in range(top // BLOCK, -(-bottom // BLOCK)):
        for j in range(left // BLOCK, -(-right // BLOCK)):
            # The lowest word of the counter advances while a block is drawn; the others name the block.
            generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, frame, i, j]))
            block = generator.standard_normal((channels, BLOCK, BLOCK), np.float32)
            y, x = i * BLOCK, j * BLOCK
            rows, cols = slice(max(top, y), min(bottom, y + BLOCK)), slice(max(left, x), min(right, x + BLOCK))
            part = block[:, rows.start - y : rows.stop - y, cols.start - x : cols.stop - x]
            noise[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = part
    return torch.from_numpy(noise)
