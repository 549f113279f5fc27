"""Inference with a teacher of spatially correlated noise. Lee et al., AP-BSN, CVPR 2022, sections 3.2 and 3.4."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbsn.ops import batch_to_space, space_to_batch

INFERENCE_STRIDE = 2  # of the downsampling; smaller than in training, which keeps more of the image's structure
R3_MASKS, R3_FRACTION = 8, 0.16


def denoise_correlated(mu: Callable[[Tensor], Tensor], y: Tensor, downsample: bool = True, refine: bool = True) -> Tensor:
    """Predict on pixel-shuffle-downsampled images, where neighbours are less correlated; then random-replacing refinement (R3).

    R3 puts random noisy pixels back into the first result, predicts at full resolution, and averages over 8 masks.

    Args:
        mu: blind-spot prediction, [N, C, H, W] -> [N, C, H, W].
        y: noisy image [N, C, H, W].
        downsample: by 2, or predict at full resolution.
        refine: apply R3.

    Returns:
        [N, C, H, W].
    """
    h, w = y.shape[-2:]
    stride = INFERENCE_STRIDE if downsample else 1
    first = batch_to_space(mu(space_to_batch(y, stride)), stride, h, w)
    if not refine:
        return first
    generator = torch.Generator(y.device).manual_seed(0)
    total = torch.zeros_like(first)
    for _ in range(R3_MASKS):
        mask = torch.rand(y.shape[0], 1, h, w, generator=generator, device=y.device) < R3_FRACTION
        total += mu(torch.where(mask, y, first))
    return total / R3_MASKS
