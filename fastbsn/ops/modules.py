"""The two repeated blocks of a D-BSN branch, each as one operation, and any number of them in a row as one.

All accept `outside` (see `phases.outside_extent`): positions that must read as zero in every spatial convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.ops.dispatch import compute_dtype, use_triton
from fastbsn.ops.phases import batch_to_space, outside_extent, space_to_batch
from fastbsn.ops.triton_mdc import mdc_body
from fastbsn.ops.triton_residual import residual_body

Params = Sequence[tuple[Tensor, Tensor]]


def _zero(x: Tensor, outside: Tensor | None) -> Tensor:
    return x if outside is None else x.masked_fill(outside, 0)


def _conv(x: Tensor, p: tuple[Tensor, Tensor], dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    weight, bias = p
    return F.conv2d(_zero(x, outside), weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)


def residual_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Params,  # (3x3 C->C, [C]), (1x1 C->C, [C])
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    spatial, pointwise = params
    return x + _conv(F.relu(_conv(x, spatial, dilation, outside)), pointwise)


def residual_module(x: Tensor, params: Params, dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    """x + 1x1(ReLU(3x3 dilated(x))): the module of the light D-BSN (Lee et al., AP-BSN, CVPR 2022, figure 3).

    Args:
        x: [N, C, H, W].
        params: (weight [C, C, 3, 3], bias [C]) and (weight [C, C, 1, 1], bias [C]).
        dilation: of the 3x3 convolution, in pixels.
        outside: bool [N, 1, H, W], true where x must read as zero, or None.

    Returns:
        [N, C, H, W].
    """
    if use_triton(x, x.shape[1]):
        return _residual_triton(x, [params], dilation, outside)
    return residual_module_reference(x, params, dilation, outside)


def mdc_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Params,  # a1 1x1, a2 5x5, b1 1x1, b2 3x3, c 1x1, join 1x1 3C->C, t1 1x1, t2 1x1
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    a1, a2, b1, b2, c, join, t1, t2 = params
    a = F.relu(_conv(F.relu(_conv(x, a1)), a2, dilation, outside))
    b = F.relu(_conv(F.relu(_conv(x, b1)), b2, dilation, outside))
    branches = (a, b, F.relu(_conv(x, c)))
    u = F.relu(_conv(torch.cat(branches, 1), join)) + x
    return F.relu(_conv(F.relu(_conv(u, t1)), t2))


def mdc_module(x: Tensor, params: Params, dilation: int = 1, outside: Tensor | None = None) -> Tensor:
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
    if use_triton(x, x.shape[1]):
        return _mdc_triton(x, [params], dilation, outside)
    return mdc_module_reference(x, params, dilation, outside)


def residual_modules(x: Tensor, modules: Sequence[Params], dilation: int, phases: bool = True) -> Tensor:
    """Any number of `residual_module` in a row, the body of a light branch.

    Args:
        x: [N, C, H, W].
        modules: the `params` of each module.
        dilation: of the 3x3 convolutions, in pixels.
        phases: run densely on space-to-batch phases (same result).

    Returns:
        [N, C, H, W].
    """
    if use_triton(x, x.shape[1]):
        return _residual_triton(x, modules, dilation, None)
    return _modules_reference(residual_module_reference, x, modules, dilation, phases)


def mdc_modules(x: Tensor, modules: Sequence[Params], dilation: int, phases: bool = True) -> Tensor:
    """Any number of `mdc_module` in a row, the body of a paper branch; arguments as in `residual_modules`."""
    if use_triton(x, x.shape[1]):
        return _mdc_triton(x, modules, dilation, None)
    return _modules_reference(mdc_module_reference, x, modules, dilation, phases)


def _modules_reference(
    module: Callable[[Tensor, Params, int, Tensor | None], Tensor], x: Tensor, modules: Sequence[Params], dilation: int, phases: bool
) -> Tensor:
    (n, _, h, w), d, outside = x.shape, dilation, None
    if phases:
        x, outside, d = space_to_batch(x, dilation), outside_extent(n, dilation, h, w, x.device), 1
    for params in modules:
        x = module(x, params, d, outside)
    return batch_to_space(x, dilation, h, w) if phases else x


def _save(x: Tensor, modules: Sequence[Params]) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for params in modules for pair in params for t in pair))


def _residual_triton(x: Tensor, modules: Sequence[Params], dilation: int, outside: Tensor | None) -> Tensor:
    w3 = torch.stack([spatial[0] for spatial, _ in modules])
    w1 = torch.stack([pointwise[0].flatten(1) for _, pointwise in modules])
    bias = torch.stack([torch.stack((spatial[1], pointwise[1])) for spatial, pointwise in modules])
    return residual_body(x.to(compute_dtype(x)), outside, w3, w1, bias, dilation, _save(x, modules))[0]


def _mdc_triton(x: Tensor, modules: Sequence[Params], dilation: int, outside: Tensor | None) -> Tensor:
    w5 = torch.stack([a2[0] for _, a2, *_ in modules])
    w3 = torch.stack([b2[0] for _, _, _, b2, *_ in modules])
    w1 = torch.stack([torch.stack(pointwise_matrices(params)) for params in modules])
    bias = torch.stack([torch.stack([b for _, b in params]) for params in modules])
    return mdc_body(x.to(compute_dtype(x)), outside, w5, w3, w1, bias, dilation, _save(x, modules))[0]


def pointwise_matrices(params: Params) -> list[Tensor]:
    """[C, C] matrices of an MDC module in the order of the kernels: a1, b1, c, join of a, join of b, join of c, t1, t2."""
    a1, _, b1, _, c, join, t1, t2 = (weight.flatten(1) for weight, _ in params)
    return [a1, b1, c, *join.chunk(3, 1), t1, t2]
