"""The parts of a GPU run. Each runs in a process of its own and appends what it finds to rows.jsonl, case by case."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import ROOT

ALONE = ("compile", "fastbsn cuda hopper")  # beginnings of version names that have sections of their own
CASE_SECONDS = {"tiny": 0.05, "gpu": 2.5, "full": 10.0}


class Job(NamedTuple):
    """What a section is told: where to write, how large, how many seconds it has, and whether to leave our own kernels out."""

    folder: Path
    scale: str
    device: str
    limit: float
    baselines: bool = False

    def append(self, **found: Any) -> None:
        with open(self.folder / "rows.jsonl", "a") as file:
            file.write(json.dumps(found) + "\n")

    def left(self) -> float:
        return self.limit - (time.monotonic() - START)


START = time.monotonic()


def environment(job: Job) -> None:
    from benchmarks.machine import describe
    from fastbsn.backends import status

    job.append(machine=describe())
    print(json.dumps(status()))


def find_nvcc() -> str | None:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
    return str(home) if home.is_file() else shutil.which("nvcc")


def build(job: Job) -> None:
    """The extension, in place, for this GPU only."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    arch = f"{major}{minor}" + ("a" if major == 9 else "")
    env = {**os.environ, "FASTBSN_CUDA": "1", "FASTBSN_ARCHS": arch}
    subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=ROOT, env=env, check=True)
    subprocess.run(
        [sys.executable, "-c", "import fastbsn._C as c; print('GPUs seen by the extension:', c.device_count())"], cwd=ROOT, check=True
    )


def tests(job: Job) -> None:
    """In parallel where pytest-xdist is installed: most of the time goes into compiling kernels."""
    parallel = ["-n", str(min(12, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    process = subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-m", "gpu", *parallel, "tests/gpu"], cwd=ROOT)
    try:
        sys.exit(process.wait(max(1, job.left() - 15)))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then shows what has failed so far
        process.wait(10)
        sys.exit("no time for the other tests")


def ceilings(job: Job) -> None:
    import torch

    from benchmarks.ceilings import measure

    job.append(ceilings=measure(torch.device(job.device), job.scale == "tiny"))


def _measured_ceilings(job: Job) -> dict[str, Any] | None:
    return next((line["ceilings"] for line in read(job.folder) if "ceilings" in line), None)


def _done(job: Job) -> set[tuple[str, str]]:
    return {(row["suite"], row["case"]) for line in read(job.folder) for row in line.get("rows", [])}


def _suite(name: str) -> Callable[[Job], None]:
    def section(job: Job) -> None:
        import torch

        from benchmarks.measure import measure
        from benchmarks.suites import cases

        for case in cases(name, job.scale):
            if (case.suite, case.name) in _done(job):
                continue
            if job.left() < 3 * CASE_SECONDS[job.scale]:
                print(f"no time for {case.name}")
                break
            together = {n: v for n, v in case.versions.items() if not n.startswith(ALONE) and (v.baseline or not job.baselines)}
            rows = measure(case, torch.device(job.device), CASE_SECONDS[job.scale], _measured_ceilings(job), list(together))
            job.append(rows=rows)
            torch.cuda.empty_cache()

    return section


def _one_by_one(prefix: str, needed: float) -> Callable[[Job], None]:
    """Versions that are slow to prepare, or risky, each beside its eager yardstick only; the most promising first."""

    def section(job: Job) -> None:
        import torch

        from benchmarks.measure import measure
        from benchmarks.suites import cases

        chosen = [c for suite in ("student", "teacher") for c in cases(suite, job.scale) if "host" not in c.name]
        chosen.sort(key=lambda c: -c.name.count("3840") - c.name.count("1056"))
        todo = [(case, name) for case in chosen for name in case.versions if name.startswith(prefix)]
        todo.sort(key=lambda pair: ("," not in pair[1], "no graphs" in pair[1]))
        for case, name in todo:
            if job.left() < needed:
                print(f"no time for {case.name}: {name}")
                break
            dtype = case.versions[name].dtype
            yardstick = next(n for n, v in case.versions.items() if v.dtype == dtype and n.startswith("eager"))
            rows = measure(case, torch.device(job.device), CASE_SECONDS[job.scale], _measured_ceilings(job), [yardstick, name])
            job.append(rows=[row for row in rows if row["version"] == name])

    return section


def figures(job: Job) -> None:
    from benchmarks.figures import draw

    for path in draw(merge(read(job.folder)), job.folder, "gpu"):
        print(path)


class Section(NamedTuple):
    run: Callable[[Job], None]
    seconds: float  # at most
    needs_gpu: bool = False


SECTIONS = {
    "environment": Section(environment, 40),
    "build": Section(build, 110, needs_gpu=True),
    "tests": Section(tests, 110, needs_gpu=True),
    "ceilings": Section(ceilings, 40),
    "student": Section(_suite("student"), 75),
    "teacher": Section(_suite("teacher"), 75),
    "ops": Section(_suite("ops"), 60),
    "training": Section(_suite("training"), 50),
    "labels": Section(_suite("labels"), 25),
    "hopper": Section(_one_by_one("fastbsn cuda hopper", 10), 35, needs_gpu=True),
    "compile": Section(_one_by_one("compile", 30), 120, needs_gpu=True),
    "io": Section(_suite("io"), 25),
    "figures": Section(figures, 25),
}


def read(folder: Path) -> list[dict[str, Any]]:
    """Lines of rows.jsonl; a last one cut short is left out."""
    path, found = folder / "rows.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def merge(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """One result from the lines: machine, ceilings, sections and rows."""
    result: dict[str, Any] = {"machine": {}, "ceilings": {}, "sections": {}, "rows": []}
    for line in lines:
        for key, value in line.items():
            result[key].extend(value) if key == "rows" else result[key].update(value)
    return result
