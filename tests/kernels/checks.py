"""What every kernel must satisfy; run by the interpreter on a CPU (tests/kernels) and on hardware (tests/gpu).

Tolerance: relative error (L2 norm) against float64 at most twice PyTorch's own in the same dtype, plus one rounding of the dtype.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn import ops
from fastbsn.backends import triton
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import GRADIENTS, KEPT, PRODUCTS
from fastbsn.nets import DBSN
from fastbsn.ops import mdc, residual

GUARD = 64  # rows of NaN on both sides of an array
KINDS = {
    "residual": lambda c: [(c, 3), (c, 1)],
    "mdc": lambda c: [(c, 1), (c, 5), (c, 1), (c, 3), (c, 1), (3 * c, 1), (c, 1), (c, 1)],
}
BODIES = {"residual": ops.residual_modules, "mdc": ops.mdc_modules}
SINGLE = {"residual": ops.residual_module, "mdc": ops.mdc_module}


def error(got: Tensor, exact: Tensor) -> float:
    assert got.shape == exact.shape, f"{tuple(got.shape)} is not {tuple(exact.shape)}"
    return ((got.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-30)).item()


def assert_as_good(got: Tensor, own: Tensor, exact: Tensor, what: str = "") -> None:
    ours, theirs = error(got, exact), error(own, exact)
    bound = 2 * theirs + torch.finfo(own.dtype).eps
    assert ours <= bound, f"{what}: relative error {ours:.2e}, PyTorch's own {theirs:.2e}, bound {bound:.2e}"


def random_module(c: int, kind: str, device: str, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    """He-sized weights, and biases large enough that a halo of ReLU(bias) instead of zero would be seen."""
    layers = [(torch.randn(c, ci, k, k) * math.sqrt(2 / (ci * k * k)), torch.randn(c) * 0.5) for ci, k in KINDS[kind](c)]
    return [(w.to(device, dtype), b.to(device, dtype)) for w, b in layers]


SLOTS = {  # of `saved` per module: outputs of its ReLUs, in the reference's order; the last is x of the next module
    "residual": [1],
    "mdc": [*(KEPT.index(name) for name in ("a1", "a", "b1", "b", "c", "j", "v")), len(KEPT)],
}


@contextmanager
def _relus(masks: list[Tensor], replay: bool) -> Iterator[None]:
    """Record which inputs of every ReLU of the reference are positive; or use these masks, in order, instead of the signs."""
    relu, left = F.relu, iter(list(masks))

    def recording(x: Tensor) -> Tensor:
        masks.append(relu(x) > 0)
        return relu(x)

    F.relu = (lambda x: x * next(left)) if replay else recording
    try:
        yield
    finally:
        F.relu = relu


@contextmanager
def _kept_activations(masks: list[Tensor]) -> Iterator[None]:
    """Record the same of the operators that run through Triton, from what they keep for their backward pass."""
    operators = {"residual": residual.residual_body, "mdc": mdc.mdc_body}

    def recording(kind: str, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        y, saved = operators[kind](x, *rest)
        flat = Flat(x.shape[0], x.shape[2], x.shape[3], rest[-2], 1 if kind == "residual" else 2)
        for first in range(0, len(saved) - 1, 2 if kind == "residual" else len(KEPT)):
            masks.extend(flat.unpack(saved[first + slot].detach()) > 0 for slot in SLOTS[kind])
        return y, saved

    with (
        patch.object(residual, "residual_body", partial(recording, "residual")),
        patch.object(mdc, "mdc_body", partial(recording, "mdc")),
    ):
        yield


def _run(fn: Callable[..., Tensor], tensors: Sequence[Tensor], dtype: torch.dtype, backend: str) -> tuple[Tensor, list[Tensor]]:
    """Output, and gradients of the tensors for a fixed output gradient."""
    leaves = [t.detach().to(dtype).clone().requires_grad_() for t in tensors]
    with ops.backend(backend):
        y = fn(*leaves)
    y.backward(torch.sin(torch.arange(y.numel(), device=y.device, dtype=torch.float64)).view(y.shape).to(y.dtype))
    return y.detach(), [t.grad for t in leaves]


def check_operation(fn: Callable[..., Tensor], tensors: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Forward and backward of fn through Triton against float64, all gradients taken together.

    A rounding can change the sign in front of a ReLU, and with it a gradient altogether, in any implementation. So
    gradients are compared to those in float64 through the ReLUs as they were in the run that is judged.
    """
    tensors = [t.to(dtype) for t in tensors]
    theirs, ours = [], []
    with _relus(theirs, replay=False):
        own, own_gradients = _run(fn, tensors, dtype, "reference")
    with _kept_activations(ours):
        got, got_gradients = _run(fn, tensors, dtype, "triton")
    if not ours and theirs:  # a masked convolution: its output is that of its ReLU
        ours = [got > 0]
    exact, _ = _run(fn, tensors, torch.float64, "reference")
    assert got.dtype == dtype
    assert_as_good(got, own, exact, "output")

    def deviation(gradients: list[Tensor], masks: list[Tensor]) -> float:
        assert len(masks) == len(theirs)
        with _relus(masks, replay=True):
            _, wanted = _run(fn, tensors, torch.float64, "reference")
        return math.hypot(*(error(g, w) for g, w in zip(gradients, wanted, strict=True))) / math.sqrt(len(wanted))

    bound = 2 * deviation(own_gradients, theirs) + torch.finfo(dtype).eps
    assert deviation(got_gradients, ours) <= bound, f"gradients: relative error {deviation(got_gradients, ours):.2e}, bound {bound:.2e}"


