"""What the two repeated blocks of a D-BSN branch share: parameters, zeros outside the image, many blocks in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.ops.phases import batch_to_space, outside_extent, space_to_batch

Params = Sequence[tuple[Tensor, Tensor]]  # (weight, bias) of each layer


def convolution(x: Tensor, layer: tuple[Tensor, Tensor], dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    """Convolution that keeps the size of x [N, C, H, W], read as zero where `outside` (bool [N, 1, H, W]) is true."""
    weight, bias = layer
    x = x if outside is None else x.masked_fill(outside, 0)
    return F.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)


def in_a_row(
    module: Callable[[Tensor, Params, int, Tensor | None], Tensor], x: Tensor, modules: Sequence[Params], dilation: int, phases: bool
) -> Tensor:
    """`module` with each of the parameters in turn; with `phases`, densely on the phases of x, with the same result."""
    (n, _, h, w), d, outside = x.shape, dilation, None
    if phases:
        x, outside, d = space_to_batch(x, dilation), outside_extent(n, dilation, h, w, x.device), 1
    for params in modules:
        x = module(x, params, d, outside)
    return batch_to_space(x, dilation, h, w) if phases else x


def differentiated(x: Tensor, modules: Sequence[Params]) -> bool:
    """Whether autograd will ask for gradients, so that activations are to be kept."""
    return torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for params in modules for pair in params for t in pair))
