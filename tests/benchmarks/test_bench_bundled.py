"""The bundled models beside each other: a row for each, and the ratio of a fast one to its sister."""

from __future__ import annotations

import json

from benchmarks.bundled import main
from fastbsn import list_models


def test_fast_models_are_compared_with_their_sisters(tmp_path, capsys):
    main(["--sizes", "64x48", "--threads", "1", "--seconds", "0.1", "-o", str(tmp_path / "out.json")])
    rows = {r["model"]: r for r in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert list(rows) == list_models()
    for name, row in rows.items():
        assert row["seconds"] > 0 and ("ratio" in row) == name.endswith("-fast")
        if "ratio" in row:
            assert row["ratio"] == rows[name.removesuffix("-fast")]["seconds"] / row["seconds"]
    assert "| 64 x 48 | 1 | color-photo-fast |" in capsys.readouterr().out
