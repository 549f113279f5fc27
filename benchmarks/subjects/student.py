"""The student: one network evaluation on the device, and from uint8 on the host to uint8 on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.harness.images import noisy_batches
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.harness.timing import Run
from benchmarks.subjects import shape_name
from benchmarks.subjects.networks import flop_per_pixel, student, weight_bytes
from benchmarks.subjects.versions import SMALL, backend, baselines, eager_fp32, own, variant
from fastbsn.nets import UNet

CHANNELS = 3
SIZES = {
    "tiny": [(1, 64, 64)],
    "cpu": [(1, 512, 512)],
    "gpu": [(1, 512, 512), (1, 2160, 3840), (64, 256, 256)],
    "full": [(1, 256, 256), (1, 512, 512), (1, 1080, 1920), (1, 2160, 3840), (4, 512, 512), (16, 256, 256), (64, 256, 256)],
}


def _subject(size: tuple[int, int, int], device: torch.device) -> Subject:
    n, h, w = size
    net, _ = student(CHANNELS)
    clean, noisy = noisy_batches((n, CHANNELS, h, w), device)
    pixels = n * h * w
    flop = flop_per_pixel(net, CHANNELS) * pixels
    return Subject(net, noisy, eager_fp32(net, device), clean, flop, 8 * CHANNELS * pixels + weight_bytes(net), pixels)


def from_host(run: Run, device: torch.device) -> Run:
    """uint8 [N, H, W, C] in host memory -> the same, denoised."""

    def wrapped(image: Tensor) -> Tensor:
        x = image.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        return (run(x) * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()

    return wrapped


def _host_version(version: Version) -> Version:
    return version._replace(make=lambda net, device: from_host(version.make(net, device), device))


def _host_subject(size: tuple[int, int, int], device: torch.device) -> Subject:
    s = _subject(size, device)
    assert s.clean is not None
    inputs = [(x * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu() for x in s.inputs]
    if device.type == "cuda":
        inputs = [x.pin_memory() for x in inputs]
    clean = s.clean.permute(0, 2, 3, 1).cpu()
    return Subject(s.net, inputs, from_host(s.reference, device), clean, s.flop, 2 * CHANNELS * s.pixels, s.pixels, wall=True)


def _uint8_frames(net: UNet, device: torch.device) -> Run:
    """The CUDA backend on the frames as they are: conversion happens in its first and last kernel."""
    run = variant("cuda", "bfloat16")(net, device)
    return lambda image: run(image.to(device, non_blocking=True).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).cpu()


def cases(scale: str) -> Sequence[Case]:
    found = []
    for size in SIZES[scale]:
        n, h, w = size
        versions = baselines("phase upsample", small=n * h * w <= SMALL) | own()
        versions["fastbsn cuda hopper bf16"] = Version(variant("cuda", "bfloat16", path="hopper"), "bfloat16", section="hopper")
        if scale in ("tiny", "cpu"):  # the CPU's own choice may be float32
            versions["fastbsn reference fp32"] = Version(backend("reference", "float32"))
        name, decides = shape_name(*size), size == (1, 2160, 3840)
        found.append(Case("student", name, versions, lambda device, size=size: _subject(size, device), decides=decides))
        if n == 1:
            host = {name: _host_version(v) for name, v in versions.items()}
            host["fastbsn cuda uint8 bf16"] = Version(_uint8_frames, "bfloat16")
            found.append(Case("student", f"{name}, host to host", host, lambda device, size=size: _host_subject(size, device), host=True))
    return found
