"""Real images of any size for parity gates: photographs that scikit-image ships, mirrored where a larger one is asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIGMA = 25 / 255
L2_ROTATIONS = 3  # inputs in rotation hold this many times the L2 cache
MAX_INPUTS = 64


def _mirror(size: int, length: int) -> np.ndarray:
    i = np.arange(length) % (2 * size)
    return np.where(i < size, i, 2 * size - 1 - i)


def photograph(channels: int, height: int, width: int) -> Tensor:
    """[C, H, W] float32 in [0, 1]: `astronaut` (colour) or `camera` (gray), 512 x 512, mirrored or cropped to the size."""
    from skimage import data

    image = np.atleast_3d(data.camera() if channels == 1 else data.astronaut())  # [512, 512, C] uint8
    rows, cols = (_mirror(512, n) if n > 256 else 128 + np.arange(n) for n in (height, width))
    return torch.from_numpy(image[rows[:, None], cols[None]].transpose(2, 0, 1).copy()) / 255.0


def noisy_batches(shape: tuple[int, int, int, int], device: torch.device, count: int = 2) -> tuple[Tensor, list[Tensor]]:
    """A clean batch [N, C, H, W] and noisy ones in rotation; the first two belong to the clean batch, the others are shifted.

    Args:
        shape: of a batch.
        device: where the batches go.
        count: least number of noisy batches; on a GPU enough to push each other out of its L2 cache.
    """
    n, c, h, w = shape
    base = photograph(c, h, w)
    clean = torch.stack([base.roll((37 * i, 53 * i), (1, 2)) for i in range(n)]).to(device)
    if device.type == "cuda":
        cache = L2_ROTATIONS * torch.cuda.get_device_properties(device).L2_cache_size
        count = min(MAX_INPUTS, max(count, -(-cache // (clean.numel() * 4))))
    generator = torch.Generator(device).manual_seed(0)
    noisy = [clean + SIGMA * torch.randn(clean.shape, generator=generator, device=device) for _ in range(2)]
    noisy += [noisy[i % 2].roll(17 * i, 3) for i in range(2, count)]
    return clean, noisy
