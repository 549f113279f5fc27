"""What this machine offers: versions, devices, backends and why each is or is not usable."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

PACKAGES = ("triton", "numpy", "safetensors", "opencv-python-headless", "tifffile", "onnxruntime", "scikit-image")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Versions, devices and models of this machine, and the choices of `backends.status`."""
    import torch

    from fastbsn import backends
    from fastbsn.models import list_models
    from fastbsn.version import __version__

    devices = [
        f"cpu: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    ]
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        devices.append(f"cuda:{i}: {p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB")
    return {
        "fastbsn": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"torch": torch.__version__} | {name: _version(name) for name in PACKAGES},  # with the build, as in 2.13.0+cpu
        "devices": devices,
        **backends.status(),
        "models": list_models(),
    }


def render(found: dict[str, Any]) -> str:
    """The same, for a person."""
    lines = [f"fastbsn {found['fastbsn']}, Python {found['python']}, {found['platform']}"]
    lines += [f"  {name} {version or 'not installed'}" for name, version in found["packages"].items()]
    lines += ["devices"] + [f"  {d}" for d in found["devices"]]
    for choice in ("device", "dtype"):
        lines.append(f"chosen {choice}: {found[choice][0]} ({found[choice][1]})")
    lines += ["backends"] + [f"  {name}: {reason or 'usable'}" for name, reason in found["backends"].items()]
    check = found["self_check"]
    results = [f"  {kernels}: {result}" for kernels, result in check["results"].items()]
    lines += [f"self-check: {check['rule']}", *(results or ["  nothing to check: no kernels run on this device"])]
    return "\n".join([*lines, "models", *(f"  {m}" for m in found["models"])])
