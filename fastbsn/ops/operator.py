"""Registering Triton operations as PyTorch operators: schema, implementation, fake (shape-only) implementation and autograd.

One operator per branch body rather than per layer: activations stay in the [P, C] layout between modules, and a step has few
launches. Parameters of M modules arrive stacked. `saved` holds what the backward pass reads; it is empty where nothing is to be
differentiated. Registering imports no Triton; running does, which is why
the functions that run import the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbsn.kernels.layout import Flat


def define(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    qualified = f"fastbsn::{name}"
    torch.library.define(qualified, schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(qualified, ("cpu", "cuda"), run)
    torch.library.register_fake(qualified, fake)
    return getattr(torch.ops.fastbsn, name).default


def channels_last_like(x: Tensor, channels: int) -> Tensor:
    return torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def tap_major(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., O, C, taps] -> [..., taps * C, O] in `dtype`: what a kernel multiplies rows of activations with."""
    return weight.transpose(-1, -3).to(dtype, memory_format=torch.contiguous_format).flatten(-3, -2).contiguous()


def tap_major_transposed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., O, C, taps] -> [..., taps * O, C], taps reversed: the same convolution seen from its output."""
    return weight.flip(-1).movedim(-1, -3).to(dtype, memory_format=torch.contiguous_format).flatten(-3, -2).contiguous()


def enter(flat: Flat, x: Tensor, outside: Tensor | None, slot: Tensor) -> None:
    """Pack x [N, C, H, W] into a slot [P, C] that holds anything, zero where `outside`."""
    flat.pack(x if outside is None else x.masked_fill(outside, 0), out=slot.zero_())
