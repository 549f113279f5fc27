"""fastbsn: noisy images in, a denoiser out, clean images out.

Importing this package imports no library: public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastbsn.version import __version__

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
    from fastbsn.models import list_models
    from fastbsn.nets import DBSN, UNet

_MODULES = {"Denoiser": "fastbsn.denoiser", "DBSN": "fastbsn.nets", "UNet": "fastbsn.nets", "list_models": "fastbsn.models"}

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
    "list_models",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fastbsn' has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "fastbsn.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
