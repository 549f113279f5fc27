"""Pseudo-labels: the posterior mean of one noisy image, as `fastbsn label` computes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.images import noisy_batches
from benchmarks.measure import Case, Subject, Version
from benchmarks.rewrites import on_ops
from benchmarks.subjects import flop_per_pixel, teacher, weight_bytes
from benchmarks.suites import shape_name
from benchmarks.timing import Run
from fastbsn.nets import NoiseModel
from fastbsn.teacher import Teacher

CHANNELS = 3
SIZES = {"tiny": [(1, 48, 48)], "cpu": [(1, 321, 481)], "gpu": [(1, 512, 512)], "full": [(1, 321, 481), (1, 512, 512), (1, 1080, 1920)]}


def _networks(small: bool) -> dict[str, Any]:
    net = teacher("light", CHANNELS, **({"width": 16, "modules": 2} if small else {}))
    torch.manual_seed(0)
    return {"teacher": net, "noise_model": NoiseModel("gaussian", CHANNELS, net.feature_channels).eval().requires_grad_(False)}


def _maker(dtype: torch.dtype, plain: bool) -> Callable[[Any, torch.device], Run]:
    def make(networks: dict[str, Any], device: torch.device) -> Run:
        made = Teacher(copy.deepcopy(networks), {"noise": "gaussian"}, str(device))

        def run(y: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                return made(y).image.float()

        return on_ops("reference", run) if plain else run

    return make


def _subject(size: tuple[int, int, int], small: bool, device: torch.device) -> Subject:
    networks, (n, h, w) = _networks(small), size
    clean, noisy = noisy_batches((n, CHANNELS, h, w), device)
    pixels = n * h * w
    flop, least = flop_per_pixel(networks["teacher"], CHANNELS) * pixels, 8 * CHANNELS * pixels + weight_bytes(networks["teacher"])
    return Subject(networks, noisy, _maker(torch.float32, True)(networks, device), clean, flop, least, pixels)


def cases(scale: str) -> Sequence[Case]:
    versions = {
        "eager fp32 NCHW": Version(_maker(torch.float32, True), "float32", True),
        "eager fp16": Version(_maker(torch.float16, True), "float16", True),
        "eager bf16": Version(_maker(torch.bfloat16, True), "bfloat16", True),
        "fastbsn as shipped": Version(_maker(torch.float32, False)),
    }
    small = scale == "tiny"
    return [Case("labels", shape_name(*size), versions, lambda device, size=size: _subject(size, small, device)) for size in SIZES[scale]]