def check_masked_conv(n: int, c: int, o: int, h: int, w: int, k: int, dtype: torch.dtype, device: str, relu: bool = True) -> None:
    x, bias = torch.randn(n, c, h, w, device=device), torch.randn(o, device=device)
    weight = torch.randn(o, c, k * k - 1, device=device) / math.sqrt(c * k * k)
    check_operation(lambda x, w, b: ops.masked_conv2d(x, w, b, relu), (x, weight, bias), dtype)


def check_body(kind: str, n: int, c: int, h: int, w: int, count: int, d: int, dtype: torch.dtype, device: str) -> None:
    x = torch.randn(n, c, h, w, device=device)
    parameters = [t for _ in range(count) for pair in random_module(c, kind, device) for t in pair]
    each = len(parameters) // count

    def body(x: Tensor, *flat: Tensor) -> Tensor:
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return BODIES[kind](x, [pairs[m * each // 2 : (m + 1) * each // 2] for m in range(count)], d, phases=False)

    check_operation(body, (x, *parameters), dtype)


def check_module_on_phases(kind: str, n: int, c: int, h: int, w: int, d: int, dtype: torch.dtype, device: str) -> None:
    """One module called as the networks call it: on phase images with `outside`."""
    x, params = torch.randn(n, c, h, w, device=device).to(dtype), random_module(c, kind, device, dtype)
    outside = ops.outside_extent(n, d, h, w, x.device)

    def run(dtype: torch.dtype, backend: str) -> Tensor:
        phases = ops.space_to_batch(x.to(dtype), d)
        with ops.backend(backend), torch.no_grad():
            y = SINGLE[kind](phases, [(w.to(dtype), b.to(dtype)) for w, b in params], 1, outside)
        return ops.batch_to_space(y, d, h, w)

    assert_as_good(run(dtype, "triton"), run(dtype, "reference"), run(torch.float64, "reference"))


def check_random(seed: int, device: str, largest: int, widest: int) -> None:
    """One operation of random kind, shape and dtype, forward and backward."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    n, h, w = draw.randint(1, 3), draw.randint(1, largest), draw.randint(1, largest)
    c, dtype = 8 * draw.randint(1, widest // 8), draw.choice((torch.float16, torch.bfloat16))
    kind = draw.choice(("masked", "residual", "mdc"))
    if kind == "masked":
        check_masked_conv(n, c, 8 * draw.randint(1, widest // 8), h, w, draw.choice((3, 5)), dtype, device, draw.random() < 0.5)
    else:
        check_body(kind, n, c, h, w, 1, draw.choice((2, 3)), dtype, device)


class Guarded:
    """A [rows, columns] array of NaN with guard bands of NaN around it in memory."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: str):
        self.whole = torch.full((rows + 2 * GUARD, columns), math.nan, dtype=dtype, device=device)
        self.array = self.whole[GUARD:-GUARD]

    def check_written(self, rows: slice = slice(None)) -> None:
        assert self.whole[:GUARD].isnan().all() and self.whole[-GUARD:].isnan().all(), "written outside the array"
        assert self.array[rows].isfinite().all(), "a position was not written, or read NaN from outside the array"


def check_memory(c: int, o: int, flat: Flat, k: int, dtype: torch.dtype, device: str) -> None:
    """Every kernel, between guard bands: reads nothing outside its arrays, writes all of them and nothing else, padding zero."""
    from fastbsn.kernels.conv import conv2d
    from fastbsn.kernels.mdc import mdc_body
    from fastbsn.kernels.mdc_backward import mdc_backward_module, mdc_table
    from fastbsn.kernels.residual import residual_module
    from fastbsn.kernels.wgrad import weight_gradients

    def image(channels: int, slots: int = 1) -> Guarded:
        g = Guarded(slots * flat.positions, channels, dtype, device)
        g.array[: flat.positions] = flat.pack(torch.randn(flat.n, channels, flat.h, flat.w, device=device), dtype=dtype)
        return g

    def weight(rows: int, columns: int) -> Tensor:
        g = Guarded(rows, columns, dtype, device)
        return g.array.copy_(torch.randn(rows, columns) * 0.1)

    inside, p = flat.inside(torch.device(device)), flat.positions
    padding = inside == 0
    x, skip, gate, y = image(c), image(o), image(o), Guarded(p, o, dtype, device)
    bias = torch.randn(8, max(c, o), device=device)
    arguments = dict(gate=gate.array, skip=skip.array, sums=True)
    sums = conv2d(x.array, weight((k * k - 1) * c, o), bias[0, :o], inside, y.array, flat.pitch, k, masked=True, **arguments)
    y.check_written()
    assert y.array[padding].eq(0).all() and sums.isfinite().all()
    assert error(sums.sum(0), y.array.float().sum(0)) < 1e-2

    x, h, y = image(c), Guarded(p, c, dtype, device), Guarded(p, c, dtype, device)
    residual_module(x.array, weight(9 * c, c), weight(c, c), bias[:2, :c].contiguous(), inside, y.array, flat.pitch, h.array)
    h.check_written()
    y.check_written()
    assert y.array[padding].eq(0).all()

    last, dx = len(KEPT), len(GRADIENTS) + 1
    s = image(c, slots=last + 1)
    w5, w3, w1 = weight(25 * c, c), weight(9 * c, c), weight(8 * c, c)
    slots = s.array.unflatten(0, (last + 1, p))
    mdc_body(slots, w5[None], w3[None], w1[None], bias[None, :, :c].contiguous(), inside, flat.pitch, keep=True)
    s.check_written()
    assert all(slots[i][padding].eq(0).all() for i in (1, 2, last))
    g = image(c, slots=dx + 1)
    gradients = g.array.unflatten(0, (dx + 1, p))
    mdc_backward_module(slots, gradients, w5, w3, w1, flat.pitch, x=0, y=last, dy=0, t2=1, dx=dx)
    g.check_written()
    assert all(gradients[i][padding].eq(0).all() for i in range(dx + 1))
    table = mdc_table(torch.device(device), p, flat.pitch)
    assert weight_gradients(s.array[: last * p], g.array, table, PRODUCTS, p).isfinite().all()


def check_repeats(fn: Callable[[], Tensor], repeats: int) -> None:
    """Bit-equal results."""
    first = fn()
    for _ in range(repeats - 1):
        assert torch.equal(fn(), first)


def weight_gradients_twice_split(c: int, flat: Flat, dtype: torch.dtype, device: str) -> Tensor:
    """Weight gradients of a 3x3 convolution, for `check_repeats`."""
    from fastbsn.kernels.wgrad import taps_table, weight_gradients

    x, z = (flat.pack(torch.ones(flat.n, c, flat.h, flat.w, device=device).cumsum(i) / 7, dtype=dtype) for i in (2, 3))
    return weight_gradients(x, z, taps_table(x.device, flat.pitch, 3, False), 9, flat.positions).sum(0)


def random_teacher(variant: str, c: int, modules: int, inputs: int = 3) -> DBSN:
    """Weights of He size, and biases that a wrong halo would show."""
    net = DBSN(inputs, c, modules, variant).eval().requires_grad_(False)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, math.sqrt(1.5 / p[0].numel()) if p.ndim > 1 else 0.2)
    return net


def check_teacher(
    variant: str, c: int, modules: int, shape: tuple[int, ...], dtype: torch.dtype, features: bool, device: str, kernel: str = "triton"
) -> None:
    """The whole prepared network against float64; `kernel` of its modules."""
    net, x = random_teacher(variant, c, modules, shape[1]).to(device), torch.rand(shape, device=device)
    mu, got = triton.plan(net, torch.device(device), dtype, features, kernel)(x)
    exact = copy.deepcopy(net).double()(x.double())
    with ops.backend("reference"):
        own = net.to(dtype)(x.to(dtype))
    assert mu.dtype == torch.float32 and (got is not None) == features
    assert_as_good(mu, own[0], exact[0], "mu")
    if got is not None:
        assert_as_good(got, own[1], exact[1], "features")


def check_blind_spot(variant: str, c: int, size: int, dtype: torch.dtype, device: str) -> None:
    """NaN at pixel p of image p reaches that image's prediction, but not at p: every p at once."""
    net = random_teacher(variant, c, 1, 1).to(device)
    x = torch.rand(size * size, 1, size, size, device=device)
    p = torch.arange(size * size, device=device)
    x.view(size * size, -1)[p, p] = math.nan
    mu, features = triton.plan(net, torch.device(device), dtype, True)(x)
    assert features is not None
    for name, y in (("mu", mu), ("features", features)):
        values = y.flatten(2)[p, :, p]
        assert values.isfinite().all(), f"{name} at {values.isnan().any(1).nonzero().flatten().tolist()} depends on the pixel itself"
        assert y.isnan().flatten(1).any(1).all(), f"{name}: a NaN pixel reached nothing"
