"""Which implementation an operation uses: the Triton kernels for CUDA tensors where they can run, else the PyTorch reference.

with ops.backend("triton"): ...     # or raise BackendError with the reason
with ops.backend("reference"): ...

The kernels run forward and backward in a self-check (`self_check`) before they are first used on a GPU, in training as in inference.
By themselves they take over the operations that no library has in one piece: the masked convolution, which is four in PyTorch, and the
modules of a D-BSN (those of "paper" in CUDA, where no gradient is asked for and that kernel runs, see `mdc_cuda`). The student is made of
plain 3x3 convolutions, where cuDNN has its own kernels and no measurement shows ours ahead: its training uses them by name only.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata

import torch
from torch import Tensor

from fastbsn.errors import BackendError
from fastbsn.names import DTYPES as DTYPE_NAMES
from fastbsn.names import OPERATIONS
from fastbsn.ops import self_check

NAMES = ("auto", *OPERATIONS)
DTYPES = tuple(getattr(torch, name) for name in DTYPE_NAMES)
OLDEST_TRITON = (3, 6)


class _Choice(threading.local):
    """Of each thread: contexts that overlap in two threads would otherwise restore each other's choice."""

    name = "auto"


_choice = _Choice()
_warned: set[str] = set()


def warn_once(message: str, stacklevel: int = 3) -> None:
    """A RuntimeWarning, the first time that this message comes."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)


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


Trial = tuple[Callable[..., tuple[Tensor, ...]], Sequence[tuple[int, ...]]]  # an operation, and the shapes of its arguments
TRIALS: dict[str, Callable[..., Trial]] = {}  # filled by the files of the operations: sizes, channels for instance -> what to run


def failure(device: str, index: int, dtype: torch.dtype, name: str, sizes: tuple[int, ...]) -> str | None:
    """Why the kernels of operation `name` are not to be trusted on this device: their self-check, or None if they passed."""
    where = torch.device(device, index) if device == "cuda" else torch.device(device)
    if self_check.interpreted(where):
        return None
    result = self_check.check(f"triton {name}", where, dtype, sizes, lambda: _runs(where, dtype, name, sizes))
    return None if result.passed else f"the kernels of {name} are not used on {where}: {result}"


failure._dynamo_marked_constant = True  # type: ignore[attr-defined]


def trial_values(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Arguments of a self-check, float32: an image, then weights and biases.

    Biases of 1 and -1 in turn and small weights keep all activations away from 0, where a rounding would turn the derivative of a ReLU
    over, and leave half of the channels of every layer at work.
    """
    draw = torch.Generator().manual_seed(0)

    def value(i: int, noise: Tensor) -> Tensor:
        if noise.ndim == 1:
            return 1.0 - 2 * (torch.arange(len(noise)) % 2)
        return noise if i == 0 else 0.2 * noise / noise[0].numel() ** 0.5

    return [value(i, torch.randn(shape, generator=draw)) for i, shape in enumerate(shapes)]


def _runs(device: torch.device, dtype: torch.dtype, name: str, sizes: tuple[int, ...]) -> self_check.Runs:
    """Results and gradients of all arguments, by the kernels, by PyTorch, and in float64."""
    operation, shapes = TRIALS[name](*sizes)
    values = trial_values(shapes)

    def results(choice: str, precision: torch.dtype) -> list[Tensor]:
        leaves = [value.to(device, dtype).to(precision).requires_grad_() for value in values]
        before, _choice.name = _choice.name, choice
        try:
            outputs = operation(*leaves)
        finally:
            _choice.name = before
        grads = [torch.linspace(-1, 1, y.numel(), device=device).to(precision).sin().view(y.shape) for y in outputs]
        return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, leaves, grads)]

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        return results("unchecked", dtype), results("reference", dtype), results("reference", torch.float64)


def automatic() -> bool:
    """Whether operations of this thread choose their kernels by themselves."""
    return _choice.name == "auto"


def use_triton(x: Tensor, *channels: int, trial: tuple[str, tuple[int, ...]], automatic: bool = True) -> bool:
    """Whether an operation runs through Triton.

    Args:
        x: [N, C, H, W], its input.
        channels: that the kernels are to be run with.
        trial: name in TRIALS, and sizes, of the self-check.
        automatic: if not, by name only.
    """
    choice, device, index = _choice.name, x.device.type, x.device.index or 0
    if choice == "reference" or (choice == "auto" and not (automatic and x.is_cuda)) or x.numel() == 0:
        return False
    dtype = compute_dtype(x)
    if choice == "auto" and dtype == torch.float32:  # cuDNN is faster: the kernels have float32 for checking
        return False
    if choice == "unchecked":
        return True
    reason = why_not(device, index, dtype, channels)
    if reason is None:
        reason = failure(device, index, dtype, *trial)
    if reason is None:
        return True
    if choice == "triton":
        raise BackendError(f"backend='triton' cannot run this operation: {reason}; use backend='auto'")
    if not torch.compiler.is_compiling():
        warn_once(f"fastbsn operations run as plain PyTorch: {reason}", stacklevel=4)
    return False


def compute_dtype(x: Tensor) -> torch.dtype:
    """The autocast dtype where autocast is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
