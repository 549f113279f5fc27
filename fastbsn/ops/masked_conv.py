"""Centre-masked convolution: the layer that makes the blind spot. Wu et al., ECCV 2020, section 3.2."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.ops import triton_masked_conv
from fastbsn.ops.dispatch import compute_dtype, use_triton


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
    padded, y = F.pad(x, (r, r, r, r)), None
    for first, rows, cols, top, left in parts:
        taps = weight[:, :, first : first + rows * cols].unflatten(2, (rows, cols))
        window = padded[:, :, top : top + h + rows - 1, left : left + w + cols - 1]
        part = F.conv2d(window, taps, bias if y is None else None)
        y = part if y is None else y + part
    return F.relu(y) if relu else y


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
    if use_triton(x, weight.shape[1], weight.shape[0]):
        return triton_masked_conv.masked_conv2d(x.to(compute_dtype(x)), weight, bias, kernel_size_of(weight), relu)
    return masked_conv2d_reference(x, weight, bias, relu)
