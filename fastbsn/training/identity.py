"""What a training run is of: digests of images, labels and weights, and the comparison of two configurations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastbsn.errors import TrainingError


def digest(*parts: bytes) -> str:
    """32 hexadecimal digits of a sequence of byte strings."""
    h = hashlib.sha256()
    for part in parts:
        h.update(hashlib.sha256(part).digest())
    return h.hexdigest()[:32]


def tensor_digest(tensors: Iterable[Tensor]) -> str:
    """32 hexadecimal digits of tensors: dtypes, shapes and values, in order."""
    h = hashlib.sha256()
    for x in tensors:
        h.update(f"{x.dtype}{tuple(x.shape)}".encode())
        h.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return h.hexdigest()[:32]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def check_identity(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a file of another run.

    Args:
        path: the checkpoint or the weights, for the message.
        saved, wanted: configurations, nested, JSON values; "task" holds the digests of the data.

    Raises:
        TrainingError: they differ; every differing key is named with both values.
    """
    old, new = _flat(saved), _flat(wanted)
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if different:
        changes = ", ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in different)
        raise TrainingError(
            f"{path}: of another run ({changes}); go on with the old images and settings, choose another place, or overwrite to start anew"
        )


def file_digest(path: Path) -> str:
    """`digest` of the bytes of a file, read piece by piece."""
    with open(path, "rb") as file:
        found = hashlib.sha256()
        while piece := file.read(2**20):
            found.update(piece)
    return hashlib.sha256(found.digest()).hexdigest()[:32]
