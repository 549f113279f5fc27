"""What a person looks at while training runs: a CSV log, a curve, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

from fastbsn.io.atomic import atomic_file


class CsvLog:
    """A log with one header line. Lines after step `keep_until` (written after the last checkpoint) are dropped."""

    def __init__(self, path: Path, columns: tuple[str, ...], keep_until: int = 0):
        self.path = path
        rows = [r for r in read_log(path) if int(r["step"]) <= keep_until] if keep_until else []
        with atomic_file(path) as f:
            lines = [",".join(columns), *(",".join(r[c] for c in columns) for r in rows)]
            f.write(("\n".join(lines) + "\n").encode())

    def write(self, *values: Any) -> None:
        with open(self.path, "a", newline="") as f:
            csv.writer(f, lineterminator="\n").writerow(values)


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    with open(path, newline="") as f:
        return [row for row in csv.DictReader(f) if None not in row.values()]


def draw_curve(log: Path, picture: Path) -> None:
    """Loss over steps as a PNG; nothing where matplotlib is not installed."""
    rows = read_log(log)
    if len(rows) < 2 or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], linewidth=1)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    with atomic_file(picture) as f:
        figure.savefig(f, format="png", dpi=100)


def tensorboard_writer(folder: Path) -> Any:
    """A SummaryWriter, or None where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
