"""The automatic choice: counted against what both models give."""

from __future__ import annotations

import json

import numpy as np

from benchmarks.choice import main, row
from benchmarks.render.tables import render
from fastbsn.io.image_files import write_image
from tests.conftest import photograph


def test_a_choice_is_wrong_where_the_other_model_is_better(rng):
    clean = photograph(rng, 96, 96, 3).astype(np.float32)
    noisy = clean + np.float32(0.1) * rng.standard_normal(clean.shape, np.float32)  # white: color-awgn is chosen
    good, bad = (lambda y: clean + 0.001), (lambda y: clean + 0.1)
    right = row("a", iter([(noisy, clean)]), {"color-awgn": good, "color-photo": bad})
    wrong = row("b", iter([(noisy, clean)] * 2), {"color-awgn": bad, "color-photo": good})
    assert right["taken"] == {"color-awgn": 1, "color-photo": 0} and right["wrong"] == 0 and right["lost"] == 0
    assert wrong["wrong"] == 2 and wrong["lost"] == 40 and wrong["psnr"] == {"auto": 20, "color-awgn": 20, "color-photo": 60}
    assert "| b | 2 | 2 | 0 | 2 (100%) | 40.000 |" in render("choice", {"rows": [wrong], "clean": "c", "machine": MACHINE})


MACHINE = {"cpu": "a CPU", "packages": {}, "commit": "abc", "date": "2026-01-01"}


def test_command(tmp_path, rng, capsys):
    (tmp_path / "clean").mkdir()
    write_image(tmp_path / "clean" / "a.png", (255 * photograph(rng, 64, 72, 3)).astype(np.uint8))
    main(["--clean", str(tmp_path / "clean"), "-o", str(tmp_path / "choice.json")])
    rows = json.loads((tmp_path / "choice.json").read_text())["rows"]
    assert len(rows) == 8 and all(r["n"] == 1 and sum(r["taken"].values()) == 1 for r in rows)
    assert "| white, sigma 25 | 1 |" in capsys.readouterr().out
