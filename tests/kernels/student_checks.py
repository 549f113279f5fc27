"""What the student's kernels must satisfy; run by the interpreter on a CPU (tests/kernels) and on hardware (tests/gpu)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn import ops
from fastbsn.kernels.layout import Flat
from fastbsn.nets import UNet
from fastbsn.nets.unet import SLOPE
from fastbsn.ops import unet as operator
from tests.kernels.checks import Guarded, assert_as_good, error


def random_student(inputs: int, channels: int, depth: int) -> UNet:
    """He-sized weights also in the last layer, and biases that a wrong halo would show."""
    net = UNet(inputs, channels, depth)
    torch.nn.init.kaiming_normal_(net.out.weight, a=SLOPE)
    for p in net.parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p, 0, 0.3)
    return net


def gradients(net: UNet, x: Tensor, grad: Tensor, backend: str) -> tuple[Tensor, list[Tensor]]:
    """Estimated noise, and the gradients of image and parameters."""
    net, x = copy.deepcopy(net).to(x.dtype), x.clone().requires_grad_()
    with ops.backend(backend):
        y = net.estimated_noise(x)
    y.backward(grad.to(y.dtype))
    return y.detach(), [x.grad, *(p.grad for p in net.parameters())]


@contextmanager
def _choices(found: list[Tensor], replay: bool) -> Iterator[None]:
    """Record which inputs of every LeakyReLU of the reference are positive and which of four pixels every pooling takes; or repeat these
    choices in float64, whatever the values are."""
    leaky, pool, left = F.leaky_relu, F.max_pool2d, iter(list(found))

    def activation(x: Tensor, slope: float) -> Tensor:
        if replay:
            return x * torch.where(next(left), 1.0, slope).to(x.dtype)
        found.append(x > 0)
        return leaky(x, slope)

    def pooling(x: Tensor, size: int) -> Tensor:
        if not replay:
            found.append(pool(x, size, return_indices=True)[1])
        index = next(left) if replay else found[-1]
        return x.flatten(2).gather(2, index.flatten(2)).view(index.shape)

    with patch.object(F, "leaky_relu", activation), patch.object(F, "max_pool2d", pooling):
        yield


@contextmanager
def _kept_choices(found: list[Tensor]) -> Iterator[None]:
    """The same of the operator, from the activations that it keeps for its backward pass."""
    body = operator.unet_body

    def recording(image: Tensor, weights: list[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
        y, saved = body(image, weights, *rest)
        net = operator._Net(image.shape, weights, SLOPE, image.device, image.dtype)
        for layer in net.layers:
            if layer.activated:
                values = net.flats[layer.level].unpack(net.views(saved.detach())[layer.name])[:, : layer.out_channels].contiguous()
                found.append(values > 0)
                if layer.pooled:
                    found.append(F.max_pool2d(values.float(), 2, return_indices=True)[1])
        return y, saved

    with patch.object(operator, "unet_body", recording):
        yield


def check_student(inputs: int, channels: int, depth: int, n: int, tiles: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    """Forward and backward of the whole network against float64, `tiles` of 2**depth pixels each way.

    Gradients are compared to those in float64 with the choices (see `_choices`) of the run that is judged: a rounding can turn one over,
    and with it a gradient altogether, in any implementation.
    """
    net = random_student(inputs, channels, depth).to(device).to(dtype)
    x = torch.rand(n, inputs, *(t * 2**depth for t in tiles), device=device).to(dtype)
    grad = torch.randn(x.shape, device=device).to(dtype)
    exact, _ = gradients(net, x.double(), grad, "reference")
    theirs, ours = [], []
    with _choices(theirs, replay=False):
        own, own_gradients = gradients(net, x, grad, "reference")
    with _kept_choices(ours):
        got, got_gradients = gradients(net, x, grad, "triton")
    assert got.dtype == dtype
    assert_as_good(got, own, exact, "output")

    def deviation(found: list[Tensor], choices: list[Tensor]) -> float:
        assert len(choices) == len(theirs)
        with _choices(choices, replay=True):
            _, wanted = gradients(net, x.double(), grad, "reference")
        return math.hypot(*(error(f, w) for f, w in zip(found, wanted, strict=True))) / math.sqrt(len(wanted))

    bound = 2 * deviation(own_gradients, theirs) + torch.finfo(dtype).eps
    got_deviation = deviation(got_gradients, ours)
    assert got_deviation <= bound, f"gradients: relative error {got_deviation:.2e}, bound {bound:.2e}"


def check_resampling(n: int, c: int, h: int, w: int, dtype: torch.dtype, device: str) -> None:
    """The four kernels between guard bands, against PyTorch; values repeat, so that the largest of four is often not unique."""
    from fastbsn.kernels import resample

    coarse, fine = Flat(n, h, w, 1, 1), Flat(n, 2 * h, 2 * w, 1, 1)
    level = (n, h, w)

    def image(flat: Flat) -> tuple[Tensor, Tensor]:
        values = (torch.randint(-4, 5, (n, c, flat.h, flat.w), device=device) / 4).to(dtype)
        g = Guarded(flat.positions, c, dtype, device)
        return values, g.array.copy_(flat.pack(values))

    def check(g: Guarded, flat: Flat, expected: Tensor, sums: Tensor | None = None) -> None:
        g.check_written()
        assert g.array[flat.inside(torch.device(device)) == 0].eq(0).all()
        assert torch.equal(flat.unpack(g.array), expected.to(dtype))
        if sums is not None:
            torch.testing.assert_close(sums.sum(0), expected.sum((0, 2, 3)).float(), rtol=1e-3, atol=1e-3)

    values, x = image(fine)
    y = Guarded(coarse.positions, c, dtype, device)
    resample.pool(x, y.array, level)
    check(y, coarse, F.max_pool2d(values.float(), 2))

    grad, dy = image(coarse)
    leaf = values.double().requires_grad_()
    F.max_pool2d(leaf, 2).backward(grad.double())
    dz = Guarded(fine.positions, c, dtype, device)
    sums = resample.pool_backward(x, y.array, dy, dz.array, level, 0.5)
    check(dz, fine, torch.where(values <= 0, 0.5 * leaf.grad, leaf.grad), sums)

    values, x = image(coarse)
    up = Guarded(fine.positions, c, dtype, device)
    resample.upsample(x, up.array, level)
    check(up, fine, F.interpolate(values.float(), scale_factor=2, mode="nearest"))

    grad, dy = image(fine)
    total = 4 * F.avg_pool2d(grad.double(), 2)
    dz = Guarded(coarse.positions, c, dtype, device)
    sums = resample.upsample_backward(x, dy, dz.array, level, 0.5)
    check(dz, coarse, torch.where(values <= 0, 0.5 * total, total), sums)
