"""A student of one's own camera: noise is measured, clean photographs are left alone, the student learns from re-noised labels."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fastbsn import Denoiser, InputError
from fastbsn.camera import Mixture, load_bank
from fastbsn.commands import main
from fastbsn.errors import TrainingError
from fastbsn.evaluation.drawn import gradient, smooth_noise, upscaled
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.image_files import write_image
from fastbsn.io.weights import load_networks
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, distill, fit
from fastbsn.training.labels import LabelSet
from fastbsn.training.photographs import describe, draw_noise, label_photographs, measure_noise
from fastbsn.training.student import StudentTask


def photograph(seed: int, sigma: float, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean, uint8 [size, size, 3]; without noise, a picture without texture."""
    rng = np.random.default_rng(seed)
    x = cv2.GaussianBlur(upscaled(size, rng), (0, 0), 2) if sigma else gradient(size, rng)
    y = x + (smooth_noise(x.shape, sigma, rng) if sigma else 0)
    return tuple(np.clip(v * 255, 0, 255).round().astype(np.uint8) for v in (y, x))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def labelled() -> tuple[LabelSet, dict, ImageSet]:
    noisy = ImageSet.from_arrays([photograph(0, 6)[0], photograph(1, 6)[0], photograph(2, 0)[0]])
    return *label_photographs(noisy, "cpu"), noisy


def test_noise_is_found_and_clean_photographs_are_their_own_labels(labelled):
    labels, bank, noisy = labelled
    assert list(bank) == ["0", "1"]
    found = describe(bank)
    assert found["photographs"] == 2 and 3 < found["sigma"] < 7
    assert found["correlation"]["1"] == pytest.approx(0.6, abs=0.2) and 0.3 < found["between channels"] < 0.8
    assert (labels.images.images[2] - noisy.images[2] / 255).abs().mean() < 1 / 255
    for i in (0, 1):
        y, x = (v.astype(np.float64) / 255 for v in photograph(i, 6))
        label = labels.images.images[i].double().permute(1, 2, 0).numpy()
        assert psnr(x.transpose(2, 0, 1), label.transpose(2, 0, 1)) > psnr(x.transpose(2, 0, 1), y.transpose(2, 0, 1)) + 3


def test_pairs_of_photographs_are_drawn_by_the_generators(labelled):
    labels, bank, _ = labelled

    def batch(seed: int) -> tuple[torch.Tensor, ...]:
        task = StudentTask(labels, StudentConfig(channels=6, batch=3, crop=32, camera=Mixture()), torch.device("cpu"), 0, bank=bank)
        assert task.own == {0: 0, 1: 1} and json.loads(json.dumps(task.config)) == task.config
        return task.batch(0, torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0))

    (y, x, _), again, other = batch(1), batch(1), batch(2)
    assert y.shape == x.shape == (3, 3, 32, 32) and y.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, again[0]) and torch.equal(x, again[1]) and not torch.equal(y, other[0])


def test_a_photograph_and_its_label_are_a_pair_too(labelled):
    labels, bank, noisy = labelled
    half = ImageSet([x.float() / 255 / 2 for x in noisy.images], noisy.names)
    task = StudentTask(
        replace(labels, images=half),
        StudentConfig(channels=6, batch=48, crop=32, camera=Mixture(pairs=0.5)),
        torch.device("cpu"),
        0,
        bank=bank,
    )
    y, x, _ = task.batch(0, torch.Generator().manual_seed(3), torch.Generator().manual_seed(0))
    real = sum(torch.allclose(a, 2 * b, atol=1e-6) for a, b in zip(y, x, strict=True))
    assert 8 <= real <= 24  # half of the crops of the two photographs in the bank, of three in all: 16 expected


def test_another_bank_is_another_run(labelled, tmp_path):
    labels, bank, _ = labelled
    config = StudentConfig(channels=6, batch=2, crop=32, camera=Mixture())
    distill(labels, tmp_path / "s.safetensors", LoopConfig(steps=1), config, progress=False, bank=bank)
    with pytest.raises(TrainingError, match="bank"):
        distill(labels, tmp_path / "s.safetensors", LoopConfig(steps=1), config, progress=False, bank={"0": bank["0"]})


def test_fit_on_photographs_denoises_them(tmp_path):
    pairs = [photograph(seed, 6) for seed in range(3)]
    trained = fit([y for y, _ in pairs], steps=30, noise="camera", workdir=tmp_path, progress=False, device="cpu")
    d = Denoiser(trained.networks, trained.header, device="cpu")
    for y, x in pairs:
        gain = psnr(x.transpose(2, 0, 1), d(y).transpose(2, 0, 1), 255) - psnr(x.transpose(2, 0, 1), y.transpose(2, 0, 1), 255)
        assert gain > 3
    assert trained.header["camera"]["photographs"] == 3 and (tmp_path / "noise.png").stat().st_size > 5000


def test_images_that_are_no_noisy_photographs_are_refused():
    with pytest.raises(InputError, match="images of 1 channels"):
        label_photographs(ImageSet.from_arrays([photograph(0, 6)[0][..., 0]]))
    with pytest.raises(InputError, match=r"photographs \(1\) with noise of .* nothing to learn"):
        label_photographs(ImageSet.from_arrays([photograph(0, 0)[0]]), "cpu")


def test_commands_from_photographs_to_a_student(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for seed in range(2):
        write_image(tmp_path / "in" / f"{seed}.png", photograph(seed, 6)[0])
    folder, labels, bank = (str(tmp_path / name) for name in ("in", "labels", "bank.safetensors"))
    assert main(["label", folder, "-o", labels, "--teacher", "color-awgn", "--strength", "2"]) == 0
    assert main(["noise", labels, "-o", bank, "--plot", str(tmp_path / "noise.png")]) == 0
    assert "photographs" in capsys.readouterr().out and list(load_bank(bank)) == ["0.png", "1.png"]
    student = ["distill", labels, "-o", str(tmp_path / "s.safetensors"), "--camera", bank, "--channels", "6", "--steps", "2"]
    assert main(student) == 0
    assert load_networks(tmp_path / "s.safetensors")[1]["noise"] == "camera"
    assert main(["distill", labels, labels, "-o", str(tmp_path / "t.safetensors"), "--camera", "--channels", "6", "--steps", "2"]) == 0
    for mix, code in (
        (["measured=0.7", "white=0.18", "gain=1,2"], 0),
        (["gain=1"], 2),
        (["blue=1"], 2),
        (["white=x"], 2),
        (["white=0.5"], 2),
    ):
        command = ["distill", labels, "-o", str(tmp_path / "u.safetensors"), "--camera", bank, "--channels", "6", "--steps", "2"]
        assert main([*command, "--overwrite", "--mix", *mix]) == code, mix


def test_the_picture_of_the_noise(labelled, tmp_path):
    draw_noise(labelled[1], tmp_path / "noise.png")
    assert cv2.imread(str(tmp_path / "noise.png")).shape[:2] == (340, 1100)
    assert measure_noise(labelled[0]).keys() >= labelled[1].keys()
