"""Which implementation an operation uses: the Triton kernels for CUDA tensors where they can run, else the PyTorch reference.

with ops.backend("triton"): ...     # or raise BackendError with the reason
with ops.backend("reference"): ...
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata

import torch
from torch import Tensor

from fastbsn.errors import BackendError

NAMES = ("auto", "reference", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST_TRITON = (3, 6)


class _Choice(threading.local):
    """Of each thread: contexts that overlap in two threads would otherwise restore each other's choice."""

    name = "auto"


_choice = _Choice()
_warned: set[str] = set()


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the implementation of every operation of this thread while the context is open.

    Args:
        name: "auto" (Triton for 16-bit CUDA tensors it can run, else the reference, with one warning), "reference" or "triton".

    Raises:
        BackendError: an unknown name; inside the context, an operation that Triton cannot run.
    """
    if name not in NAMES:
        raise BackendError(f"backend={name!r} of the operations is unknown; expected one of {', '.join(NAMES)}")
    before, _choice.name = _choice.name, name
    try:
        yield
    finally:
        _choice.name = before


def _triton_version() -> str | None:
    """Without importing it, but where it was installed under another name, such as triton-windows."""
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        pass
    try:
        return import_module("triton").__version__
    except ImportError:
        return None


def why_not(device: str, index: int, dtype: torch.dtype, channels: tuple[int, ...]) -> str | None:
    """Why the Triton kernels cannot run on these tensors, as a sentence, or None."""
    version = _triton_version()
    if version is None:
        return "triton is not installed"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TRITON:
        return f"triton {version} is installed; expected {OLDEST_TRITON[0]}.{OLDEST_TRITON[1]} or later"
    if device == "cuda":
        if torch.version.hip is not None:
            return "this PyTorch is built for ROCm, where the kernels have never run"
        major, minor = torch.cuda.get_device_capability(index)
        if major < 8:
            return f"the GPU has compute capability {major}.{minor}; expected 8.0 or later"
    elif os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {device}; expected a CUDA device (or TRITON_INTERPRET=1 for a test)"
    if dtype not in DTYPES:
        return f"{dtype} is not supported; expected one of {', '.join(map(str, DTYPES))}"
    for c in channels:
        if c % 8 or c <= 0:
            return f"{c} channels; expected a multiple of 8 above 0"
    return None


# What torch.compiler.assume_constant_result does, without its import of torch._dynamo: 2 s and 70 MB on every start.
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]


def use_triton(x: Tensor, *channels: int, automatic: bool = True) -> bool:
    """Whether an operation on x [N, C, H, W] with these channel counts runs through Triton; if not `automatic`, by name only."""
    choice = _choice.name
    if choice == "reference" or (choice == "auto" and not (automatic and x.is_cuda)) or x.numel() == 0:
        return False
    dtype = compute_dtype(x)
    if choice == "auto" and dtype == torch.float32:  # cuDNN is faster: the kernels have float32 for checking
        return False
    reason = why_not(x.device.type, x.device.index or 0, dtype, channels)
    if reason is None:
        return True
    if choice == "triton":
        raise BackendError(f"backend='triton' cannot run this operation: {reason}; use backend='auto'")
    if not torch.compiler.is_compiling() and reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"fastbsn operations run as plain PyTorch: {reason}", RuntimeWarning, stacklevel=3)
    return False


def compute_dtype(x: Tensor) -> torch.dtype:
    """The autocast dtype where autocast is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
