"""Engines in processes of their own: equal results have a time, a wrong one is refused, a missing package is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import engines
from benchmarks.harness.machine import ROOT
from benchmarks.render.tables import render
from benchmarks.subjects import engine_worker


def test_two_engines_agree_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    chosen = ("fastbsn fp32", "onnxruntime fp32")
    monkeypatch.setattr(engine_worker, "ENGINES", {name: engine_worker.ENGINES[name] for name in chosen})
    engines.main(["--out", str(tmp_path / "e.json"), "--sizes", "70x50", "--threads", "1"])
    result = json.loads((tmp_path / "e.json").read_text())
    assert [r["status"] for r in result["rows"]] == ["measured"] * 2
    for r in result["rows"]:
        assert abs(r["psnr_difference"]) < 1e-3 and r["wall_s"] > 0 and r["cpu_s"] > 0 and r["peak_mib"] > 50
    assert "| 70 x 50 | 1 | onnxruntime fp32 |" in render("engines", result)


def test_rows_are_added_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(engine_worker, "ENGINES", {"fastbsn fp32": None})
    monkeypatch.setattr(engines, "one", lambda *_: {"status": "skipped", "reason": next(calls)})
    arguments, calls = ["--out", str(tmp_path / "e.json"), "--add"], iter("abcd")
    engines.main([*arguments, "--sizes", "70x50", "9x300", "--threads", "1"])
    engines.main([*arguments, "--sizes", "9x300", "--threads", "1"])
    engines.main([*arguments, "--sizes", "9x300", "--threads", "2"])
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert [(r["size"], r["threads"], r["reason"]) for r in rows] == [("9x300", 1, "c"), ("9x300", 2, "d"), ("70x50", 1, "a")]
    with pytest.raises(SystemExit):
        engines.main([*arguments, "--model", "gray-awgn"])
    assert "has rows of color-awgn" in capsys.readouterr().err


def test_peak_memory_is_that_of_the_process_alone() -> None:
    block = np.ones(2**25)  # 256 MiB, in the process that starts the other one
    code = "from benchmarks.subjects.engine_worker import peak_mib; print(peak_mib())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert block.nbytes == 2**28 and 5 < float(done.stdout) < engine_worker.peak_mib() - 200


@pytest.mark.parametrize("package, name", [("openvino", "OpenVINO bf16"), ("pyoidn", "OIDN fp32, its own network")])
def test_a_missing_package_is_named(package, name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    engine_worker.main(name, "x.onnx", str(tmp_path), "1", "1", "1")
    assert package in json.loads(capsys.readouterr().out)["skipped"]


@pytest.mark.parametrize("change, status", [(0.0, "measured"), (0.05, "refused")])
def test_a_wrong_result_has_no_speed(change, status, tmp_path, monkeypatch) -> None:
    def one(name, python, folder, *_):
        np.save(folder / "output.npy", np.load(folder / "noisy.npy") + (change if name == "OpenVINO fp32" else 0))
        return {"status": "measured", "wall_s": 1.0, "cpu_s": 1.0, "peak_mib": 1, "n": 1}

    monkeypatch.setattr(engines, "one", one)
    engines.main(["--out", str(tmp_path / "e.json"), "--sizes", "70x50", "--threads", "1"])
    rows = {r["engine"]: r for r in json.loads((tmp_path / "e.json").read_text())["rows"]}
    assert rows["OpenVINO fp32"]["status"] == status and rows["OpenVINO bf16"]["status"] == "measured"
