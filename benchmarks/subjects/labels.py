"""Pseudo-labels: the posterior mean of one noisy image in host memory, as `fastbsn label` computes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.harness.images import noisy_batches
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.harness.timing import Run
from benchmarks.subjects import shape_name
from benchmarks.subjects.networks import flop_per_pixel, teacher, weight_bytes
from benchmarks.subjects.rewrites import on_ops
from fastbsn.inference.predictor import Predictor
from fastbsn.nets import NoiseModel
from fastbsn.training.labels import label_image

CHANNELS = 3
SIZES = {"tiny": [(48, 48)], "cpu": [(321, 481)], "gpu": [(512, 512)], "full": [(321, 481), (512, 512), (1080, 1920)]}


def _networks(small: bool) -> dict[str, Any]:
    net = teacher("light", CHANNELS, **({"width": 16, "modules": 2} if small else {}))
    torch.manual_seed(0)
    return {"teacher": net, "noise_model": NoiseModel("gaussian", CHANNELS, net.feature_channels).eval().requires_grad_(False)}


def _maker(backend: str, dtype: str) -> Callable[[Any, torch.device], Run]:
    def make(networks: dict[str, Any], device: torch.device) -> Run:
        teacher = Predictor(copy.deepcopy(networks), "gaussian", str(device), backend, dtype)
        return on_ops("auto" if backend != "reference" else "reference", lambda image: label_image(teacher, image).label)

    return make


def _subject(size: tuple[int, int], small: bool, device: torch.device) -> Subject:
    networks, pixels = _networks(small), size[0] * size[1]
    clean, noisy = noisy_batches((1, CHANNELS, *size), torch.device("cpu"))
    flop, least = flop_per_pixel(networks["teacher"], CHANNELS) * pixels, 8 * CHANNELS * pixels + weight_bytes(networks["teacher"])
    reference = _maker("reference", "float32")(networks, device)
    return Subject(networks, [y[0] for y in noisy], reference, clean[0], flop, least, pixels, wall=True)


def cases(scale: str) -> Sequence[Case]:
    versions = {
        "eager fp32": Version(_maker("reference", "float32"), "float32", True),
        "eager fp16": Version(_maker("reference", "float16"), "float16", True),
        "eager bf16": Version(_maker("reference", "bfloat16"), "bfloat16", True),
        "fastbsn triton fp16": Version(_maker("triton", "float16"), "float16"),
        "fastbsn triton bf16": Version(_maker("triton", "bfloat16"), "bfloat16"),
        "fastbsn auto": Version(_maker("auto", "auto"), "float16" if torch.cuda.is_available() else "float32"),
    }
    small = scale == "tiny"
    return [Case("labels", shape_name(1, *s), versions, lambda device, s=s: _subject(s, small, device)) for s in SIZES[scale]]
