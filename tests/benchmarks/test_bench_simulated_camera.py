"""A simulated camera: noise that is correlated over pixels and grows with the light; and pairs without noise."""

from __future__ import annotations

import numpy as np

from benchmarks.simulated_camera import main, photograph
from fastbsn.camera import measure
from fastbsn.evaluation.datasets import load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.image_files import write_image


def test_noise_of_the_camera():
    x = np.full((256, 256, 3), 0.2, np.float32)
    x[:, 128:] = 0.7
    y, clean = photograph(x, 1.0, np.random.default_rng(0)), photograph(x, 1.0, None)
    assert abs(y[:, 8:120].mean() - clean[:, 8:120].mean()) < 0.01
    assert measure(y, clean).autocorrelation(1) > 0.2
    four = photograph(x, 4.0, np.random.default_rng(0))
    ratio = (four - clean)[:, 136:].std() / (y - clean)[:, 136:].std()
    assert 1.6 < ratio < 2.1  # JPEG apart, the standard deviation is the root of the variance; a little is clipped


def test_pairs_are_written(tmp_path):
    (tmp_path / "clean").mkdir()
    for i in range(2):
        write_image(tmp_path / "clean" / f"{i}.png", np.random.default_rng(i).integers(90, 160, (65, 64, 3)).astype(np.uint8))
    for kind, shape in (("camera", (3, 64, 64)), ("clean", (3, 65, 64))):
        main([str(tmp_path / "clean"), str(tmp_path / f"pairs-{kind}"), "--kind", kind])
        pairs = list(load_pairs(tmp_path / f"pairs-{kind}", channels=3))
        assert [p.noisy.shape for p in pairs] == [shape] * 2 and all(10 < psnr(p.clean, p.noisy) < 60 for p in pairs)
