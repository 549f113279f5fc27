"""What a device can do, asked in one place: whether there is a usable GPU, and whether bfloat16 and INT8 are fast."""

from __future__ import annotations

import torch

from fastbsn.errors import BackendError
from fastbsn.ops.dispatch import warn_once


def gpu_refusal(index: int = 0) -> str | None:
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
        refusal = gpu_refusal()
        if refusal is None:
            return torch.device("cuda", torch.cuda.current_device()), "a CUDA device is usable"
        if torch.cuda.is_available():
            warn_once(f"fastbsn runs on the CPU: {refusal}")
        return torch.device("cpu"), refusal
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"device={device!r} is not understood ({error}); expected 'auto', 'cpu' or 'cuda'") from error
    if wanted.type not in ("cpu", "cuda"):
        raise BackendError(f"device={device!r} is not supported; expected 'auto', 'cpu' or 'cuda'")
    if wanted.type == "cuda":
        refusal = gpu_refusal(wanted.index or 0)
        if refusal is not None:
            raise BackendError(f"device={str(device)!r} cannot be used: {refusal}; use device='cpu'")
        wanted = torch.device("cuda", wanted.index if wanted.index is not None else torch.cuda.current_device())
    return wanted, "asked for"


def slow_bf16(device: torch.device) -> str | None:
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


def slow_int8() -> str | None:
    """Why INT8 is not to be computed on this CPU, or None: without VNNI, sums of two products saturate at 16 bits, or are slow."""
    test = getattr(torch.cpu, "_is_vnni_supported", None)
    return None if test is not None and test() else "this CPU has no AVX512-VNNI instructions for INT8"
