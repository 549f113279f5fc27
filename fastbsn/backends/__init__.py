"""Which code runs a network, on which device and in which dtype: the one place that decides, and records why.

Asked for by name, a backend or device works or raises; chosen automatically, it falls back, with one warning where that
leaves a GPU unused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fastbsn.errors import BackendError
from fastbsn.nets import DBSN, UNet

NAMES = ("cuda", "triton", "reference")  # in the order of automatic choice
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_warned: set[str] = set()


@dataclass(frozen=True)
class Prepared:
    """A network ready to run: `net(x)` takes and returns float32 [N, C, H, W] on `device` (a DBSN returns mu and features)."""

    run: Callable[[Tensor], Any]
    backend: str
    device: torch.device
    dtype: torch.dtype
    reasons: tuple[str, ...]  # one sentence per choice: device, dtype, backend
    radius: int  # halo in pixels
    multiple: int  # of window origins, in pixels
    bytes_per_pixel: int  # working memory of a window, an estimate

    def __call__(self, x: Tensor) -> Any:
        return self.run(x)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _gpu_refusal(index: int = 0) -> str | None:
    """Why CUDA device `index` cannot be used, or None."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device (no driver, or hidden by CUDA_VISIBLE_DEVICES)"
    if index >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} CUDA devices, and number {index} was asked for"
    major, minor = torch.cuda.get_device_capability(index)
    built = [int(arch[3:].rstrip("af")) for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    if built and 10 * major + minor < min(built):
        return (
            f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}; "
            f"this PyTorch is built for {min(built) // 10}.{min(built) % 10} and later"
        )
    return None


def resolve_device(device: str | torch.device = "auto") -> tuple[torch.device, str]:
    """The device and why: CUDA if it is usable, else the CPU.

    Raises:
        BackendError: a device asked for by name that cannot be used.
    """
    if device == "auto":
        refusal = _gpu_refusal()
        if refusal is None:
            return torch.device("cuda", torch.cuda.current_device()), "a CUDA device is usable"
        if torch.cuda.is_available():
            _warn_once(f"fastbsn runs on the CPU: {refusal}")
        return torch.device("cpu"), refusal
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"device={device!r} is not understood ({error}); expected 'auto', 'cpu' or 'cuda'") from error
    if wanted.type not in ("cpu", "cuda"):
        raise BackendError(f"device={device!r} is not supported; expected 'auto', 'cpu' or 'cuda'")
    if wanted.type == "cuda":
        refusal = _gpu_refusal(wanted.index or 0)
        if refusal is not None:
            raise BackendError(f"device={str(device)!r} cannot be used: {refusal}; use device='cpu'")
        wanted = torch.device("cuda", wanted.index if wanted.index is not None else torch.cuda.current_device())
    return wanted, "asked for"


def _fast_bf16(device: torch.device) -> str | None:
    """Why bfloat16 is not the fast choice on `device`, or None."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 8 else f"compute capability {major}.{minor} is below 8.0"
    try:
        supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        supported = False
    tests = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    if supported and any(test is not None and test() for test in tests):
        return None
    return "this CPU has no AVX512-BF16 or AMX instructions, or this PyTorch does not use them"


def resolve_dtype(dtype: str | torch.dtype, device: torch.device, net: nn.Module) -> tuple[torch.dtype, str]:
    """The dtype of the arithmetic and why.

    Students: bfloat16 where the hardware is fast at it, else float32. Teachers: float16 on a GPU, else float32.

    Raises:
        BackendError: an unknown name.
    """
    if dtype != "auto":
        name = str(dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise BackendError(f"dtype={dtype!r} is not understood; expected 'auto' or one of {', '.join(DTYPES)}")
        return DTYPES[name], "asked for"
    if not isinstance(net, UNet):
        if device.type == "cuda":
            return torch.float16, "a teacher predicts the image itself, and float16 keeps 3 more bits of it than bfloat16"
        return torch.float32, "a teacher predicts the image itself, not a residual"
    refusal = _fast_bf16(device)
    return (torch.bfloat16, "fast on this hardware") if refusal is None else (torch.float32, refusal)


def _load(name: str) -> ModuleType | str:
    """The backend's module, or why it cannot be imported."""
    try:
        return import_module(f"fastbsn.backends.{name}")
    except (ImportError, OSError) as error:  # OSError: a shared library of the driver is missing
        return f"it cannot be imported ({error})"


