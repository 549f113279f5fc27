"""Every configuration that the networks launch, for the gate that compiles them without a GPU (aot.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import conv, ends, mdc, mdc_backward, resample, residual, tuning, wgrad
from .runtime import Call
from .tuning import WIDEST, Config

ALONE = ("x2", "w2")  # operands of a convolution of one input
OWN_WIDTH = {"light": 128, "paper": 96}
WIDE = 256
SLOPE = 0.1  # of the student's LeakyReLU


@dataclass(frozen=True)
class Shipped:
    """A configuration that a network launches: `absent` operands are None."""

    name: str
    call: Call
    absent: tuple[str, ...] = ()
    main_loop: bool = True  # has a long loop, over taps or positions, that is to run as HGMMA fed by TMA


def layers(config: Config, c: int) -> Iterator[Shipped]:
    """What wide.py launches instead of the fused modules, and the backward pass of a light one."""

    def item(name: str, c_in: int, k: int, absent: tuple[str, ...], act: bool = False) -> Shipped:
        return Shipped(name, conv.conv_call(config, c_in, c, k, act=act), (*ALONE, *absent), main_loop=k > 1)

    for k in (1, 3, 5):
        yield item(f"{k}x{k}", c, k, ("gate", "skip", "sums_ptr"), act=True)
        yield item(f"{k}x{k} dgrad, gate", c, k, ("b_ptr", "skip"))
    yield item("1x1, skip", c, 1, ("gate", "sums_ptr"))
    yield item("3x3 dgrad, skip", c, 3, ("b_ptr", "gate"))
    yield item("1x1 dgrad", c, 1, ("b_ptr", "gate", "skip", "sums_ptr"))
    yield item("join", 3 * c, 1, ("gate", "skip", "sums_ptr"), act=True)
    yield item("join dgrad, skip", 3 * c, 1, ("b_ptr", "gate", "sums_ptr"))


def student(arch: str, inputs: int = 8, c: int = 48) -> Iterator[Shipped]:
    """What the training of a student of width c launches; `inputs` and outputs are rounded up to 8 channels."""
    forward = [
        (inputs, 0, c),
        (c, 0, c),
        (c, c, 2 * c),
        (2 * c, c, 2 * c),
        (2 * c, 0, 2 * c),
        (2 * c, inputs, c * 4 // 3),
        (c * 4 // 3, 0, c * 2 // 3),
    ]
    gated = [(inputs, c * 2 // 3), (c * 2 // 3, c * 4 // 3), (2 * c, 2 * c), (c, c)]
    plain = [(c * 4 // 3, 2 * c), (2 * c, 2 * c), (2 * c, c), (c, c)]
    products = [
        (inputs, c),
        (c, c),
        (c, 2 * c),
        (2 * c, 2 * c),
        (2 * c, c * 4 // 3),
        (inputs, c * 4 // 3),
        (c * 4 // 3, c * 2 // 3),
        (c * 2 // 3, inputs),
    ]

    def convolution(c_in: int, co: int, act: bool, c2: int = 0) -> Call:
        return conv.conv_call(tuning.config("conv", arch, max(c_in, co), 2), c_in, co, 3, act=act, slope=SLOPE, c2=c2)

    for c_in, c2, co in forward:
        absent = () if c2 else ALONE
        yield Shipped(f"student {c_in}+{c2}>{co}", convolution(c_in, co, True, c2), (*absent, "gate", "skip", "sums_ptr"))
    yield Shipped("student out", convolution(c * 2 // 3, inputs, False), (*ALONE, "gate", "skip", "sums_ptr"))
    for c_in, co in gated:
        yield Shipped(f"student dgrad {c_in}>{co}, gate", convolution(c_in, co, False), (*ALONE, "b_ptr", "skip"))
    for c_in, co in plain:
        yield Shipped(f"student dgrad {c_in}>{co}", convolution(c_in, co, False), (*ALONE, "b_ptr", "gate", "skip", "sums_ptr"))
    yield Shipped("student dgrad, skip", convolution(c, c, False), (*ALONE, "b_ptr", "gate", "sums_ptr"))
    for c_in, co in products:
        call = wgrad.wgrad_call(tuning.config("wgrad", arch, max(c_in, co), 2), c_in, co)
        yield Shipped(f"student wgrad {c_in}x{co}", call, main_loop=call.constants["M"] >= 64)
    small = partial(Shipped, main_loop=False)
    yield small("pool", resample.resample_call(resample.pool_kernel, c))
    yield small("pool backward", resample.resample_call(resample.pool_backward_kernel, c, SLOPE))
    for wide in (c, 2 * c):
        yield small("upsample", resample.resample_call(resample.upsample_kernel, wide))
        yield small("upsample backward", resample.resample_call(resample.upsample_backward_kernel, wide, SLOPE))


def shipped(arch: str, widths: dict[str, tuple[int, ...]]) -> Iterator[Shipped]:
    """Everything that the student and light or paper teachers of these widths launch on `arch`, in 16-bit."""

    def config(kernel: str, c: int) -> Any:
        return tuning.config(kernel, arch, c, 2)

    yield from student(arch)
    for c in sorted({*widths["light"], *widths["paper"]}):
        for k in (3, 5):
            masked = conv.conv_call(config("conv", c), c, c, k, masked=True, act=True)
            yield Shipped(f"masked {k}x{k}", masked, (*ALONE, "gate", "skip", "sums_ptr"))
            dgrad = conv.conv_call(config("conv", c), c, c, k, masked=True)
            yield Shipped(f"masked {k}x{k} dgrad", dgrad, (*ALONE, "b_ptr", "gate", "skip", "sums_ptr"))
        yield Shipped("wgrad", wgrad.wgrad_call(config("wgrad", c), c, c))
        if c > WIDEST:
            yield from layers(config("conv", c), c)
            continue
        yield Shipped("head d=2", ends.head_call(config("head", c), c, 2, 3))
        yield Shipped("head d=3", ends.head_call(config("head", c), c, 3, 3))
    yield Shipped("pack", ends.pack_call(config("pack", 16), 3), main_loop=False)
    light, paper = ([c for c in widths[variant] if c <= WIDEST] for variant in ("light", "paper"))
    for c in light:
        yield Shipped("residual", residual.residual_call(config("residual", c), c), ("h",))
        yield Shipped("residual, training", residual.residual_call(config("residual", c), c))
        yield Shipped("1x1 dgrad", conv.conv_call(config("conv", c), c, c, 1), (*ALONE, "b_ptr", "skip"), main_loop=False)
        yield Shipped("3x3 dgrad", conv.conv_call(config("conv", c), c, c, 3), (*ALONE, "b_ptr", "gate"))
        tail = ends.tail_call(config("tail", c), c, 3, True, False)
        yield Shipped("tail, light", tail, main_loop=False)
        yield Shipped("tail, light, mu only", tail, ("features",), main_loop=False)
    for c in paper:
        yield Shipped("mdc first", mdc.mdc_first_call(config("mdc_first", c), c), main_loop=False)
        taps = conv.conv_call(config("mdc_taps", c), c, c, 5, act=True)
        yield Shipped("mdc 5x5", taps, (*ALONE, "gate", "skip", "sums_ptr"))
        for keep in (False, True):
            for following in (False, True) if arch in tuning.FUSES_NEXT else (False,):
                name = "mdc rest" + (", training" if keep else "") + ("" if following else ", last")
                yield Shipped(name, mdc.mdc_rest_call(config("mdc_rest", c), c, keep, following))
        first, rest = config("mdc_backward_first", c), config("mdc_backward_rest", c)
        yield Shipped("mdc backward first", mdc_backward.mdc_backward_first_call(first, c), main_loop=False)
        yield Shipped("mdc backward rest", mdc_backward.mdc_backward_rest_call(rest, c))
        yield Shipped("tail, paper", ends.tail_call(config("tail", c), c, 3, False, False), main_loop=False)
        yield Shipped("tail, paper, mu only", ends.tail_call(config("tail", c), c, 3, False, True), ("features",), main_loop=False)
