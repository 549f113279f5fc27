"""Every command runs to its end at a tiny size on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation, cpu, peers, speedrun
from benchmarks.harness.machine import ROOT
from benchmarks.render.tables import render
from benchmarks.subjects import classical
from fastbsn.io.image_files import write_image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    from skimage import data

    folder = tmp_path / "clean"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        write_image(folder / f"{name}.png", getattr(data, name)()[100:156, 100:164])
    return folder


def test_suites_under_pytest_benchmark(tmp_path: Path) -> None:
    out = tmp_path / "benchmark.json"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}  # pytest-benchmark does not measure beside other tests
    options = ["--suite", "io", "--scale", "tiny", "--seconds", "0.05", f"--benchmark-json={out}", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "benchmarks", *options], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(b["group"], b["extra_info"]["version"]): b for b in json.loads(out.read_text())["benchmarks"]}
    assert len(found) == 8
    for b in found.values():  # what pytest-benchmark makes of the samples is what the row says
        assert b["stats"]["median"] * 1e3 == pytest.approx(b["extra_info"]["ms"], abs=1e-3) and b["stats"]["rounds"] == b["extra_info"]["n"]


def test_cpu_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delitem(classical.METHODS, "BM3D")  # seconds even for a small image
    cpu.main(["--scale", "tiny", "--out", str(tmp_path / "cpu.json")])
    result = json.loads((tmp_path / "cpu.json").read_text())
    rows = {(r["case"], r["version"]): r for r in result["rows"]}
    assert rows["1 x 64 x 64", "fastbsn reference fp32"]["status"] == "measured"
    assert all(abs(r["psnr_difference"]) <= 0.01 for r in result["rows"] if r["status"] == "measured")
    assert {m["method"] for m in result["methods"]} > {"OpenCV fastNlMeans", "scikit-image wavelet"}
    assert render("cpu", result) in capsys.readouterr().out


def test_peers_command(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(classical.METHODS, "BM3D")
    monkeypatch.setattr(peers, "fitted", lambda *_: {"psnr": 1.0, "seconds": 1.0, "train_minutes": 0.1})
    out = tmp_path / "peers.json"
    peers.main(["--images", str(photographs), "--train", str(photographs), "--limit", "2", "--minutes", "0.01", "--out", str(out)])
    rows = {m["method"]: m for m in json.loads(out.read_text())["methods"]}
    assert rows["scikit-image nl_means"]["psnr"] > 23 and rows["scikit-image nl_means"]["told_sigma"]
    assert "careamics did not run" in rows["CAREamics Noise2Void"]["reason"] or "psnr" in rows["CAREamics Noise2Void"]


def test_ablation_command_resumes(tmp_path: Path, photographs: Path) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        clean = rng.integers(40, 200, (1, 1, 3)) + np.zeros((40, 48, 1), int)
        write_image(pairs / f"{i}_mean.png", clean.astype(np.uint8))
        write_image(pairs / f"{i}_real.png", np.clip(clean + rng.normal(0, 5, clean.shape), 0, 255).astype(np.uint8))
    arguments = ["--clean", str(photographs), "--test", str(photographs), "--pairs", str(pairs), "--work", str(tmp_path / "work")]
    arguments += ["--steps", "4", "--tiny", "--test-images", "1", "--out", str(tmp_path / "ablation.json")]
    ablation.main([*arguments, "--questions", "blind spot", "downsampling", "refinement"])
    first = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert [r["name"] for r in first] == ["plain, mu", "dilated, mu", "noisy input", "no PD", "PD", "PD + R3", "student of PD + R3"]
    assert first[1]["gain"] == pytest.approx(first[1]["psnr"] - first[0]["psnr"], abs=1e-3)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.safetensors")}
    ablation.main(arguments)
    rows = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert {r["question"] for r in rows} == set(ablation.QUESTIONS) and first[0] == rows[0]
    assert all(path.stat().st_mtime_ns == t for path, t in written.items())
    with pytest.raises(SystemExit, match="another --work folder"):
        ablation.main([*arguments, "--seed", "1"])


def test_speedrun_reaches_its_small_target(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "speedrun.json"
    assert speedrun.main(["ci", "--device", "cpu", "--record", "--log", str(log)]) == 0
    (entry,) = json.loads(log.read_text())["runs"]
    assert entry["psnr"] >= entry["target"] and entry["seconds"] > 0 and "| ci | 23.50 |" in capsys.readouterr().out
