"""Body of a paper D-BSN branch (M multiple-dilated-convolutions modules) through the Triton kernels: behind `modules.mdc_modules`.

w5 [M, C, C, 5, 5], w3 [M, C, C, 3, 3]; w1 [M, 8, C, C] (a1, b1, c, join of a, join of b, join of c, t1, t2), bias [M, 8, C] (a1, a2, b1,
b2, c, join, t1, t2). `saved` [9 M + 1, P, C] holds x, a1, b1, a, b, c, j, u, v of every module, then y; it is empty where nothing is
to be differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbsn.ops.flat import Flat
from fastbsn.ops.operator import channels_last_like, define, enter, kernels, tap_major, tap_major_transposed

KEPT, GRADIENTS = 9, 9  # slots of a module


def _flat(x: Tensor, dilation: int) -> Flat:
    return Flat(x.shape[0], x.shape[2], x.shape[3], dilation, 2)


def _forward(
    x: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool
) -> tuple[Tensor, Tensor]:
    launch, modules, flat = kernels(), w5.shape[0], _flat(x, dilation)
    s = torch.empty(KEPT * modules + 1 if save else 4, flat.positions, x.shape[1], dtype=x.dtype, device=x.device)
    at = 0 if save else 2
    enter(flat, x, outside, s[at])
    inside, bias = flat.inside(x.device, outside), bias.float().contiguous()
    m5, m3 = tap_major(w5.flatten(3), x.dtype), tap_major(w3.flatten(3), x.dtype)
    m1 = tap_major(w1[..., None], x.dtype).flatten(1, 2)
    for m in range(modules):
        to = at + KEPT if save else 5 - at
        slots = dict(x=at, a1=at + 1, y=to, keep=at + 3) if save else dict(x=at, a1=0, y=to)
        launch.mdc_module(s, m5[m], m3[m], m1[m], bias[m], inside, flat.pitch, **slots)
        at = to
    return flat.unpack(s[at]), s if save else s.new_empty(0)


def _forward_fake(
    x: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool
) -> tuple[Tensor, Tensor]:
    c = x.shape[1]
    return channels_last_like(x, c), x.new_empty((KEPT * w5.shape[0] + 1, _flat(x, dilation).positions, c) if save else 0)


def _backward(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    launch, (modules, c), flat = kernels(), w5.shape[:2], _flat(grad, dilation)
    g = saved.new_empty(GRADIENTS + 2, flat.positions, c)  # dy, nine of the module, dx; dy and dx change places
    enter(flat, grad, outside, g[0])
    t5, t3 = tap_major_transposed(w5.flatten(3), saved.dtype), tap_major_transposed(w3.flatten(3), saved.dtype)
    t1 = tap_major_transposed(w1[..., None], saved.dtype).flatten(1, 2)
    dw, db = torch.empty(modules, 42, c, c, device=grad.device), torch.empty(modules, 8, c, device=grad.device)
    table, z = launch.mdc_table(g.device, flat.positions, flat.pitch), g.flatten(0, 1)
    at, last = 0, GRADIENTS + 1
    for m in reversed(range(modules)):
        x = KEPT * m
        sums = launch.mdc_backward_module(saved, g, t5[m], t3[m], t1[m], flat.pitch, x=x, y=x + KEPT, dy=at, t2=1, dx=last - at)
        torch.sum(sums, 0, out=db[m])
        torch.sum(launch.weight_gradients(saved[x : x + KEPT].flatten(0, 1), z, table, 42, flat.positions), 0, out=dw[m])
        at = last - at
    dw = dw.transpose(2, 3)  # entries are [C in, C out]
    d5, d3 = dw[:, :25].permute(0, 2, 3, 1).reshape(w5.shape), dw[:, 25:34].permute(0, 2, 3, 1).reshape(w3.shape)
    return flat.unpack(g[at]), d5, d3, dw[:, 34:].contiguous(), db


def _backward_fake(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    new = lambda *shape: torch.empty(shape, device=grad.device)  # noqa: E731
    m, c = w5.shape[:2]
    return channels_last_like(grad.to(saved.dtype), c), new(*w5.shape), new(*w3.shape), new(*w1.shape), new(m, 8, c)


mdc_body = define(
    "mdc_body",
    "(Tensor x, Tensor? outside, Tensor w5, Tensor w3, Tensor w1, Tensor bias, int dilation, bool save) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_mdc_body_backward = define(
    "mdc_body_backward",
    "(Tensor grad, Tensor saved, Tensor? outside, Tensor w5, Tensor w3, Tensor w1, int dilation)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, outside, w5, w3, w1, bias, ctx.dilation, _ = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(output[1], outside, w5, w3, w1)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    saved, outside, w5, w3, w1 = ctx.saved_tensors
    dx, d5, d3, d1, db = _mdc_body_backward(grad, saved, outside, w5, w3, w1, ctx.dilation)
    return dx, None, d5.to(w5.dtype), d3.to(w3.dtype), d1.to(w1.dtype), db.to(ctx.bias_dtype), None, None


torch.library.register_autograd("fastbsn::mdc_body", _gradient, setup_context=_setup)
