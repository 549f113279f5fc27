"""README tables come from result files, and disagreement is found."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from benchmarks import report

MACHINE = {"cpu": "a CPU", "packages": {"torch": "2"}, "commit": "abc", "date": "2026-01-01", "python": "3.11"}
ROW = {"suite": "student", "case": "1 x 8 x 8", "baseline": True, "dtype": "float32", "status": "measured", "p20": 9.0, "p80": 11.0, "n": 5}
PARITY = {"psnr": 30.0, "psnr_difference": 0.0, "error": 0.0, "noise_floor": 0.01, "mpixel_per_s": 1.0}


def _result(ms: float) -> dict:
    rows = [{**ROW, **PARITY, "version": "eager fp32 NCHW", "ms": 10.0}, {**ROW, **PARITY, "version": "ours", "baseline": False, "ms": ms}]
    return {"machine": MACHINE, "ceilings": {}, "sections": {}, "rows": rows}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, list[str]]:
    (tmp_path / "gpu-x.json").write_text(json.dumps(_result(5.0)))
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- table:gpu-x -->\n<!-- end -->\n\nafter\n")
    return readme, ["--texts", str(readme), "--results", str(tmp_path)]


def test_render_then_check(files: tuple[Path, list[str]]) -> None:
    readme, arguments = files
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    text = readme.read_text()
    assert "| student: 1 x 8 x 8: ours | 5 (9 to 11) | 2.00x | 2.00x |" in text and text.endswith("\n\nafter\n")
    assert report.main([*arguments, "--check"]) == 0


def test_check_finds_an_edited_number(files: tuple[Path, list[str]], capsys: pytest.CaptureFixture) -> None:
    readme, arguments = files
    report.main(arguments)
    readme.write_text(readme.read_text().replace("2.00x", "3.00x"))
    assert report.main([*arguments, "--check"]) == 1
    assert "gpu-x" in capsys.readouterr().out


def test_marker_without_result_must_be_empty_and_of_a_known_kind(tmp_path: Path) -> None:
    assert report.disagreements("<!-- table:gpu-y -->\n<!-- end -->", tmp_path) == []
    assert report.disagreements("<!-- table:gpu-y -->\n| 5 ms |\n<!-- end -->", tmp_path) == ["gpu-y"]
    with pytest.raises(KeyError, match="unknown"):
        report.update("<!-- table:unknown -->\n<!-- end -->", tmp_path)


def test_quality_joins_the_files_of_evaluate(tmp_path: Path) -> None:
    for name, psnr in (("bsd68", 28.9), ("set12", 30.0)):
        row = {
            "set": name,
            "n": 2,
            "noise": "gaussian:25",
            "clip": "none",
            "model": "gray-awgn",
            "input_psnr": 20.17,
            "psnr": psnr,
            "ssim": 0.8,
        }
        (tmp_path / f"quality-{name}.json").write_text(json.dumps([row]))
    text = report.update("<!-- table:quality -->\n<!-- end -->", tmp_path)
    assert "| bsd68 (2) | gaussian:25 | gray-awgn | 20.17 | 28.90 | 0.8000 | 28.57 | 28.88 |" in text
    assert "| set12 (2) | gaussian:25 | gray-awgn | 20.17 | 30.00 | 0.8000 |  |  |" in text


def test_compare_reports_regressions_above_noise() -> None:
    assert report.compare(_result(5.0), _result(5.2)) == ([], 0)
    lines, regressions = report.compare(_result(5.0), _result(6.0))
    assert regressions == 1 and lines[0].startswith("1.20x the time: student: 1 x 8 x 8: ours")
    assert report.compare(_result(6.0), _result(5.0))[1] == 0
    noisy = _result(6.0)
    noisy["rows"][1]["noise_floor"] = 0.3
    assert report.compare(_result(5.0), noisy) == ([], 0)
    refused = copy.deepcopy(_result(5.0))
    refused["rows"][1] |= {"status": "refused", "reason": "wrong"}
    lines, regressions = report.compare(_result(5.0), refused)
    assert regressions == 1 and "no speed any more" in lines[0]


@pytest.mark.parametrize("text", report.TEXTS, ids=lambda path: path.name)
def test_texts_agree_with_the_committed_results(text: Path) -> None:
    assert report.MARKER.search(text.read_text())
    assert report.disagreements(text.read_text()) == []


def test_committed_results_are_small() -> None:
    assert all(path.stat().st_size < 100_000 for path in report.RESULTS.glob("*"))


def test_reliability_says_what_was_asked_done_and_failed() -> None:
    row = {"goal": "G1 mutants", "asked": 1_000_000, "done": 999_000, "failures": 1, "seconds": 1234.5, "commit": "abc"}
    text = report.render("reliability", {"machine": MACHINE, "rows": [row]})
    assert "| G1 mutants | 1,000,000 | 999,000 | 1 | 1,234 |" in text
