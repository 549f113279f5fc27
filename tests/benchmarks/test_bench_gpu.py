"""The GPU benchmark on a machine without one: its order, its limits, and what a crash or a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import subjects
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import process, rows, sections
from benchmarks.harness.images import noisy_batches
from benchmarks.harness.machine import ROOT
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.subjects.versions import baselines, eager_fp32
from fastbsn.nets import UNet

SECTIONS = ("environment", "build", "tests", "ceilings", "teacher", "compile", "figures")
CHILD = [sys.executable, "-c"]


def test_dry_run_shows_the_order_and_names_what_it_skips(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--dry-run", "--sections", *SECTIONS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
    assert "order: environment (20 s), build (100 s), tests (200 s), ceilings (20 s), teacher (60 s), compile (110 s)" in done.stdout
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["sections"]) == list(SECTIONS)
    for name, section in result["sections"].items():
        needs_gpu = name in ("build", "tests", "compile")
        assert section["status"] == ("skipped" if needs_gpu else "done")
        assert not needs_gpu or "needs a GPU" in section["reason"]
    found = {(r["suite"], r["version"]): r for r in result["rows"]}
    assert found["teacher", "fastbsn reference fp32"]["status"] == "measured"
    assert found["teacher", "cudnn_convolution_relu fp16"]["status"] == "skipped"
    assert found["teacher", "eager fp16, graph"]["reason"] == "needs a GPU: a CUDA graph"
    assert (tmp_path / "gpu-roofline.png").stat().st_size > 1000
    assert "| build | 0 | skipped: needs a GPU" in done.stdout


def test_order_and_time_of_the_two_calls() -> None:
    order = list(sections.CALLS["measure"])
    assert order[order.index("teacher") + 1] == "compile"
    assert sections.CALLS["check"][-1] == sections.CALLS["all"][-1] == "sanitizers"
    assert set(sections.CALLS["check"]) | set(order) == set(sections.SECTIONS)
    for name in ("check", "measure"):
        assert sum(sections.SECTIONS[s].seconds for s in sections.CALLS[name]) <= 8 * 60 - gpu.RESERVE


def test_compile_gets_what_earlier_sections_left() -> None:
    clock = gpu.Clock(list(sections.CALLS["measure"]), 8)
    assert clock.limit("teacher") == 60
    assert clock.limit("compile") > 110 + 150  # nothing was spent on what stands before it
    clock.end = time.monotonic() + 100
    assert clock.limit("compile") == pytest.approx(100, abs=1)


@pytest.mark.parametrize("folder", ["benchmarks/results/local", "."])
def test_nothing_is_written_under_the_checkout(folder: str, capsys: pytest.CaptureFixture) -> None:
    for arguments in (["--out", str(ROOT / folder)], []):
        with pytest.raises(SystemExit):
            gpu.main([*arguments, "--dry-run"])
    printed = capsys.readouterr().err
    assert "expected a folder outside it" in printed and "required: --out" in printed


@pytest.mark.parametrize("ends", ["pass", "import time; time.sleep(60)"], ids=["by itself", "at its limit"])
def test_no_process_outlives_its_section(ends: str, tmp_path: Path) -> None:
    code = f"import subprocess, sys\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid, flush=True)\n{ends}"
    found = process.run([*CHILD, code], tmp_path / "log.txt", 15)
    assert found["status"] == ("done" if ends == "pass" else "stopped after 15 s")
    pid = int((tmp_path / "log.txt").read_text())
    state = Path(f"/proc/{pid}/stat")
    for _ in range(50):  # a killed orphan waits for init to bury it
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child of a section was still running")


def _crash(net, device):
    os._exit(7)


def _killed(net, device):
    os.killpg(0, signal.SIGKILL)  # what the limit of a section does


def _case(scale: str, bad) -> list[Case]:
    def build(device: torch.device) -> Subject:
        net = UNet(3, 6, 2).eval().requires_grad_(False)
        clean, noisy = noisy_batches((1, 3, 32, 32), device)
        return Subject(net, noisy, eager_fp32(net, device), clean, 1e6, 1e4, 32 * 32)

    versions = {"eager": Version(eager_fp32, "float32", True), "bad": Version(bad), "good": Version(eager_fp32)}
    return [Case("student", "1 x 32 x 32", versions, build)]


def _section(folder: str, bad: str) -> None:
    """What a child process of the test does: one suite, of which one version ends the process or its group."""
    subjects.cases = lambda suite, scale: _case(scale, globals()[bad])
    sections.SECTIONS["student"].run(rows.Job(Path(folder), "tiny", "cpu", 100))


def _run_child(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    code = f"from tests.benchmarks.test_bench_gpu import _section; import sys; _section(sys.argv[1], {bad!r})"

    def section(name, folder, scale, dry, limit):
        return process.run([*CHILD, code, str(folder)], folder / "log.txt", limit)

    monkeypatch.setattr(process, "section", section)


def test_a_crash_costs_only_the_version_that_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_child(monkeypatch, "_crash")
    assert gpu.run(tmp_path, ["student"], True, "tiny", 2) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {r["version"]: r["status"] for r in result["rows"]} == {"eager": "measured", "bad": "failed", "good": "measured"}
    assert result["sections"]["student"]["status"] == "done"


def test_a_killed_section_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_child(monkeypatch, "_killed")
    monkeypatch.setitem(sections.SECTIONS, "student", sections.SECTIONS["student"]._replace(again=False))
    assert gpu.run(tmp_path, ["student"], True, "tiny", 2) == 1
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"row": {"suite": "stud')
    found = {r["version"]: r for r in rows.merge(rows.read(tmp_path))["rows"]}
    assert found["eager"]["status"] == "measured" and found["eager"]["ms"] > 0
    assert found["bad"]["status"] == "failed" and "its process ended" in found["bad"]["reason"]


def test_small_images_have_a_baseline_in_a_cuda_graph() -> None:
    names = set(baselines("phase upsample", small=True)) - set(baselines("phase upsample"))
    assert names == {"eager bf16, graph", "eager bf16, phase upsample, graph"}


def test_what_has_a_section_of_its_own_is_in_no_suite() -> None:
    for suite in ("student", "teacher", "training", "ops"):
        for case in subjects.cases(suite, "gpu"):
            alone = {n for n, v in case.versions.items() if v.section}
            assert alone == {n for n in case.versions if n.startswith("compile") or "hopper" in n}
    first = next(n for n, v in subjects.cases("student", "gpu")[0].versions.items() if v.section == "compile")
    assert first == "compile bf16, phase upsample"
