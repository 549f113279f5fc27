"""Launching what a U-Net needs besides convolutions, see resample.py. Arrays are [P, C] of one level, or of the next finer one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastbsn.kernels import resample
from fastbsn.kernels.launch import launch

Level = tuple[int, int, int]  # images, and height and width of the coarse level


def _run(kernel: Any, over: Tensor, level: Level, slope: float | None = None, **tensors: Tensor) -> None:
    call = resample.resample_call(kernel, over.shape[1], slope)
    grid = (over.shape[0] // call.config.block, -(-over.shape[1] // call.constants["N"]))
    launch(call, grid, False, **tensors, **dict(zip(("images", "h", "w"), level, strict=True)))


def _sums(over: Tensor) -> Tensor:
    return torch.empty(over.shape[0] // resample.CONFIG.block, over.shape[1], device=over.device)


def pool(x: Tensor, y: Tensor, level: Level) -> None:
    """2x2 max of x into y."""
    _run(resample.pool_kernel, y, level, x_ptr=x, y_ptr=y)


def pool_backward(x: Tensor, y: Tensor, dy: Tensor, dz: Tensor, level: Level, slope: float) -> Tensor:
    """Gradient before the LeakyReLU that made x, into dz; its column sums by block."""
    sums = _sums(dz)
    _run(resample.pool_backward_kernel, dz, level, slope, x_ptr=x, y_ptr=y, dy_ptr=dy, dz_ptr=dz, sums_ptr=sums)
    return sums


def upsample(x: Tensor, y: Tensor, level: Level) -> None:
    """x, each pixel four times, into y."""
    _run(resample.upsample_kernel, y, level, x_ptr=x, y_ptr=y)


def upsample_backward(x: Tensor, dy: Tensor, dz: Tensor, level: Level, slope: float) -> Tensor:
    """Gradient before the LeakyReLU that made x, into dz; its column sums by block."""
    sums = _sums(dz)
    _run(resample.upsample_backward_kernel, dz, level, slope, x_ptr=x, dy_ptr=dy, dz_ptr=dz, sums_ptr=sums)
    return sums
