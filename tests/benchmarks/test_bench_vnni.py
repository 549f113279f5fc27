"""INT8 beside bf16 on this processor: one small run of both parts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import vnni
from benchmarks.render.tables import render
from fastbsn.backends.device import slow_int8
from fastbsn.commands.model import windows
from fastbsn.int8 import find_ranges
from fastbsn.io.image_files import write_image
from tests.tiny import tiny_denoiser


@pytest.mark.skipif(slow_int8() is not None, reason=str(slow_int8()))
def test_a_small_run_of_both_parts(tmp_path, rng):
    pytest.importorskip("openvino")
    (tmp_path / "clean").mkdir()
    for i in range(2):
        write_image(tmp_path / "clean" / f"{i}.png", rng.integers(0, 256, (24, 40), np.uint8))
    d = tiny_denoiser()
    d.header_["ranges"] = find_ranges(d.networks_["student"], windows(tmp_path / "clean", 1))
    d.save(tmp_path / "m.safetensors")
    common = ["--model", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "o/vnni.json")]
    vnni.main(["quality", "--clean", str(tmp_path / "clean"), "--sigma", "25", *common])
    vnni.main(["speed", "--sizes", "64x32", "--threads", "1", "--rounds", "3", *common])
    result = json.loads((tmp_path / "o/vnni.json").read_text())
    (quality,), (speed,) = result["quality"]["rows"], result["speed"]["rows"]
    assert quality["n"] == 2 and quality["smallest"] <= quality["difference"] != 0
    assert quality["passes"] == (quality["difference"] >= -vnni.GATE)
    seconds = speed["seconds"]
    assert speed["ratio"] == pytest.approx(min(seconds["reference, bf16"], seconds["openvino, bf16"]) / seconds["openvino, INT8"])
    text = render("vnni", result)
    assert "| 2 of sigma 25 |" in text and ("x |" if speed["passes"] else "refused") in text.split("| 64x32 |")[1]


def test_quality_without_images_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        vnni.main(["quality", "-o", str(tmp_path / "o.json")])
    assert "quality needs --clean" in capsys.readouterr().err
