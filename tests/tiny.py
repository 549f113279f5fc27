"""Small networks with random weights, the last layer included (a fresh UNet is the identity)."""

from __future__ import annotations

import torch

from fastbsn.denoiser import Denoiser
from fastbsn.nets import DBSN, NoiseModel, UNet


def tiny_unet(in_channels: int = 1, channels: int = 6, depth: int = 2, seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    net = UNet(in_channels, channels, depth).eval()
    torch.nn.init.normal_(net.out.weight, 0, 0.05)
    torch.nn.init.normal_(net.out.bias, 0, 0.05)
    return net


def tiny_denoiser(in_channels: int = 1, dtype: str = "float32", **unet: int) -> Denoiser:
    return Denoiser({"student": tiny_unet(in_channels, **unet)}, device="cpu", backend="reference", dtype=dtype)


def tiny_teacher(in_channels: int = 1, kind: str = "gaussian", noise: str | None = None) -> Denoiser:
    torch.manual_seed(0)
    networks: dict[str, torch.nn.Module] = {"teacher": DBSN(in_channels, 8, 1, "light")}
    for p in networks["teacher"].parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    if noise != "correlated":
        networks["noise_model"] = NoiseModel(kind, in_channels, 8)
    return Denoiser(networks, {"noise": noise or kind}, device="cpu", backend="reference")
