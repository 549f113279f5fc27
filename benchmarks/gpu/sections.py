"""The parts of a GPU run. Each runs in a process of its own and appends what it finds to rows.jsonl, version by version."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.rows import STARTED, Job, Key, key, merge, read
from benchmarks.harness.machine import ROOT

CASE_SECONDS = {"tiny": 0.05, "gpu": 2.5, "full": 10.0}


def environment(job: Job) -> None:
    from benchmarks.harness.machine import describe
    from fastbsn.backends import status

    job.append(machine=describe())
    print(json.dumps(status()))


def build(job: Job) -> None:
    """The extension, in place, for this GPU only."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    arch = f"{major}{minor}" + ("a" if major == 9 else "")
    env = {**os.environ, "FASTBSN_CUDA": "1", "FASTBSN_ARCHS": arch}
    done = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=ROOT, env=env)
    if done.returncode:
        sys.exit("the extension was not built; the reason is in log.txt")
    subprocess.run(
        [sys.executable, "-c", "import fastbsn._C as c; print('GPUs seen by the extension:', c.device_count())"], cwd=ROOT, check=True
    )


def _pytest(marks: str) -> Callable[[Job], None]:
    """Tests on the GPU, in parallel where pytest-xdist is installed: most of the time goes into compiling kernels."""

    def section(job: Job) -> None:
        parallel = ["-n", str(min(12, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, *parallel, "tests/gpu"]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            sys.exit(process.wait(max(1, job.left() - 15)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then shows what has failed so far
            process.wait(10)
            sys.exit("no time for the other tests")

    return section


def ceilings(job: Job) -> None:
    import torch

    from benchmarks.harness.ceilings import measure

    job.append(ceilings=measure(torch.device(job.device), job.scale == "tiny"))


def _rows(job: Job) -> dict[Key, dict[str, Any]]:
    return {key(line["row"]): line["row"] for line in read(job.folder) if "row" in line}


def _yardstick(case: Any, dtype: str, rows: dict[Key, dict[str, Any]]) -> list[str]:
    """The baseline whose error bounds that of the versions in its dtype: the first that did not take its process with it."""
    lost = {name for (suite, of, name), row in rows.items() if (suite, of) == (case.suite, case.name) and row["status"] == STARTED}
    return [name for name, v in case.versions.items() if v.baseline and v.dtype == dtype and name not in lost][:1]


def _measure(job: Job, case: Any, names: Sequence[str], rows: dict[Key, dict[str, Any]]) -> None:
    """Measure versions of a case beside their yardsticks; rows go into the folder as they come."""
    import torch

    from benchmarks.harness.measure import measure

    wanted = {y for name in names for y in _yardstick(case, case.versions[name].dtype, rows)} | set(names)
    known = {row["version"] for row in rows.values() if (row["suite"], row["case"]) == (case.suite, case.name)} - set(names)

    def report(row: dict[str, Any]) -> None:
        if row["version"] not in known:
            job.append(row=row)

    measure(case, torch.device(job.device), CASE_SECONDS[job.scale], merge(read(job.folder))["ceilings"], wanted, report=report)
    if job.device != "cpu":
        torch.cuda.empty_cache()


def _suite(name: str) -> Callable[[Job], None]:
    """The versions of a suite that have no section of their own, but for those that have a row."""

    def section(job: Job) -> None:
        from benchmarks.subjects import cases

        for case in cases(name, job.scale):
            rows = _rows(job)
            todo = [n for n, v in case.versions.items() if v.section is None and (case.suite, case.name, n) not in rows]
            if todo and job.left() < 3 * CASE_SECONDS[job.scale]:
                sys.exit(f"no time for {case.name}")
            if todo:
                _measure(job, case, todo, rows)

    return section


def _one_by_one(section_name: str, needed: float) -> Callable[[Job], None]:
    """Versions with a section of their own, one at a time: of each case the most promising first, and the cases that decide first."""

    def section(job: Job) -> None:
        from benchmarks.subjects import cases

        todo = []
        for order, suite in enumerate(("student", "teacher", "training", "ops")):
            for case in cases(suite, job.scale):
                names = [n for n, v in case.versions.items() if v.section == section_name and not case.host]
                todo += [(not case.decides, rank, order, case, n) for rank, n in enumerate(names)]
        for *_, case, name in sorted(todo, key=lambda t: t[:3]):
            rows = _rows(job)
            if (case.suite, case.name, name) in rows:
                continue
            if job.left() < needed:
                print(f"no time for {case.name}: {name}")
                break
            _measure(job, case, [name], rows)

    return section


def figures(job: Job) -> None:
    from benchmarks.render.figures import draw

    for path in draw(merge(read(job.folder)), job.folder, "gpu"):
        print(path)


class Section(NamedTuple):
    run: Callable[[Job], None]
    seconds: float  # at most
    needs_gpu: bool = False
    again: bool = False  # run once more after a crash: what has a row is left out
    takes_rest: bool = False  # gets what earlier sections left of their time
    tells: bool = False  # the last line of its output belongs to the result


SECTIONS = {
    "environment": Section(environment, 20),
    "build": Section(build, 100, needs_gpu=True),
    "tests": Section(_pytest("gpu and not sanitizer"), 200, needs_gpu=True, takes_rest=True, tells=True),
    "ceilings": Section(ceilings, 20),
    "student": Section(_suite("student"), 60, again=True),
    "teacher": Section(_suite("teacher"), 60, again=True),
    "compile": Section(_one_by_one("compile", 30), 110, needs_gpu=True, again=True, takes_rest=True),
    "hopper": Section(_one_by_one("hopper", 8), 20, needs_gpu=True, again=True),
    "training": Section(_suite("training"), 30, again=True),
    "ops": Section(_suite("ops"), 20, again=True),
    "labels": Section(_suite("labels"), 10, again=True),
    "io": Section(_suite("io"), 5, again=True),
    "figures": Section(figures, 15),
    "sanitizers": Section(_pytest("gpu and sanitizer"), 120, needs_gpu=True, tells=True),
}
CALLS = {
    "check": ("environment", "build", "tests", "sanitizers"),
    "measure": tuple(name for name in SECTIONS if name not in ("tests", "sanitizers")),
    "all": tuple(SECTIONS),
}
