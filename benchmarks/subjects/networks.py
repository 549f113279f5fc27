"""Networks whose output means something, so that a PSNR difference does too."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.images import noisy_batches
from fastbsn import ops
from fastbsn.io.weights import load_networks
from fastbsn.models import WEIGHTS
from fastbsn.nets import DBSN, UNet

RIDGE = 1e-2
SIDE = 96  # pixels of the image on which a last layer is fitted and operations are counted


def _fit_last_layer(net: nn.Module, layer: nn.Conv2d, noisy: Tensor, target: Tensor) -> None:
    """Set `layer`, the last one, by least squares: an untrained network then denoises, if weakly."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(noisy)
    hook.remove()
    k = layer.kernel_size[0]
    a = F.unfold(seen[0].double(), k, padding=layer.padding[0])[0]  # [C*k*k, pixels]
    a = torch.cat([a, torch.ones_like(a[:1])])
    gram = a @ a.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=a.dtype)
    solution = torch.linalg.solve(gram, a @ target.flatten(2)[0].double().T).T  # [O, C*k*k + 1]
    layer.weight.copy_(solution[:, :-1].view_as(layer.weight))
    layer.bias.copy_(solution[:, -1])


def _stand_in(net: nn.Module, last: str, channels: int) -> None:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.02)
    clean, (noisy, _) = noisy_batches((1, channels, SIDE, SIDE), torch.device("cpu"))
    _fit_last_layer(net, net.get_submodule(last), noisy, noisy - clean if isinstance(net, UNet) else clean)


@torch.no_grad()
def student(channels: int = 3, bundled: bool = True) -> tuple[UNet, str]:
    """A student and where its weights are from: the bundled one, or one with random layers and a fitted last one."""
    name = "color-awgn" if channels == 3 else "gray-awgn"
    if bundled and (WEIGHTS / f"{name}.safetensors").exists():
        net = load_networks(WEIGHTS / f"{name}.safetensors")[0]["student"]
        assert isinstance(net, UNet)
        return net.requires_grad_(False), name
    net = UNet(channels).eval().requires_grad_(False)
    _stand_in(net, "out", channels)
    return net, "random, last layer fitted"


@torch.no_grad()
def teacher(variant: str, channels: int = 3, width: int | None = None, modules: int | None = None) -> DBSN:
    """A blind-spot network with random layers and a fitted last one; published size by default."""
    width = width or {"paper": 96, "light": 128}[variant]
    net = DBSN(channels, width, modules, variant).eval().requires_grad_(False)
    _stand_in(net, "tail3", channels)
    return net


def flop_per_pixel(net: nn.Module, channels: int) -> float:
    """Two per multiply-add of the plain network; masked taps do not count."""
    plain = copy.deepcopy(net).to("meta")
    x = torch.empty(1, channels, SIDE, SIDE, device="meta")
    with ops.backend("reference"), FlopCounterMode(display=False) as counter:
        plain(x)
    return counter.get_total_flops() / SIDE**2


def weight_bytes(net: nn.Module, itemsize: int = 2) -> int:
    return sum(p.numel() for p in net.parameters()) * itemsize
