"""Launching: each function checks nothing, chooses a configuration and a grid, and launches. Arrays are [P, C], see tiles.py."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastbsn.kernels import conv, mdc, mdc_backward, tuning, wgrad, wide
from fastbsn.kernels.call import WIDEST, Call, Config

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"  # as it was when the kernels were made
TMA_IN_INTERPRETER = True


@dataclass(frozen=True)
class Target:
    """What kernels are launched for: table column, and whether blocks are read through TMA descriptors."""

    arch: str
    tma: bool
    precision: str  # of float32 products: "ieee" or "tf32"

    def config(self, kernel: str, x: Tensor) -> Config:
        return tuning.config(kernel, self.arch, x.shape[-1], x.element_size())


def target(x: Tensor) -> Target:
    if INTERPRETER:
        return Target("interpreter", TMA_IN_INTERPRETER, "ieee")
    capability = _capability(x.device.index or 0)
    # Not by the table's column: from 9.0 on, a descriptor made in the kernel needs an allocator for scratch memory.
    return Target(tuning.architecture(*capability), capability >= (9, 0), "tf32" if torch.backends.cudnn.allow_tf32 else "ieee")


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def launch(call: Call, grid: tuple[int, ...], tma: bool, **arguments: Any) -> None:
    """Run `call` on the device of its tensors; arrays it reads by blocks are passed as descriptors (TMA) or as pointers."""
    device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
    for name, shape in call.blocks.items():
        array = arguments.get(name)
        if tma and array is not None:
            arguments[name] = TensorDescriptor(array, list(array.shape), list(array.stride()), list(shape))
    options = {"num_warps": call.config.warps, "num_stages": call.config.stages, "enable_fp_fusion": True}
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        call.kernel[grid](**arguments, **call.constants, **options)


def conv2d(
    x: Tensor,  # [P, C]
    w: Tensor,  # [taps * C, CO]
    bias: Tensor | None,  # [CO] float32
    inside: Tensor,  # [P] uint8
    y: Tensor,  # [P, CO], written
    pitch: int,
    k: int,
    masked: bool = False,
    act: bool = False,
    slope: float = 0.0,  # of the activation, and of the derivative that `gate` stands for
    gate: Tensor | None = None,  # [P, CO]
    residual: Tensor | None = None,  # [P, CO]
    sums: bool = False,
    x2: Tensor | None = None,  # [P, C2]
    w2: Tensor | None = None,  # [taps * C2, CO]
) -> Tensor | None:  # column sums of y by block, [blocks, CO] float32, if `sums`
    (p, c), co, t = x.shape, y.shape[1], target(x)
    config = t.config("conv", y if co > c else x)
    call = conv.conv_call(config, c, co, k, masked, act, slope, 0 if x2 is None else x2.shape[1], t.precision)
    partial = torch.empty(p // config.block, co, device=x.device) if sums else None
    tensors = dict(x=x, x2=x2, w=w, w2=w2, b_ptr=bias, gate=gate, residual=residual, inside_ptr=inside, y=y, sums_ptr=partial)
    launch(call, (p // config.block, -(-co // call.constants["N"])), t.tma, **tensors, P=p, pitch=pitch)
    return partial


def residual(
    x: Tensor,  # [P, C]
    w: Tensor,  # [9 * C, C]
    w1: Tensor,  # [C, C]
    bias: Tensor,  # [2, C] float32
    inside: Tensor,  # [P] uint8
    y: Tensor,  # [P, C], written
    pitch: int,
    h: Tensor | None = None,  # [P, C], written if given: ReLU(3x3 x)
) -> None:
    if x.shape[1] > WIDEST:
        return wide.residual(conv2d, x, w, w1, bias, inside, y, pitch, h)
    t = target(x)
    config = t.config("residual", x)
    arguments = dict(x=x, w=w, w1=w1, b_ptr=bias, inside_ptr=inside, h=h, y=y, P=x.shape[0], pitch=pitch)
    launch(conv.residual_call(config, x.shape[1], t.precision), (x.shape[0] // config.block,), t.tma, **arguments)


def mdc_module(
    s: Tensor,  # [slots, P, C], read and written
    w5: Tensor,  # [25 * C, C]
    w3: Tensor,  # [9 * C, C]
    w1: Tensor,  # [8 * C, C]
    bias: Tensor,  # [8, C] float32
    inside: Tensor,  # [P] uint8
    pitch: int,
    x: int,  # slot
    a1: int,  # first of two slots; the slot before, if any, must end in zeros: the halo above the first row
    y: int,  # slot
    keep: int | None = None,  # first of six slots for the backward pass
) -> None:
    if s.shape[-1] > WIDEST:
        return wide.mdc_module(conv2d, s, w5, w3, w1, bias, inside, pitch, x, a1, y, keep)
    (_, p, c), t, flat = s.shape, target(s), s.view(-1, s.shape[-1])
    shared = dict(s=flat, sn=flat, w1=w1, b_ptr=bias, inside_ptr=inside, rows=flat.shape[0], P=p, x_row=x * p, a1_row=a1 * p)
    config = t.config("mdc_first", s)
    launch(mdc.mdc_first_call(config, c, t.precision), (p // config.block,), t.tma, **shared)
    config = t.config("mdc_rest", s)
    rest = dict(sb=flat[: (a1 + 2) * p], w5=w5, w3=w3, wc=w1, wj=w1, pitch=pitch, keep_row=(keep or 0) * p, y_row=y * p)
    launch(mdc.mdc_rest_call(config, c, keep is not None, t.precision), (p // config.block,), t.tma, **shared, **rest)


def mdc_backward_module(
    s: Tensor,  # [slots, P, C] of the forward pass
    g: Tensor,  # [slots, P, C] of gradients, read and written
    w5t: Tensor,  # [25 * C, C]
    w3t: Tensor,  # [9 * C, C]
    w1t: Tensor,  # [8 * C, C]
    pitch: int,
    x: int,  # slot of the module's input, with the eight kept ones behind it
    y: int,  # slot of its output
    dy: int,  # slot of g
    t2: int,  # first of nine slots of g
    dx: int,  # slot of g
) -> Tensor:  # bias gradients by block, [blocks, 8, C] float32
    if s.shape[-1] > WIDEST:
        return wide.mdc_backward_module(conv2d, s, g, w5t, w3t, w1t, pitch, x, y, dy, t2, dx)
    (_, p, c), t = s.shape, target(s)
    flat, gradients = s.view(-1, c), g.view(-1, c)
    first, rest = t.config("mdc_backward_first", s), t.config("mdc_backward_rest", s)
    block = min(first.block, rest.block)
    first, rest = (Config(block, config.chunk, config.warps, config.stages) for config in (first, rest))
    sums = torch.empty(p // block, 8, c, device=s.device)
    shared = dict(sn=flat, g=gradients, w1t=w1t, sums_ptr=sums, rows=flat.shape[0], g_rows=gradients.shape[0], P=p, t2_row=t2 * p)
    rows = dict(keep_row=(x + 3) * p, y_row=y * p, dy_row=dy * p)
    launch(mdc_backward.mdc_backward_first_call(first, c, t.precision), (p // block,), t.tma, **shared, **rows)
    arguments = dict(gk=gradients, w5t=w5t, w3t=w3t, pitch=pitch, a1_row=(x + 1) * p, dx_row=dx * p)
    launch(mdc_backward.mdc_backward_rest_call(rest, c, t.precision), (p // block,), t.tma, **shared, **arguments)
    return sums


def weight_gradients(
    x: Tensor,  # [rows, C]
    z: Tensor,  # [rows, CO]
    table: Tensor,  # [groups, 5] int32, see wgrad.py
    entries: int,
    positions: int,
) -> Tensor:  # [splits, entries, C, CO] float32, to be summed over the first dimension
    t, (c, co) = target(x), (x.shape[1], z.shape[1])
    config = t.config("wgrad", z if co > c else x)
    call = wgrad.wgrad_call(config, c, co, t.precision)
    columns = -(-c // call.constants["M"]) * -(-co // call.constants["N"])
    total = positions // config.block
    splits = max(1, min(total, _programs(x) // (table.shape[0] * columns)))
    per_split = -(-total // splits)
    splits = -(-total // per_split)
    dw = torch.empty(splits, entries, c, co, device=x.device)
    rows = dict(x_rows=x.shape[0], z_rows=z.shape[0], entries=entries, per_split=per_split, total=total)
    launch(call, (splits, table.shape[0], columns), t.tma, x=x, z=z, table_ptr=table, dw_ptr=dw, **rows)
    return dw


def _programs(x: Tensor) -> int:
    """Programs that fill the GPU twice; a constant in the interpreter, so that tests see several splits."""
    return 64 if INTERPRETER else 2 * torch.cuda.get_device_properties(x.device).multi_processor_count


@cache  # for good: a captured CUDA graph may be reading one
def _table(device: torch.device, products: tuple[tuple[int, int], ...]) -> Tensor:
    return torch.tensor(wgrad.pairs(list(products)), dtype=torch.int32, device=device)


def taps_table(device: torch.device, pitch: int, k: int, masked: bool) -> Tensor:
    """For `weight_gradients` of one convolution."""
    return _table(device, tuple(wgrad.tap_products(k, pitch, masked)))


def residual_table(device: torch.device, p: int, pitch: int, dy: int) -> Tensor:
    """Of a residual module: 3x3 taps (slot x = 0, gradient slot dh = 1), then the 1x1 (slot h = 1, gradient slot dy)."""
    return _table(device, (*wgrad.tap_products(3, pitch, z=p), (p, dy * p)))


def mdc_table(device: torch.device, p: int, pitch: int) -> Tensor:
    """Of an MDC module: 5x5 taps, 3x3 taps, then the matrices a1, b1, c, join of a, b, c, t1, t2; slots as in mdc.py, mdc_backward.py."""
    x = {name: i * p for i, name in enumerate(mdc.KEPT)}
    z = {name: (1 + i) * p for i, name in enumerate(mdc_backward.GRADIENTS)}
    taps = wgrad.tap_products(5, pitch, x=x["a1"], z=z["a"]) + wgrad.tap_products(3, pitch, x=x["b1"], z=z["b"])
    ones = [("x", "a1"), ("x", "b1"), ("x", "c"), ("a", "join"), ("b", "join"), ("c", "join"), ("u", "t1"), ("v", "t2")]
    return _table(device, (*taps, *((x[i], z[j]) for i, j in ones)))
