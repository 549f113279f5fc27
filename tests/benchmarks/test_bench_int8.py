"""The simulated 8-bit student: what rounding does, and one small run of the benchmark."""

import json

import numpy as np
import pytest
import torch

from benchmarks import int8
from fastbsn.io.image_files import write_image
from tests.tiny import tiny_denoiser


def test_values_on_the_grid_stay_and_zero_is_exact():
    x = torch.arange(-56, 200) * 0.5
    assert torch.equal(int8.quantise(x, (-28.0, 99.5)), x)
    assert float(int8.quantise(torch.zeros(1), (-0.317, 1.9))) == 0
    assert float(int8.quantise(torch.tensor([9.0]), (-1.0, 1.0))) <= 1


def test_weights_keep_127_steps_of_their_own_channel():
    w = torch.randn(4, 3, 3, 3) * torch.tensor([1e-3, 1.0, 10.0, 0.0])[:, None, None, None]
    q = int8.quantise_weight(w)
    step = w.abs().amax((1, 2, 3), keepdim=True) / 127
    assert ((q - w).abs() <= step / 2 + 1e-9).all()
    assert q[1].unique().numel() > 5


def test_a_small_run(tmp_path, rng):
    for name in ("test", "train"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            write_image(tmp_path / name / f"{i}.png", rng.integers(0, 256, (24, 40), np.uint8))
    tiny_denoiser(depth=1).save(tmp_path / "m.safetensors")
    arguments = ["--clean", str(tmp_path / "test"), "--calibrate", str(tmp_path / "train"), "--model", str(tmp_path / "m.safetensors")]
    int8.main([*arguments, "--every", "1", "--sigma", "25", "--outside", "0", "--out", str(tmp_path / "o/int8.json")])
    rows = json.loads((tmp_path / "o/int8.json").read_text())["rows"]
    assert [r["plan"] for r in rows] == ["weights only", "all layers", "all but the first and the last", "levels 1 and below"]
    for r in rows:
        assert r["difference"] == [pytest.approx(r["psnr"][0] - r["fp32"][0], abs=2e-3)]
        assert r["passes"] == (r["difference"][0] >= -int8.GATE)
    assert len({r["psnr"][0] for r in rows}) > 1
