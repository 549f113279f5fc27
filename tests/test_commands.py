"""The commands that people type: results, exit codes, JSON, what happens on a second run and with a bad file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from fastbsn import Denoiser, __version__
from fastbsn.commands import main
from fastbsn.io.weights import load_networks, save_networks
from fastbsn.names import BACKENDS
from fastbsn.nets import UNet


@pytest.fixture
def students(tmp_path: Path) -> dict[int, str]:
    """Untrained students (the identity) for gray and colour."""
    files = {}
    for channels in (1, 3):
        files[channels] = str(tmp_path / f"s{channels}.safetensors")
        save_networks(files[channels], {"student": UNet(channels, 6, 1)}, {})
    return files


def image(path: Path, rng, shape=(20, 30, 3), dtype=np.uint8) -> np.ndarray:
    array = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)
    return array


def test_denoise_keeps_names_folders_dtype_and_depth(students, tmp_path, rng):
    a = image(tmp_path / "in/a.png", rng)
    b = image(tmp_path / "in/sub/b.png", rng, dtype=np.uint16)
    assert main(["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", students[3], "--preview"]) == 0
    for name, array in (("a.png", a), ("sub/b.png", b)):
        out = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert out.dtype == array.dtype and np.array_equal(out, array)  # the untrained student is the identity
    assert cv2.imread(str(tmp_path / "out/a.png_before_after.png")).shape == (20, 60, 3)


def test_denoise_with_strength(tmp_path, rng, capsys):
    a = image(tmp_path / "a.png", rng, (40, 40, 3))
    for strength, same in (("0", True), ("0.5", False), ("2", False)):
        out = tmp_path / strength
        assert main(["denoise", str(tmp_path / "a.png"), "-o", str(out), "--strength", strength]) == 0
        assert np.array_equal(cv2.imread(str(out / "a.png")), a) == same
    assert main(["denoise", str(tmp_path / "a.png"), "-o", str(tmp_path / "x"), "--strength", "9"]) == 1
    assert "strength=9.0; expected a number from 0" in capsys.readouterr().err


def test_every_image_takes_its_model(tmp_path, rng, capsys):
    white = np.clip(128 + rng.normal(0, 25, (64, 64, 3)), 0, 255).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for name, x in {"white": white, "photo": cv2.GaussianBlur(white, (0, 0), 1), "gray": white[..., 0]}.items():
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), x)
    assert main(["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == {"gray-awgn": 1, "color-photo": 1, "color-awgn": 1}


def test_denoise_stack_keeps_axes(students, tmp_path, rng):
    stack = rng.integers(0, 60000, (4, 18, 22), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "TYX"})
    assert main(["denoise", str(tmp_path / "stack.tif"), "-o", str(tmp_path / "out"), "--model", students[1]]) == 0
    with tifffile.TiffFile(tmp_path / "out/stack.tif") as tiff:
        assert tiff.series[0].axes == "TYX" and np.array_equal(tiff.asarray(), stack)


def test_denoise_goes_on_past_a_bad_file_and_resumes(students, tmp_path, rng, capsys):
    for name in "abc":
        image(tmp_path / f"in/{name}.png", rng)
    good = (tmp_path / "in/b.png").read_bytes()
    (tmp_path / "in/b.png").write_bytes(good[:50])
    command = ["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", students[3], "--json"]
    assert main(command) == 1
    captured = capsys.readouterr()
    first = json.loads(captured.out)
    assert (first["done"], first["skipped"], len(first["failed"])) == (2, 0, 1) and "b.png" in captured.err
    (tmp_path / "in/b.png").write_bytes(good)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"done": 1, "skipped": 2, "failed": [], "models": {students[3]: 1}, "not_read": []}


def test_output_folder_may_not_be_the_input(students, tmp_path, rng, capsys):
    before = image(tmp_path / "in/a.png", rng)
    assert main(["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "in"), "--model", students[3]]) == 2
    assert "another output folder" in capsys.readouterr().err
    assert main(["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "in"), "--model", students[3], "--overwrite"]) == 2
    assert np.array_equal(cv2.imread(str(tmp_path / "in/a.png")), before)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["denoise", "nothing.png", "-o", "out", "--model", "no-such-model"], "no-such-model"),
        (["denoise", "empty", "-o", "out"], "no images"),
        (["train", "empty", "-o", "t.safetensors", "--steps", "1"], "no images"),
        (["distill", "empty", "-o", "s.safetensors", "--steps", "1"], "manifest.json"),
        (["label", "empty", "-o", "labels", "--teacher", "t.safetensors"], "empty"),
        (["evaluate", "empty", "--model", "x"], "exactly one of"),
        (["evaluate", "empty", "--noise", "gaussian:25", "--model", "gray-awgn"], "no images"),
        (["label", "folder", "-o", "labels", "--teacher", "missing.safetensors"], "missing.safetensors"),
        (["label", "folder", "-o", "labels", "--teacher", "t", "--shard", "a/b"], "--shard a/b"),
        (["simulate", "empty", "-o", "noisy", "--noise", "gaussian:25"], "no images"),
        (["train", "folder", "-o", "t.safetensors", "--steps", "1", "--device", "cuda:99"], "cuda:99"),
        (["fit", "empty", "-o", "s.safetensors", "--steps", "0"], "no images"),
        (["simulate", "empty", "-o", "noisy", "--noise", "blue"], "gaussian:25"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys, rng):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "folder/a.png", rng)
    (tmp_path / "empty").mkdir()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_whole_job_step_by_step(noisy_folder, tmp_path, capsys):
    t, labels, s = (str(tmp_path / name) for name in ("t.safetensors", "labels", "s.safetensors"))
    small = ["--steps", "10"]
    assert main(["train", str(noisy_folder), "-o", t, "--channels", "8", "--modules", "1", "--crop", "32", "--batch", "2", *small]) == 0
    assert main(["label", str(noisy_folder), "-o", labels, "--teacher", t]) == 0
    assert main(["distill", labels, "-o", s, "--channels", "6", "--renoised", "0.5", *small]) == 0
    networks, header = load_networks(s)
    assert isinstance(networks["student"], UNet) and header["kind"] == "student" and header["images"] == 6
    assert main(["distill", labels, "-o", str(tmp_path / "x.safetensors"), "--init", t, *small]) == 2
    assert "expected a student" in capsys.readouterr().err
    assert main(["train", str(noisy_folder), "-o", t, *small]) == 2  # never silently overwritten
    assert "--overwrite" in capsys.readouterr().err
    assert main(["denoise", str(noisy_folder), "-o", str(tmp_path / "out"), "--model", s]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_fit_in_one_command(noisy_folder, tmp_path):
    s = tmp_path / "s.safetensors"
    assert main(["fit", str(noisy_folder), "-o", str(s), "--steps", "4"]) == 0
    assert isinstance(load_networks(s)[0]["student"], UNet)
    run = tmp_path / "s.safetensors.run"
    assert (run / "teacher.safetensors").exists() and (run / "preview.png").exists() and (run / "log.csv").exists()


def test_simulate_then_evaluate_pairs_and_noise(students, tmp_path, rng, capsys):
    for i in range(2):
        image(tmp_path / f"clean/{i}.png", rng, (24, 24))
    assert main(["simulate", str(tmp_path / "clean"), "-o", str(tmp_path / "noisy"), "--noise", "gaussian:25"]) == 0
    first, second = (np.load(tmp_path / f"noisy/{i}.npy") for i in range(2))
    assert first.dtype == np.float16 and first.shape == (24, 24) and not np.array_equal(first, second)
    capsys.readouterr()
    out = tmp_path / "table.json"
    command = ["evaluate", str(tmp_path / "clean"), "--noise", "gaussian:25", "gaussian:50", "--model", students[1], "-o", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.count("\n") == 4
    rows = json.loads(out.read_text())
    assert [r["noise"] for r in rows] == ["gaussian:25", "gaussian:50"]
    assert rows[0]["n"] == 2 and rows[0]["psnr"] == pytest.approx(rows[0]["input_psnr"], abs=1e-2)  # the identity
    assert rows[0]["psnr"] > rows[1]["psnr"] + 4


def test_info_names_every_backend_and_reason(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["backends"]) == set(BACKENDS) and found["backends"]["reference"] is None
    if not torch.cuda.is_available():
        assert found["backends"]["cuda"] and found["backends"]["triton"]
    assert found["packages"]["torch"] == torch.__version__


def test_export_writes_onnx_and_half_size_weights(students, tmp_path):
    assert main(["export", "--model", students[1], "-o", str(tmp_path / "s.onnx")]) == 0
    assert (tmp_path / "s.onnx").stat().st_size > 1000
    half = tmp_path / "half.safetensors"
    assert main(["export", "--model", students[1], "-o", str(half), "--dtype", "float16"]) == 0
    assert half.stat().st_size < 0.7 * Path(students[1]).stat().st_size
    assert main(["export", "--model", students[1], "-o", str(tmp_path / "s.pt")]) == 2


def test_export_averages_students(students, tmp_path, capsys):
    a, mean = Denoiser.from_pretrained(students[1]).networks_["student"], tmp_path / "mean.safetensors"
    b = UNet(**a.config)
    Denoiser({"student": b}, device="cpu").save(tmp_path / "b.safetensors")
    assert main(["export", "--model", students[1], "--average", str(tmp_path / "b.safetensors"), "-o", str(mean)]) == 0
    found = Denoiser.from_pretrained(mean)
    assert len(found.header_["averaged"]) == 2
    for p, q, r in zip(found.networks_["student"].parameters(), a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, (q + r) / 2)
    assert main(["export", "--model", students[1], "--average", students[3], "-o", str(mean)]) == 2
    assert "configurations" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("denoise", "fit", "train", "label", "distill", "evaluate", "simulate", "export", "tune", "info"))


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fastbsn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fastbsn {__version__}\n"
