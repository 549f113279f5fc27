"""The table of failures: what models do to drawn pictures, before and after a training."""

from __future__ import annotations

from typing import Any

from benchmarks.render.cells import Row, machine, number, table


def failures(result: Row) -> str:
    """A model per block of rows: gain over the input by picture and noise; two models of one `name` are before -> after."""
    models = result["models"]
    names = list(dict.fromkeys(m["model"].split(",")[0] for m in models))
    groups = {name: [m for m in models if m["model"].split(",")[0] == name] for name in names}
    return "\n\n".join([*(_gains(name, group) for name, group in groups.items()), _others(models), machine(result["machine"])])


def _gains(name: str, models: list[Row]) -> str:
    cells: dict[tuple[str, str], list[str]] = {}
    for m in models:
        for r in m["rows"]:
            if r["noise"] != "none" and "channels" not in r["noise"]:
                gain = None if None in (r["input"], r["output"]) else r["output"] - r["input"]
                cells.setdefault((r["picture"], r["noise"]), []).append(number(gain, 1, sign=True))
    pictures, noises = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    rows = [[p, *(" to ".join(cells.get((p, n), [])) for n in noises)] for p in pictures]
    return table([f"{name}: gain, dB", *noises], rows)


def _others(models: list[Row]) -> str:
    def alike(m: Row) -> str:
        found = [r["output"] for r in m["rows"] if "channels" in r["noise"]]
        return " / ".join(f"{v:.1f}" for v in found)

    def row(m: Row) -> list[Any]:
        kept = m["noise left in a flat area"]
        box = m["letterbox"]
        return [m["model"], *(f"{100 * kept[s]:.0f} %" for s in ("2", "5")), number(box["boxed"] - box["alone"], 2, sign=True), alike(m)]

    head = ["model", "left in flat areas, sigma 2", "sigma 5", "beside bars, dB", "channels alike 0 to 1, sigma 25, dB"]
    return table(head, [row(m) for m in models])
