"""The table of failures: every case is measured for every model, and cases are the same for all of them."""

from __future__ import annotations

import json

from benchmarks.failures import main


def test_cases_of_two_models(tmp_path, capsys):
    assert main(["--models", "gray-awgn", "color-awgn", "--side", "40", "-o", str(tmp_path / "f.json")]) == 0
    gray, colour = json.loads((tmp_path / "f.json").read_text())["models"]
    assert (gray["model"], colour["model"]) == ("gray-awgn", "color-awgn")
    assert {r["noise"] for r in colour["rows"]} - {r["noise"] for r in gray["rows"]} == {
        f"white 25, channels {r}" for r in ("0", "0.25", "0.5", "0.75", "1")
    }
    for m in (gray, colour):
        strong = [r for r in m["rows"] if r["noise"] == "white 50" and r["picture"] != "gray"]
        assert len(strong) == 9 and all(r["output"] > r["input"] + 1 for r in strong)
        assert all(r["input"] is None for r in m["rows"] if r["noise"] == "none")
        assert 0 < m["noise left in a flat area"]["5"] < 1 and m["letterbox"]["boxed"] > 15
    assert "white" in capsys.readouterr().out
