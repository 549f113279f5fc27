"""What decides about the bytes of a label, besides its input."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from fastbsn.errors import InputError
from fastbsn.inference.dither import STRONGEST
from fastbsn.inference.predictor import Predictor
from fastbsn.io.weights import load_networks
from fastbsn.models import find_model
from fastbsn.training.identity import digest
from fastbsn.training.label_files import VERSION

WINDOW_BYTES = 2**30  # working memory of one window; a constant, for a label must not depend on how much memory is free
GPU_BATCH = 4  # windows that a GPU computes together
THREADS = min(4, os.cpu_count() or 1)  # that decode, and as many that write


@dataclass(frozen=True)
class Options:
    """std: also store the standard deviation of each pixel's error (float16; teachers only). strength: see `Denoiser.__call__`; 2 is for
    photographs, whose noise a model of white noise does not see. tile: pixels on a side of the tiles that larger images are cut into;
    default: as working memory of 1 GiB allows. batch: full tiles computed together; default 1 on a CPU, 4 on a GPU.
    """

    std: bool = False
    strength: float = 1.0
    tile: int | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.strength <= STRONGEST:
            raise InputError(f"strength={self.strength}; expected a number above 0, up to {STRONGEST:g}")
        if min(self.tile or 1, self.batch or 1) < 1:
            raise InputError(f"tile={self.tile}, batch={self.batch}; expected at least 1")


class Job:
    """A labelling model, prepared, with its options.

    Args:
        model: teacher or student: bundled name, .safetensors file or folder, see `models.find_model`.
        device, backend, dtype: what runs it, see `backends.select`.
        options: see `Options`.

    Attributes:
        noise: kind of noise that the model is for.
        description: everything that decides about a label's bytes, JSON values. digest: of the description.
        measuring: held while the noise of an image is measured, which takes up to 100 MiB and a core: on a CPU, where the network wants
            both, half of the threads that decode may do so at once.
    """

    def __init__(self, model: str | Path, device: str = "auto", backend: str = "auto", dtype: str = "auto", options: Options | None = None):
        path = find_model(model)
        networks, header = load_networks(path)
        self.predictor = Predictor(networks, str(header.get("noise", "gaussian")), device, backend, dtype)
        p, options = self.predictor.prepared, options or Options()
        self.noise = self.predictor.noise
        side = isqrt(WINDOW_BYTES // p.bytes_per_pixel) - 2 * (p.radius + p.multiple)
        self.tile = -(-options.tile // p.multiple) * p.multiple if options.tile else max(1, side // p.multiple) * p.multiple
        self.batch = options.batch or (GPU_BATCH if p.device.type == "cuda" else 1)
        self.measuring = threading.Semaphore(THREADS if p.device.type == "cuda" else max(1, THREADS // 2))
        self.strength, self.std = options.strength, options.std
        self.description: dict[str, Any] = asdict(options) | {
            "model": digest(path.read_bytes()),
            "device": p.device.type,
            "backend": p.backend,
            "dtype": str(p.dtype).removeprefix("torch."),
            "tile": self.tile,
            "batch": self.batch,
            "version": VERSION,
        }
        self.digest = digest(json.dumps(self.description, sort_keys=True).encode())[:16]
