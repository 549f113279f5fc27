"""The ratios of labelling at scale, in small."""

from __future__ import annotations

import json

from benchmarks.labelling import main


def test_a_small_run(tmp_path, capsys):
    assert main(["--images", "4", "--scale", "tiny", "--repeat", "1", "--out", str(tmp_path / "labelling.json")]) == 0
    result = json.loads((tmp_path / "labelling.json").read_text())
    assert result["images"] == 4 and len(result["rounds"]) == 1 and "engine_over_bare" in capsys.readouterr().out
    assert all(value > 0 for value in result["median"].values()) and 0 < result["median"]["computing"] <= 1
