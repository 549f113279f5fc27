"""Figures from a result file: a roofline and bars of Mpixel/s, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastbsn.io.atomic import atomic_file

BASELINE, OURS = "tab:gray", "tab:blue"


def _save(figure: Any, path: Path) -> Path:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
    return path


def _colour(row: dict[str, Any]) -> str:
    return BASELINE if row["baseline"] else OURS


def roofline(result: dict[str, Any], path: Path) -> Path | None:
    """Rate over arithmetic intensity (operations per compulsory byte), under the ceilings of the same run."""
    from matplotlib.figure import Figure

    rows = [r for r in result["rows"] if r["status"] == "measured" and r.get("mbyte") and "roofline" in r]
    copy = result["ceilings"].get("copy_gb_per_s")
    rates = {k.split("_")[1]: v for k, v in result["ceilings"].items() if k.startswith("matmul")}
    if not rows or not copy or not rates:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    intensity = [r["gflop"] / r["mbyte"] * 1e3 for r in rows]
    low, high = min(intensity) / 4, max(intensity) * 4
    for name, rate in rates.items():
        knee = min(max(rate * 1e3 / copy, low), high)
        roof = [min(rate, x * copy / 1e3) for x in (low, knee, high)]
        axes.plot([low, knee, high], roof, linewidth=1, label=f"{name} matmul {rate:g} TFLOP/s, copy {copy:g} GB/s")
    for r, x in zip(rows, intensity, strict=True):
        axes.scatter(x, r["tflop_per_s"], color=_colour(r), s=18, zorder=3)
    axes.scatter([], [], color=BASELINE, s=18, label="PyTorch baselines")
    axes.scatter([], [], color=OURS, s=18, label="fastbsn")
    axes.set(
        xscale="log", yscale="log", xlim=(low, high), xlabel="operations per compulsory byte", ylabel="TFLOP/s of the reference network"
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return _save(figure, path)


def bars(result: dict[str, Any], path: Path, suites: tuple[str, ...] = ("student", "teacher")) -> Path | None:
    """Mpixel/s of every measured version, one panel per case."""
    from matplotlib.figure import Figure

    rows = [r for r in result["rows"] if r["status"] == "measured" and r["suite"] in suites]
    cases = list(dict.fromkeys((r["suite"], r["case"]) for r in rows))
    if not cases:
        return None
    groups = [[r for r in rows if (r["suite"], r["case"]) == case] for case in cases]
    figure = Figure(figsize=(8, 0.8 + sum(0.6 + 0.22 * len(g) for g in groups)), layout="constrained")
    panels = figure.subplots(len(cases), 1, squeeze=False, height_ratios=[len(g) + 1 for g in groups])[:, 0]
    for axes, case, group in zip(panels, cases, groups, strict=True):
        group = sorted(group, key=lambda r: r["mpixel_per_s"])
        axes.barh([r["version"] for r in group], [r["mpixel_per_s"] for r in group], color=[_colour(r) for r in group])
        axes.set_title(f"{case[0]}: {case[1]}", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3, axis="x")
    panels[-1].set_xlabel("Mpixel/s")
    return _save(figure, path)


def draw(result: dict[str, Any], folder: Path, prefix: str) -> list[Path]:
    """Both figures into `folder`; those without data are left out."""
    made = [roofline(result, folder / f"{prefix}-roofline.png"), bars(result, folder / f"{prefix}-bars.png")]
    return [path for path in made if path]