def why_not(name: str, net: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why backend `name` cannot run `net` on `device` in `dtype`, as a sentence, or None."""
    module = _load(name)
    return module if isinstance(module, str) else module.why_not(net, device, dtype)


def status(net: nn.Module | None = None, device: str = "auto", dtype: str = "auto") -> dict[str, Any]:
    """What `fastbsn info` prints: {"device", "dtype": [choice, reason], "backends": {name: reason it is not usable, or None}}.

    Args:
        net: to be run; default the student.
        device, dtype: as in `select`.
    """
    net = net or UNet()
    where, device_reason = resolve_device(device)
    what, dtype_reason = resolve_dtype(dtype, where, net)
    return {
        "device": [str(where), device_reason],
        "dtype": [str(what).removeprefix("torch."), dtype_reason],
        "backends": {name: why_not(name, net, where, what) for name in NAMES},
    }


def select(net: nn.Module, device: str | torch.device = "auto", backend: str = "auto", dtype: str | torch.dtype = "auto") -> Prepared:
    """Prepare `net` with the first usable backend of cuda, triton and reference, or the one asked for.

    Args:
        net: UNet or DBSN; its weights are copied.
        device: "auto", "cpu", "cuda" or "cuda:1".
        backend: "auto" or one of NAMES.
        dtype: of the arithmetic: "auto", "float32", "bfloat16" or "float16".

    Raises:
        BackendError: what was asked for by name cannot be used; the message is the reason.
    """
    if backend not in ("auto", *NAMES):
        raise BackendError(f"backend={backend!r} is unknown; expected 'auto' or one of {', '.join(NAMES)}")
    where, device_reason = resolve_device(device)
    what, dtype_reason = resolve_dtype(dtype, where, net)
    reasons = [f"device {where}: {device_reason}", f"dtype {str(what).removeprefix('torch.')}: {dtype_reason}"]
    refusals: list[str] = []
    for name in NAMES if backend == "auto" else (backend,):
        module = _load(name)
        refusal = module if isinstance(module, str) else module.why_not(net, where, what)
        if refusal is None:
            assert isinstance(module, ModuleType)
            try:
                run = module.prepare(net, where, what)
            except BackendError as error:
                refusal = str(error)
        if refusal is None:
            if refusals and where.type == "cuda":
                _warn_once(f"fastbsn uses the {name} backend: {'; '.join(refusals)}")
            reasons.append(f"backend {name}: " + ("; ".join(refusals) or ("first choice" if backend == "auto" else "asked for")))
            assert isinstance(net, UNet | DBSN)
            return Prepared(run, name, where, what, tuple(reasons), net.radius, getattr(net, "multiple", 1), _bytes(net, where, what))
        refusals.append(f"{name}: {refusal}")
    raise BackendError(f"backend={backend!r} cannot be used: {'; '.join(refusals)}; use backend='auto'")


def _bytes(net: UNet | DBSN, device: torch.device, dtype: torch.dtype) -> int:
    """Working memory per pixel of a window, from peak memory measured on the reference backend (on CUDA: sizes of its tensors)."""
    config: dict[str, Any] = net.config
    inputs, c = config["in_channels"], config["channels"]
    if isinstance(net, UNet):
        return int(8 * inputs + dtype.itemsize * c * (1.7 if device.type == "cpu" else 5))
    return 8 * inputs + 52 * c
