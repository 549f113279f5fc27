"""The two repeated blocks of a D-BSN branch, each as one operation.

Both accept `outside` (see `phases.outside_extent`): positions that must read as zero in every spatial convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _zero(x: Tensor, outside: Tensor | None) -> Tensor:
    return x if outside is None else x.masked_fill(outside, 0)


def _conv(x: Tensor, p: tuple[Tensor, Tensor], dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    weight, bias = p
    return F.conv2d(_zero(x, outside), weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)


def residual_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Sequence[tuple[Tensor, Tensor]],  # (3x3 C->C, [C]), (1x1 C->C, [C])
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    spatial, pointwise = params
    return x + _conv(F.relu(_conv(x, spatial, dilation, outside)), pointwise)


def residual_module(x: Tensor, params: Sequence[tuple[Tensor, Tensor]], dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    """x + 1x1(ReLU(3x3 dilated(x))): the module of the light D-BSN (Lee et al., AP-BSN, CVPR 2022, figure 3).

    Args:
        x: [N, C, H, W].
        params: (weight [C, C, 3, 3], bias [C]) and (weight [C, C, 1, 1], bias [C]).
        dilation: of the 3x3 convolution, in pixels.
        outside: bool [N, 1, H, W], true where x must read as zero, or None.

    Returns:
        [N, C, H, W].
    """
    return residual_module_reference(x, params, dilation, outside)


def mdc_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Sequence[tuple[Tensor, Tensor]],  # a1 1x1, a2 5x5, b1 1x1, b2 3x3, c 1x1, join 1x1 3C->C, t1 1x1, t2 1x1
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    a1, a2, b1, b2, c, join, t1, t2 = params
    a = F.relu(_conv(F.relu(_conv(x, a1)), a2, dilation, outside))
    b = F.relu(_conv(F.relu(_conv(x, b1)), b2, dilation, outside))
    branches = (a, b, F.relu(_conv(x, c)))
    u = F.relu(_conv(torch.cat(branches, 1), join)) + x
    return F.relu(_conv(F.relu(_conv(u, t1)), t2))


def mdc_module(x: Tensor, params: Sequence[tuple[Tensor, Tensor]], dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    """Multiple dilated convolutions: 5x5, 3x3 and 1x1 paths, joined, plus two 1x1 (Wu et al., ECCV 2020, section 3.2).

    a = ReLU(5x5(ReLU(1x1 x))); b = ReLU(3x3(ReLU(1x1 x))); c = ReLU(1x1 x); u = ReLU(1x1 [a, b, c]) + x;
    result ReLU(1x1(ReLU(1x1 u))). Zero padding is of the activation: the halo of a 5x5 is 0, not ReLU(bias).

    Args:
        x: [N, C, H, W].
        params: eight (weight, bias) pairs in the order a1, a2, b1, b2, c, join, t1, t2.
        dilation: of the 5x5 and the 3x3, in pixels.
        outside: bool [N, 1, H, W], true where activations must read as zero, or None.

    Returns:
        [N, C, H, W].
    """
    return mdc_module_reference(x, params, dilation, outside)
