"""Tables of README.md and NOTES.md, and figures, from the result files: `python -m benchmarks.report [--check | --compare OLD NEW]`.

A table stands between `<!-- table:NAME -->` and `<!-- end -->` and comes from results/NAME.json; the kind of table is NAME
up to its first dash, so that results/gpu-h100.json is a table of kind "gpu". Tables of kind "quality" join all results/NAME*.json. A
table without a result file stays empty.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import ROOT
from benchmarks.render.figures import draw
from benchmarks.render.tables import TABLES, render
from fastbsn.io.atomic import write_text

RESULTS = ROOT / "benchmarks" / "results"
MARKER = re.compile(r"<!-- table:(?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
TEXTS = [ROOT / "README.md", ROOT / "benchmarks" / "NOTES.md"]
NOTICEABLE = 0.05  # of the time; below it, or below the noise floor of either run, a change is not reported


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def _render(name: str, results: Path) -> str:
    """The table's lines, or nothing where there is no result."""
    kind = name.split("-")[0]
    if kind not in TABLES:
        raise KeyError(f"table:{name}; expected a name that begins with one of {', '.join(TABLES)}")
    files = sorted(results.glob(f"{name}*.json")) if kind == "quality" else [results / f"{name}.json"]
    found = [load(path) for path in files if path.exists()]
    if not found:
        return ""
    return render(kind, sum(found, []) if kind == "quality" else found[0]) + "\n"


def update(text: str, results: Path = RESULTS) -> str:
    """`text` with every marked table rendered anew; KeyError for a marker of no known kind."""
    return MARKER.sub(lambda m: f"<!-- table:{m['name']} -->\n{_render(m['name'], results)}<!-- end -->", text)


def disagreements(text: str, results: Path = RESULTS) -> list[str]:
    """Names of tables in `text` that are not what their result files say."""
    return [m["name"] for m in MARKER.finditer(text) if m["body"] != _render(m["name"], results)]


def _speeds(result: dict[str, Any]) -> dict[tuple[str, str, str], tuple[float, float]]:
    rows = [r for r in result["rows"] if r["status"] == "measured"]
    return {(r["suite"], r["case"], r["version"]): (r["ms"], r.get("noise_floor", 0.0)) for r in rows}


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """Lines on rows whose time changed or that are gone, worst first, and the number of regressions."""
    before, after = _speeds(old), _speeds(new)
    changed = []
    for key in before.keys() & after.keys():
        ratio = after[key][0] / before[key][0]
        if abs(ratio - 1) > max(NOTICEABLE, before[key][1], after[key][1]):
            changed.append((ratio, key))
    lines = [f"{ratio:.2f}x the time: {': '.join(key)}" for ratio, key in sorted(changed, reverse=True)]
    reasons = {(r["suite"], r["case"], r["version"]): f"{r['status']} ({r['reason']})" for r in new["rows"] if r["status"] != "measured"}
    gone = [f"no speed any more: {': '.join(key)}: {reasons[key]}" for key in sorted(before.keys() - after.keys()) if key in reasons]
    return gone + lines, len(gone) + sum(ratio > 1 for ratio, _ in changed)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", default=TEXTS, help="files with tables (README.md and benchmarks/NOTES.md)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if README and results disagree")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two result files; exit code 1 on a regression")
    args = parser.parse_args(argv)
    if args.compare:
        lines, regressions = compare(*(load(path) for path in args.compare))
        print("\n".join([*lines, f"{len(lines)} changes, {regressions} regressions"]))
        return int(regressions > 0)
    if args.check:
        wrong = [f"{path.name}: {name}" for path in args.texts for name in disagreements(path.read_text(), args.results)]
        print(f"not what the results say: {', '.join(wrong)}; run python -m benchmarks.report" if wrong else "texts and results agree")
        return int(bool(wrong))
    for path in args.texts:
        write_text(path, update(path.read_text(), args.results))
    for path in sorted(args.results.glob("*.json")):
        if path.stem.split("-")[0] in ("cpu", "gpu"):
            for figure in draw(load(path), args.results, path.stem):
                print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
