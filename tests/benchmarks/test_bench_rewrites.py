"""The plain PyTorch rewrites that serve as baselines are exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.subjects import rewrites
from benchmarks.subjects.networks import flop_per_pixel
from benchmarks.subjects.versions import Mu
from fastbsn.nets import DBSN, UNet


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 3])
def test_phase_upsample_equals_the_unet(depth: int) -> None:
    net = UNet(3, 12, depth).double().eval()
    torch.nn.init.normal_(net.out.weight)
    x = torch.rand(2, 3, 21, 35, dtype=torch.float64)
    assert (rewrites.PhaseUNet(net).double()(x) - net(x)).abs().max() < 1e-5 * net(x).abs().max()


@torch.no_grad()
@pytest.mark.parametrize("phases", [False, True])
def test_fused_graph_equals_the_teacher(phases: bool) -> None:
    net = Mu(DBSN(3, 8, 1, "paper").eval(), torch.float32, torch.device("cpu"), phases)
    x, calls = torch.rand(1, 3, 13, 17), []

    def fused(x, weight, bias, stride, padding, dilation, groups):
        calls.append(weight.shape)
        return F.relu(F.conv2d(x, weight, bias, stride, padding, dilation, groups))

    graph = rewrites.fuse_conv_relu(net, x, fused)
    assert torch.equal(graph(x), net(x))
    # head, two 1x1 per branch, eight of an MDC module per branch, two of the tail; the masked convolution is a sum of four.
    assert len(calls) == graph.fused_calls == 1 + 2 * (2 + 8) + 2


@torch.no_grad()
def test_strips_equal_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = DBSN(1, 8, 1, "light").eval(), []

    def run(x):
        seen.append(x.shape[2])
        return net(x)[0]

    x = torch.rand(1, 1, 60, 20)
    monkeypatch.setattr(rewrites, "LARGEST", 16 * 60 * 20 // 3)
    assert torch.allclose(rewrites.in_strips(run, net.radius, 16)(x), net(x)[0], atol=1e-6)
    assert len(seen) == 3 and max(seen) < 60


def test_operations_are_counted_without_masked_taps() -> None:
    assert flop_per_pixel(UNet(3), 3) / 2 == pytest.approx(173945, abs=1)
    c, net = 8, DBSN(1, 8, 1, "light")
    branches = sum((k * k - 1) * c * c + 2 * c * c + 9 * c * c + c * c + c * c for k in (3, 5))
    expected = c + branches + 2 * c * c + c * (c // 2) + (c // 2) ** 2 + c // 2
    assert flop_per_pixel(net, 1) / 2 == pytest.approx(expected)
