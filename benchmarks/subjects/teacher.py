"""The teacher's blind-spot prediction mu, both variants at their published sizes.

In float16 rather than bfloat16: mu is the image itself, and the 8 bits of a bfloat16 significand move it by more than 0.01 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.harness.images import noisy_batches
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.subjects import shape_name
from benchmarks.subjects.networks import flop_per_pixel, teacher, weight_bytes
from benchmarks.subjects.versions import SMALL, backend, baselines, eager, eager_fp32, own, variant

CHANNELS = 3
SIZES = {
    "tiny": [("light", (1, 48, 48))],
    "cpu": [("light", (1, 256, 256))],
    "gpu": [("paper", (1, 1056, 1056)), ("light", (1, 1056, 1056)), ("light", (1, 511, 509))],
    "full": [(v, s) for v in ("paper", "light") for s in ((1, 256, 256), (16, 256, 256), (1, 511, 509), (1, 1056, 1056), (1, 2160, 3840))],
}
REDUCED = {"width": 16, "modules": 2}


def _subject(variant: str, size: tuple[int, int, int], small: bool, device: torch.device) -> Subject:
    n, h, w = size
    net = teacher(variant, CHANNELS, **(REDUCED if small else {}))
    clean, noisy = noisy_batches((n, CHANNELS, h, w), device)
    pixels = n * h * w
    flop = flop_per_pixel(net, CHANNELS) * pixels
    return Subject(net, noisy, eager_fp32(net, device), clean, flop, 8 * CHANNELS * pixels + weight_bytes(net), pixels)


def cases(scale: str) -> Sequence[Case]:
    found = []
    for kind, size in SIZES[scale]:
        n, h, w = size
        versions = baselines("space-to-batch", "float16", small=n * h * w <= SMALL)
        versions["eager bf16"] = Version(eager(False, torch.bfloat16), "bfloat16", True)
        versions["eager bf16, space-to-batch"] = Version(eager(True, torch.bfloat16), "bfloat16", True)
        versions |= own(("float16", "bfloat16"))
        versions["fastbsn reference fp32"] = Version(backend("reference", "float32"))
        versions["fastbsn triton fp16, mu only"] = Version(variant("triton", "float16", features=False), "float16")
        build = partial(_subject, kind, size, scale == "tiny")
        found.append(Case("teacher", f"{kind} {shape_name(*size)}", versions, build, decides=size == (1, 1056, 1056)))
    return found
