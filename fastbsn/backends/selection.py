"""Which backend runs a network, on which device and in which dtype: the one place that decides, and records why.

Asked for by name, a backend or device works or raises; chosen automatically, it falls back, with one warning where that
leaves a GPU unused. Kernels are used on a GPU once they have passed a self-check there, see `fastbsn.ops.self_check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastbsn.backends.device import resolve_device, slow_bf16
from fastbsn.errors import BackendError
from fastbsn.names import ARITHMETIC, AUTOMATIC, BACKENDS
from fastbsn.nets import DBSN, Network, UNet
from fastbsn.ops import self_check
from fastbsn.ops.dispatch import warn_once


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


def resolve_dtype(dtype: str | torch.dtype, device: torch.device, net: nn.Module) -> tuple[torch.dtype, str]:
    """The dtype of the arithmetic and why.

    Students: bfloat16 where the hardware is fast at it, else float32. Teachers: float16 on a GPU, else float32.

    Raises:
        BackendError: an unknown name.
    """
    if dtype != "auto":
        name = str(dtype).removeprefix("torch.")
        if name not in ARITHMETIC:
            raise BackendError(f"dtype={dtype!r} is not understood; expected 'auto' or one of {', '.join(ARITHMETIC)}")
        return getattr(torch, name), "asked for"
    if not isinstance(net, Network) or net.kind != "student":
        if device.type == "cuda":
            return torch.float16, "a teacher predicts the image itself, and float16 keeps 3 more bits of it than bfloat16"
        return torch.float32, "a teacher predicts the image itself, not the noise in it"
    refusal = slow_bf16(device)
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


def status(device: str = "auto", dtype: str = "auto") -> dict[str, Any]:
    """What `fastbsn info` prints of the choices for student and teacher.

    Returns:
        "device", "dtype" (of the student): [choice, reason]; "backends": {name: why it runs neither, or None}; "self_check": the rule,
        and "results": {kernels: what came of their self-check}, made here where they are usable.
    """
    where, device_reason = resolve_device(device)
    nets: list[Network] = [UNet(), DBSN(variant="light")]
    if where.type == "cuda":  # its modules have kernels of their own
        nets.append(DBSN(variant="paper"))
    found: dict[str, str | None] = {}
    for name in BACKENDS:
        refusals = []
        for net in nets:
            what = resolve_dtype(dtype, where, net)[0]
            refusal = why_not(name, net, where, what)
            if refusal is None and name != "reference":
                try:
                    cast(ModuleType, _load(name)).prepare(net, where, what)
                except BackendError as error:
                    refusal = str(error)
            refusals.append(refusal)
        found[name] = None if None in refusals else "; ".join(dict.fromkeys(r for r in refusals if r))
    what, dtype_reason = resolve_dtype(dtype, where, nets[0])
    return {
        "device": [str(where), device_reason],
        "dtype": [str(what).removeprefix("torch."), dtype_reason],
        "backends": found,
        "self_check": {"rule": self_check.RULE, "results": self_check.report()},
    }


def select(net: nn.Module, device: str | torch.device = "auto", backend: str = "auto", dtype: str | torch.dtype = "auto") -> Prepared:
    """Prepare `net` with the first usable backend of cuda, triton and reference (in INT8: openvino), or the one asked for.

    Args:
        net: UNet or DBSN; its weights are copied.
        device: "auto", "cpu", "cuda" or "cuda:1".
        backend: "auto" or one of BACKENDS, which may be one that is not chosen by itself.
        dtype: of the arithmetic: "auto", "float32", "bfloat16", "float16", or "int8" (students with ranges, see `fastbsn.int8`).

    Raises:
        BackendError: what was asked for by name cannot be used; the message is the reason.
    """
    if backend not in ("auto", *BACKENDS):
        raise BackendError(f"backend={backend!r} is unknown; expected 'auto' or one of {', '.join(BACKENDS)}")
    where, device_reason = resolve_device(device)
    what, dtype_reason = resolve_dtype(dtype, where, net)
    reasons = [f"device {where}: {device_reason}", f"dtype {str(what).removeprefix('torch.')}: {dtype_reason}"]
    refusals: list[str] = []
    automatic = ("openvino",) if what == torch.int8 else AUTOMATIC
    for name in automatic if backend == "auto" else (backend,):
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
                warn_once(f"fastbsn uses the {name} backend: {'; '.join(refusals)}")
            reasons.append(f"backend {name}: " + ("; ".join(refusals) or ("first choice" if backend == "auto" else "asked for")))
            assert isinstance(net, Network)
            return Prepared(run, name, where, what, tuple(reasons), net.radius, net.multiple, _bytes(net, where, what))
        refusals.append(f"{name}: {refusal}")
    advice = "dtype" if what == torch.int8 else "backend"
    raise BackendError(f"backend={backend!r} cannot be used: {'; '.join(refusals)}; use {advice}='auto'")


def _bytes(net: Network, device: torch.device, dtype: torch.dtype) -> int:
    """Working memory per pixel of a window, from peak memory measured on the reference backend (on CUDA: sizes of its tensors)."""
    inputs, c = net.channels, net.config["channels"]
    if net.kind == "student":
        return int(8 * inputs + max(2, dtype.itemsize) * c * (1.7 if device.type == "cpu" else 5))
    return 8 * inputs + 52 * c
