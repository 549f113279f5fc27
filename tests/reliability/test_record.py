"""The record of reliability goals: parts add up, another run of a goal replaces it, other goals stay."""

import json

from tests.reliability import numbers


def row(goal: str, done: int, failures: int = 0) -> numbers.Row:
    return {"goal": goal, "asked": 10, "done": done, "failures": failures, "seconds": 1.5, "commit": None}


def test_parts_add_up_and_runs_replace(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    numbers.record(path, [row("G10 b", 9, 1), row("G2 a", 10)])
    numbers.record(path, [row("G10 b", 10)])
    monkeypatch.setattr(numbers, "PARTS", 5)
    numbers.record(path, [row("G2 a", 7, 1)])
    rows = json.loads(path.read_text())["rows"]
    assert [r["goal"] for r in rows] == ["G2 a", "G10 b"]
    assert (rows[0]["asked"], rows[0]["done"], rows[0]["failures"], rows[0]["seconds"]) == (20, 17, 1, 3.0)
    assert (rows[1]["asked"], rows[1]["done"], rows[1]["failures"]) == (10, 10, 0)
    assert numbers.cases("G17 repeats") == 20
