"""Denoisers of photographs: every method is measured on every pair, and the table says what each has."""

from __future__ import annotations

import json

import cv2
import numpy as np

from benchmarks.photographs import main
from fastbsn.evaluation.drawn import smooth_noise, upscaled
from fastbsn.io.image_files import write_image


def test_methods_on_two_pairs(tmp_path, capsys):
    for i in range(2):
        rng = np.random.default_rng(i)
        x = cv2.GaussianBlur(upscaled(64, rng), (0, 0), 2)
        for kind, v in (("mean", x), ("real", x + smooth_noise(x.shape, 8, rng))):
            write_image(tmp_path / f"{i}_{kind}.png", (np.clip(v, 0, 1) * 255).round().astype(np.uint8))
    out = tmp_path / "out.json"
    main([str(tmp_path), "--models", "color-awgn", "--methods", "fastbsn", "OpenCV", "wavelet", "-o", str(out)])
    rows = {r["method"]: r for r in json.loads(out.read_text())["methods"]}
    assert list(rows) == [
        "input",
        "fastbsn (color-awgn)",
        "fastbsn (color-awgn), strength 2",
        "scikit-image wavelet, sigma estimated",
        "OpenCV fastNlMeansDenoisingColored",
    ]
    assert rows["fastbsn (color-awgn), strength 2"]["psnr"] > rows["input"]["psnr"] + 3
    assert rows["fastbsn (color-awgn), strength 2"]["worse than input"] == 0
    assert "| fastbsn (color-awgn), strength 2 |" in capsys.readouterr().out
    kept = json.loads(out.read_text())["methods"][3]
    main([str(tmp_path), "--models", "color-awgn", "--methods", "OpenCV", "-o", str(out)])
    assert json.loads(out.read_text())["methods"][3] == kept
