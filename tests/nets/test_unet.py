"""The student: its layers, any size, exact halo, the published size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn.denoiser import Denoiser
from fastbsn.errors import InputError
from fastbsn.nets import UNet, pad_to_multiple
from fastbsn.ops.topology import last_readers
from fastbsn.pixels import mirrored


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


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_layers_say_what_the_network_is(depth):
    net = network(2, 12, depth)
    assert [name for name, _ in net.named_children()] == [layer.name for layer in net.layers]
    width = {"image": 2} | {layer.result: layer.out_channels for layer in net.layers}
    level = {"image": 0} | {layer.result: layer.level + bool(layer.pooled) - bool(layer.upsampled) for layer in net.layers}
    for layer, convolution in zip(net.layers, net.convolutions, strict=True):
        assert layer.in_channels == tuple(width[name] for name in layer.inputs)
        assert all(level[name] == layer.level for name in layer.inputs)
        assert convolution.weight.shape == (layer.out_channels, sum(layer.in_channels), 3, 3)
        assert not (layer.pooled and layer.upsampled) and layer.activated == (layer.name != "out")


def test_modules_are_called_so_that_hooks_see_every_layer():
    net, seen = network(), []
    for name, module in net.named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    net(torch.rand(1, 1, 8, 8))
    assert seen == [layer.name for layer in net.layers]


def test_nothing_is_kept_longer_than_it_is_read():
    net, at = network(depth=3), {"image"}
    last = last_readers(net.layers)
    for layer in net.layers:
        at = {name for name in at if last[name] != layer.name} | {layer.result}
    assert at == {"out"}


def test_published_size():
    assert 0.95e6 < sum(p.numel() for p in UNet(3).parameters()) < 1.05e6


@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"channels": 20}, {"depth": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        UNet(**wrong)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 31, 32, 33, 50])
def test_mirrored_is_reflection_at_any_length(size):
    expected = np.pad(np.arange(size), (0, 40), mode="reflect")
    assert np.array_equal(mirrored(size, size + 40).numpy(), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 33), (8, 8), (6, 50), (63, 64)])
def test_padding_reflects_both_axes(shape):
    y = torch.rand(2, 3, *shape)
    rows, cols = (-n % 8 for n in shape)
    expected = np.pad(y.numpy(), ((0, 0), (0, 0), (0, rows), (0, cols)), mode="reflect")
    assert np.array_equal(pad_to_multiple(y, 8).numpy(), expected)


def test_the_border_of_an_odd_size_is_denoised_like_the_rest():
    """What a repeated border fails: it draws noise out into lines."""
    image = torch.from_numpy(pytest.importorskip("skimage.data").camera())[None, None, 130:387, 130:387] / 255.0  # 257 x 257
    noisy = image + 25 / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    error = (Denoiser.from_pretrained("gray-awgn", device="cpu")(noisy) - image).square()
    even = (Denoiser.from_pretrained("gray-awgn", device="cpu")(noisy[..., :256, :256]) - image[..., :256, :256]).square()
    assert error[..., :256, :256].mean() < 1.05 * even.mean()
