"""The student: residual, any size, exact halo, the published size."""

from __future__ import annotations

import pytest
import torch

from fastbsn.errors import InputError
from fastbsn.nets import UNet


def network(in_channels: int = 1, channels: int = 6, depth: int = 2) -> UNet:
    net = UNet(in_channels, channels, depth).eval()
    torch.nn.init.normal_(net.out.weight, std=0.1)
    return net


def test_starts_as_the_identity():
    x = torch.rand(2, 3, 40, 33)
    assert torch.equal(UNet(3, 6)(x), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 33), (64, 64)])
def test_any_size(size):
    x = torch.rand(2, 1, *size)
    assert network()(x).shape == x.shape


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_radius_is_the_exact_halo_of_an_aligned_tile(depth):
    net = network(depth=depth).double()
    m, r = net.multiple, net.radius
    start = (r // m + 1) * m
    size = 2 * start + m
    x = torch.rand(1, 1, size, m, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, 0, start : start + m].square().sum(), x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    reach = max(start - int(rows[0]), int(rows[-1]) - (start + m - 1))
    assert r - m < reach <= r


def test_published_size():
    assert 0.95e6 < sum(p.numel() for p in UNet(3).parameters()) < 1.05e6


@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"channels": 20}, {"depth": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        UNet(**wrong)
