"""Centre-masked convolution through the Triton kernels: the operator behind `masked_conv.masked_conv2d`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbsn.ops.flat import Flat
from fastbsn.ops.operator import channels_last_like, define, kernels, tap_major, tap_major_transposed


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, k: int, relu: bool) -> Tensor:
    n, _, h, w = x.shape
    flat = Flat(n, h, w, 1, k // 2)
    y = torch.empty(flat.positions, weight.shape[0], dtype=x.dtype, device=x.device)
    bias = None if bias is None else bias.float().contiguous()
    kernels().conv2d(flat.pack(x), tap_major(weight, x.dtype), bias, flat.inside(x.device), y, flat.pitch, k, masked=True, act=relu)
    return flat.unpack(y)


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, k: int, relu: bool) -> Tensor:
    return channels_last_like(x, weight.shape[0])


def _backward(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, k: int, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    launch, (n, c, h, w), taps = kernels(), x.shape, weight.shape[2]
    flat = Flat(n, h, w, 1, k // 2)
    dz = torch.where(y <= 0, 0, grad) if relu else grad
    z = flat.pack(dz, dtype=x.dtype)
    dx = torch.empty(flat.positions, c, dtype=x.dtype, device=x.device)
    launch.conv2d(z, tap_major_transposed(weight, x.dtype), None, flat.inside(x.device), dx, flat.pitch, k, masked=True)
    dw = launch.weight_gradients(flat.pack(x), z, launch.taps_table(x.device, flat.pitch, k, True), taps, flat.positions).sum(0)
    return flat.unpack(dx), dw.permute(2, 1, 0).contiguous(), dz.sum((0, 2, 3), dtype=torch.float32)


def _backward_fake(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, k: int, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    dw = torch.empty(weight.shape, dtype=torch.float32, device=x.device)
    return channels_last_like(x, x.shape[1]), dw, dw.new_empty(weight.shape[0])


masked_conv2d = define("masked_conv2d", "(Tensor x, Tensor weight, Tensor? bias, int k, bool relu) -> Tensor", _forward, _forward_fake)
_masked_conv2d_backward = define(
    "masked_conv2d_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor y, int k, bool relu) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.k, ctx.relu = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight, output)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, y = ctx.saved_tensors
    dx, dw, db = _masked_conv2d_backward(grad, x, weight, y, ctx.k, ctx.relu)
    return dx, dw.to(weight.dtype), None if ctx.bias_dtype is None else db.to(ctx.bias_dtype), None, None


torch.library.register_autograd("fastbsn::masked_conv2d", _gradient, setup_context=_setup)
