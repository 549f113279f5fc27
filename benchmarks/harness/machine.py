"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "numpy", "opencv-python-headless", "scikit-image", "openvino")
CLOCKS = {"sm_mhz": "clocks.sm", "watts": "power.draw", "celsius": "temperature.gpu", "throttle": "clocks_throttle_reasons.active"}


def _output(*command: str) -> str | None:
    """Standard output of a command that may not exist here."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str | None:
    """Short commit hash, with a + where tracked files were changed since; FASTBSN_COMMIT where the tree travels without git."""
    head = _output("git", "rev-parse", "--short", "HEAD")
    if head is None:
        return os.environ.get("FASTBSN_COMMIT")
    return head + ("+" if _output("git", "status", "--porcelain", "--untracked-files=no", "--", "fastbsn", "kernels", "csrc") else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe() -> dict[str, Any]:
    """Hardware, versions, commit and date, for the head of every result file."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "cpu": f"{_cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
    }
    if torch.cuda.is_available():
        p = torch.cuda.get_device_properties(0)
        found |= {"gpu": p.name, "sm": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count}
        found |= {"l2_mib": p.L2_cache_size / 2**20, "memory_gib": round(p.total_memory / 2**30, 1)}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0")
    return found


def clocks() -> dict[str, str] | None:
    """SM clock, power, temperature and throttle reasons of GPU 0 now, or None without nvidia-smi."""
    line = _output("nvidia-smi", "--query-gpu=" + ",".join(CLOCKS.values()), "--format=csv,noheader,nounits", "-i", "0")
    return dict(zip(CLOCKS, (field.strip() for field in line.split(",")), strict=False)) if line else None
