"""Ways to train for one camera: all of them train, and Recorrupted-to-Recorrupted has the noise that its paper asks for."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from benchmarks.own_camera import ALPHA, GAIN, Recorrupted, main
from fastbsn.camera import Mixture, measure
from fastbsn.evaluation.drawn import smooth_noise, upscaled
from fastbsn.io.image_files import write_image
from fastbsn.training import ImageSet, StudentConfig
from fastbsn.training.labels import LabelSet


def pictures(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    x = cv2.GaussianBlur(upscaled(size, rng), (0, 0), 2) * 0.5 + 0.25
    return x, x + smooth_noise(x.shape, 10, rng)


def test_every_way_gives_a_row(tmp_path, capsys):
    for i in range(2):
        for kind, v in zip(("mean", "real"), pictures(np.random.default_rng(i), 128), strict=True):
            write_image(tmp_path / f"{i}_{kind}.png", (np.clip(v, 0, 1) * 255).round().astype(np.uint8))
    command = [str(tmp_path), "--steps", "2", "-o", str(tmp_path / "out.json")]
    main([*command, "--only", "Recorrupted"])
    main([*command, "--only", "awgn", "labels", "round", "color-photo"])  # the other row stays
    rows = {r["way"]: r for r in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert len(rows) == 9 and all(np.isfinite(r["psnr"]) for r in rows.values())
    assert rows["labels of fit"]["psnr"] > rows["input"]["psnr"] + 3 and "| second round |" in capsys.readouterr().out


def test_recorrupted_pairs_have_opposite_noise():
    """input + a^2 target = (1 + a^2) y holds no fresh noise; input - target = (a + 1 / a) n has the measured level."""
    clean, noisy = pictures(np.random.default_rng(0), 128)
    noise = measure(noisy.astype(np.float32), clean.astype(np.float32))
    image = torch.from_numpy(noisy.transpose(2, 0, 1).copy()).float()
    labels = LabelSet(ImageSet([image], ["a"]), [0.0], [0.0], "camera", noisy=ImageSet([image], ["a"]), digest="x")
    task = Recorrupted(labels, StudentConfig(camera=Mixture(), crop=96, batch=8), torch.device("cpu"), 0, None, {"a": noise})
    inputs, targets, _ = task.batch(0, torch.Generator().manual_seed(0), torch.Generator())
    assert inputs.shape == targets.shape == (8, 3, 96, 96)
    y = (inputs + ALPHA**2 * targets) / (1 + ALPHA**2)
    assert float(image.min()) - 1e-5 <= float(y.min()) and float(y.max()) <= float(image.max()) + 1e-5
    found = float((inputs - targets).std()) / (ALPHA + 1 / ALPHA)
    assert found == pytest.approx(GAIN * noise.sigma, rel=0.2)
