"""A section in a process of its own, that leaves nothing running behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import ROOT


def run(command: list[str], log: Path, limit: float) -> dict[str, Any]:
    """Run a command in its own process group, and end all of the group at the limit or when the command has ended.

    Args:
        command: its arguments.
        log: file that its output is appended to.
        limit: seconds.

    Returns:
        status ("done", "failed" or "stopped after N s"), seconds, and the last line of output as the reason.
    """
    start, offset = time.monotonic(), log.stat().st_size if log.exists() else 0
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    with open(log, "a") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = "done" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # a child that outlived its parent would disturb the timings of the next section
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with open(log, errors="replace") as text:
        text.seek(offset)
        lines = [line.strip() for line in text if line.strip()]
    return {"status": status, "seconds": round(time.monotonic() - start, 1), "reason": lines[-1][:300] if lines else None}


def section(name: str, folder: Path, scale: str, dry: bool, limit: float) -> dict[str, Any]:
    """One section of the GPU benchmark; see `run`."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", name, "--out", str(folder), "--limit", str(limit)]
    return run(command + (["--dry-run"] if dry else ["--scale", scale]), folder / "log.txt", limit)
