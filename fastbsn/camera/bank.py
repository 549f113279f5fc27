"""Banks: the measured noises of many photographs in one file, by the name of the photograph. Statistics only, no pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fastbsn.camera.statistics import BINS, REACH, CameraNoise
from fastbsn.errors import FileFormatError
from fastbsn.io.weights import load_tensors, save_tensors

KIND = "camera noise"


def save_bank(path: str | Path, bank: Mapping[str, CameraNoise]) -> None:
    """Write one safetensors file, float16."""
    stacked = {key: torch.from_numpy(np.stack([getattr(n, key) for n in bank.values()])) for key in ("correlation", "variance")}
    save_tensors(
        Path(path), {"correlation": stacked["correlation"].half(), "variance": stacked["variance"]}, {"kind": KIND, "images": list(bank)}
    )


def load_bank(path: str | Path) -> dict[str, CameraNoise]:
    """Read a file of `save_bank`.

    Raises:
        FileFormatError: damaged, or something else.
    """
    tensors, header = load_tensors(Path(path))
    names, correlation, variance = header.get("images"), tensors.get("correlation"), tensors.get("variance")
    size = 2 * REACH + 1
    if header.get("kind") != KIND or not isinstance(names, list) or correlation is None or variance is None:
        raise FileFormatError(
            f"{path}: not a bank of camera noise: holds {', '.join(tensors) or 'nothing'}; expected a file of `fastbsn noise`"
        )
    channels = correlation.shape[-1]
    if correlation.shape != (len(names), size, size, channels, channels) or variance.shape != (len(names), channels, BINS):
        raise FileFormatError(
            f"{path}: {len(names)} images, correlation {tuple(correlation.shape)}, variance {tuple(variance.shape)}; expected "
            f"[n, {size}, {size}, C, C] and [n, C, {BINS}]: measure the noise again with `fastbsn noise`"
        )
    return {str(n): CameraNoise(c.float().numpy(), v.numpy()) for n, c, v in zip(names, correlation, variance, strict=True)}
