"""The measurements of labelling at scale and of students from shards, in small."""

from __future__ import annotations

import json

import pytest

from benchmarks import labelling, streaming
from benchmarks.render.tables import render


def test_a_small_run(tmp_path, capsys):
    arguments = ["--images", "4", "--scale", "tiny", "--repeat", "1", "--out", str(tmp_path / "labelling.json"), "--add"]
    assert labelling.main(arguments) == 0
    result = json.loads((tmp_path / "labelling.json").read_text())
    assert "| peak memory, 4 images, this teacher |" in render("labelling", result) and "extrapolated" in render("labelling", result)
    assert "measuring the noise" in render("labelling", result)
    assert result["images"] == 4 and len(result["rounds"]) == 1 and "engine_over_bare" in capsys.readouterr().out
    assert all(value > 0 for value in result["median"].values()) and 0 < result["median"]["computing"] <= 1
    assert labelling.main([*arguments, "--memory"]) == 0
    added = json.loads((tmp_path / "labelling.json").read_text())
    assert [row["images"] for row in added["memory"]] == [4, 32] and added["rounds"] == result["rounds"]
    assert "| peak memory, 32 images of 32 sizes" in render("labelling", added)
    with pytest.raises(SystemExit):
        labelling.main([*arguments, "--images", "5"])
    assert "has 4 images" in capsys.readouterr().err


def test_students_from_shards_beside_students_from_memory(tmp_path, capsys):
    assert streaming.main(["--scale", "tiny", "--seeds", "1", "--out", str(tmp_path / "streaming.json")]) == 0
    result, scale = json.loads((tmp_path / "streaming.json").read_text()), streaming.SCALES["tiny"]
    assert result["tars"] == scale.tars and result["memory_bytes"] < result["label_bytes"] and result["rows"][0]["turns"] > 1
    assert "| memory for 4 of 8 tar files |" in render("streaming", result)
    assert result["speed"] > 0 and abs(result["difference"]) < 1 and "spread of seeds" in capsys.readouterr().out
