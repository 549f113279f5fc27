"""The module of the light D-BSN, x + 1x1(ReLU(3x3 x)), and any number of them in a row: the body of a branch.

Reference, then the operator `residual_body` that runs a whole body through the Triton kernels: w3 [M, C, C, 3, 3], w1 [M, C, C], bias
[M, 2, C] (of the 3x3, of the 1x1). Its `saved` [2 M + 1, P, C] holds x, h, x, h, ..., y with h = ReLU(3x3 x); it is empty where nothing
is to be differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.ops.dispatch import TRIALS, Trial, compute_dtype, use_triton
from fastbsn.ops.modules import Params, convolution, differentiated, in_a_row
from fastbsn.ops.operator import channels_last_like, define, enter, tap_major, tap_major_transposed


def residual_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Params,  # (3x3 C->C, [C]), (1x1 C->C, [C])
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    spatial, pointwise = params
    return x + convolution(F.relu(convolution(x, spatial, dilation, outside)), pointwise)


def _flat(x: Tensor, dilation: int) -> Flat:
    return Flat(x.shape[0], x.shape[2], x.shape[3], dilation, 1)


def _forward(x: Tensor, outside: Tensor | None, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool) -> tuple[Tensor, Tensor]:
    import fastbsn.kernels.residual as kernels

    modules, flat = w3.shape[0], _flat(x, dilation)
    s = torch.empty(2 * modules + 1 if save else 2, flat.positions, x.shape[1], dtype=x.dtype, device=x.device)
    enter(flat, x, outside, s[0])
    inside, bias = flat.inside(x.device, outside), bias.float().contiguous()
    spatial, pointwise = tap_major(w3.flatten(3), x.dtype), tap_major(w1[..., None], x.dtype)
    at = 0
    for m in range(modules):
        to = at + 2 if save else 1 - at
        kernels.residual_module(s[at], spatial[m], pointwise[m], bias[m], inside, s[to], flat.pitch, s[at + 1] if save else None)
        at = to
    return flat.unpack(s[at]), s if save else s.new_empty(0)


def _forward_fake(
    x: Tensor, outside: Tensor | None, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool
) -> tuple[Tensor, Tensor]:
    c = x.shape[1]
    return channels_last_like(x, c), x.new_empty((2 * w3.shape[0] + 1, _flat(x, dilation).positions, c) if save else 0)


def _backward(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from fastbsn.kernels.conv import conv2d
    from fastbsn.kernels.residual import residual_table
    from fastbsn.kernels.wgrad import weight_gradients

    (modules, c), flat = w3.shape[:2], _flat(grad, dilation)
    g = saved.new_empty(3, flat.positions, c)  # dy, dh, dx; dy and dx change places
    enter(flat, grad, outside, g[0])
    inside = flat.inside(grad.device, outside)
    spatial, pointwise = tap_major_transposed(w3.flatten(3), saved.dtype), tap_major_transposed(w1[..., None], saved.dtype)
    dw = torch.empty(modules, 10, c, c, device=grad.device)
    db = torch.empty(modules, 2, c, device=grad.device)
    torch.sum(g[0], 0, dtype=torch.float32, out=db[-1, 1])
    at = 0
    for m in reversed(range(modules)):
        to = 2 - at
        hidden = conv2d(g[at], pointwise[m], None, inside, g[1], flat.pitch, 1, gate=saved[2 * m + 1], sums=True)
        torch.sum(hidden, 0, out=db[m, 0])
        below = conv2d(g[1], spatial[m], None, inside, g[to], flat.pitch, 3, skip=g[at], sums=True)
        if m > 0:
            torch.sum(below, 0, out=db[m - 1, 1])
        table = residual_table(g.device, flat.positions, flat.pitch, at)
        parts = weight_gradients(saved[2 * m : 2 * m + 2].flatten(0, 1), g.flatten(0, 1), table, 10, flat.positions)
        torch.sum(parts, 0, out=dw[m])
        at = to
    dw = dw.transpose(2, 3)  # entries are [C in, C out]
    return flat.unpack(g[at]), dw[:, :9].permute(0, 2, 3, 1).reshape(w3.shape), dw[:, 9].contiguous(), db


def _backward_fake(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    new = lambda *shape: torch.empty(shape, device=grad.device)  # noqa: E731
    m, c = w3.shape[:2]
    return channels_last_like(grad.to(saved.dtype), c), new(*w3.shape), new(m, c, c), new(m, 2, c)


residual_body = define(
    "residual_body",
    "(Tensor x, Tensor? outside, Tensor w3, Tensor w1, Tensor bias, int dilation, bool save) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_residual_body_backward = define(
    "residual_body_backward",
    "(Tensor grad, Tensor saved, Tensor? outside, Tensor w3, Tensor w1, int dilation) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, outside, w3, w1, bias, ctx.dilation, _ = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(output[1], outside, w3, w1)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    saved, outside, w3, w1 = ctx.saved_tensors
    dx, d3, d1, db = _residual_body_backward(grad, saved, outside, w3, w1, ctx.dilation)
    return dx, None, d3.to(w3.dtype), d1.to(w1.dtype), db.to(ctx.bias_dtype), None, None


torch.library.register_autograd("fastbsn::residual_body", _gradient, setup_context=_setup)


def _through_triton(x: Tensor, modules: Sequence[Params], dilation: int, outside: Tensor | None) -> Tensor:
    w3 = torch.stack([spatial[0] for spatial, _ in modules])
    w1 = torch.stack([pointwise[0].flatten(1) for _, pointwise in modules])
    bias = torch.stack([torch.stack((spatial[1], pointwise[1])) for spatial, pointwise in modules])
    return residual_body(x.to(compute_dtype(x)), outside, w3, w1, bias, dilation, differentiated(x, modules))[0]


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
    if use_triton(x, x.shape[1], trial=("residual_modules", (x.shape[1],))):
        return _through_triton(x, [params], dilation, outside)
    return residual_module_reference(x, params, dilation, outside)


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
    if use_triton(x, x.shape[1], trial=("residual_modules", (x.shape[1],))):
        return _through_triton(x, modules, dilation, None)
    return in_a_row(residual_module_reference, x, modules, dilation, phases)


def _trial(c: int) -> Trial:
    """Two modules at dilation 2, which divides neither side."""
    shapes = [(2, c, 13, 19), *2 * ((c, c, 3, 3), (c,), (c, c, 1, 1), (c,))]

    def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
        return (residual_modules(x, [pairs[:2], pairs[2:]], 2),)

    return run, shapes


TRIALS["residual_modules"] = _trial
