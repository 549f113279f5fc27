"""Centre-masked convolution: the layer that makes the blind spot. Wu et al., ECCV 2020, section 3.2."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.kernels.layout import Flat
from fastbsn.ops.dispatch import TRIALS, Trial, compute_dtype, use_triton
from fastbsn.ops.operator import channels_last_like, define, tap_major, tap_major_transposed


def kernel_size_of(weight: Tensor) -> int:
    """Kernel size k of a masked weight [O, C, k*k-1]."""
    k = math.isqrt(weight.shape[-1] + 1)
    if weight.ndim != 3 or k * k != weight.shape[-1] + 1 or k % 2 == 0:
        raise InputError(f"masked convolution: weight has shape {tuple(weight.shape)}; expected [O, C, k*k-1] with odd k")
    return k


def masked_conv2d_reference(
    x: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [O, C, k*k-1], taps in row-major order, the centre left out
    bias: Tensor | None,  # [O]
    relu: bool,
) -> Tensor:  # [N, O, H, W]
    k = kernel_size_of(weight)
    r, (h, w) = k // 2, x.shape[-2:]
    # The window without its centre is four rectangles: (first tap, rows, columns, top, left) in the padded input.
    parts = ((0, r, k, 0, 0), (r * k, 1, r, r, 0), (r * k + r, 1, r, r, r + 1), (r * k + 2 * r, r, k, r + 1, 0))
    padded = F.pad(x, (r, r, r, r))

    def part(first: int, rows: int, cols: int, top: int, left: int, bias: Tensor | None = None) -> Tensor:
        taps = weight[:, :, first : first + rows * cols].unflatten(2, (rows, cols))
        return F.conv2d(padded[:, :, top : top + h + rows - 1, left : left + w + cols - 1], taps, bias)

    y = part(*parts[0], bias)
    for rectangle in parts[1:]:
        y = y + part(*rectangle)
    return F.relu(y) if relu else y


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, k: int, relu: bool) -> Tensor:
    from fastbsn.kernels.conv import conv2d

    n, _, h, w = x.shape
    flat = Flat(n, h, w, 1, k // 2)
    y = torch.empty(flat.positions, weight.shape[0], dtype=x.dtype, device=x.device)
    bias = None if bias is None else bias.float().contiguous()
    conv2d(flat.pack(x), tap_major(weight, x.dtype), bias, flat.inside(x.device), y, flat.pitch, k, masked=True, act=relu)
    return flat.unpack(y)


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, k: int, relu: bool) -> Tensor:
    return channels_last_like(x, weight.shape[0])


def _backward(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, k: int, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    from fastbsn.kernels.conv import conv2d
    from fastbsn.kernels.wgrad import taps_table, weight_gradients

    (n, c, h, w), taps = x.shape, weight.shape[2]
    flat = Flat(n, h, w, 1, k // 2)
    dz = torch.where(y <= 0, 0, grad) if relu else grad
    z = flat.pack(dz, dtype=x.dtype)
    dx = torch.empty(flat.positions, c, dtype=x.dtype, device=x.device)
    conv2d(z, tap_major_transposed(weight, x.dtype), None, flat.inside(x.device), dx, flat.pitch, k, masked=True)
    dw = weight_gradients(flat.pack(x), z, taps_table(x.device, flat.pitch, k, True), taps, flat.positions).sum(0)
    return flat.unpack(dx), dw.permute(2, 1, 0).contiguous(), dz.sum((0, 2, 3), dtype=torch.float32)


def _backward_fake(grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, k: int, relu: bool) -> tuple[Tensor, Tensor, Tensor]:
    dw = torch.empty(weight.shape, dtype=torch.float32, device=x.device)
    return channels_last_like(x, x.shape[1]), dw, dw.new_empty(weight.shape[0])


_masked_conv2d = define("masked_conv2d", "(Tensor x, Tensor weight, Tensor? bias, int k, bool relu) -> Tensor", _forward, _forward_fake)
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


def masked_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = True) -> Tensor:
    """k x k convolution that never reads the pixel it predicts, with bias and optional ReLU.

    The centre tap does not exist in `weight`, so it is skipped in forward and backward, and no weight decay or
    optimizer state can bring it back: a NaN at pixel p does not reach the output at p.

    Args:
        x: [N, C, H, W], floating point; zero padding of r = k // 2.
        weight: [O, C, k*k-1], taps in row-major order without the centre, k odd.
        bias: [O] or None.
        relu: apply ReLU.

    Returns:
        [N, O, H, W], the dtype of `x`.

    Raises:
        InputError: `weight` is not [O, C, k*k-1] with odd k.
    """
    sizes = weight.shape[1], weight.shape[0], kernel_size_of(weight)
    if use_triton(x, *sizes[:2], trial=("masked_conv2d", sizes)):
        return _masked_conv2d(x.to(compute_dtype(x)), weight, bias, sizes[2], relu)
    return masked_conv2d_reference(x, weight, bias, relu)


def _trial(in_channels: int, out_channels: int, k: int) -> Trial:
    shapes = ((2, in_channels, 13, 18), (out_channels, in_channels, k * k - 1), (out_channels,))
    return lambda x, weight, bias: (masked_conv2d(x, weight, bias),), shapes


TRIALS["masked_conv2d"] = _trial
