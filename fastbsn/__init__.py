"""fastbsn: noisy images in, a denoiser out, clean images out.

Importing this package imports nothing else: public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastbsn.denoiser import Denoiser
    from fastbsn.errors import (
        BackendError,
        FastBSNError,
        FileFormatError,
        InputError,
        Interrupted,
        StorageError,
        TrainingError,
        WeightsError,
    )
    from fastbsn.nets import DBSN, UNet

__version__ = "0.1.0"

_MODULES = {"Denoiser": "fastbsn.denoiser", "DBSN": "fastbsn.nets", "UNet": "fastbsn.nets"}

__all__ = [
    "DBSN",
    "BackendError",
    "Denoiser",
    "FastBSNError",
    "FileFormatError",
    "InputError",
    "Interrupted",
    "StorageError",
    "TrainingError",
    "UNet",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fastbsn' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "fastbsn.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
