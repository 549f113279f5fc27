"""What the sections of a GPU run write, one JSON line at a time, and one result made of the lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

START = time.monotonic()
STARTED = "started"
Key = tuple[str, str, str]  # suite, case, version


class Job(NamedTuple):
    """What a section is told: the folder for its lines, the scale, the device, and how many seconds it has."""

    folder: Path
    scale: str
    device: str
    limit: float

    def append(self, **found: Any) -> None:
        with open(self.folder / "rows.jsonl", "a") as file:
            file.write(json.dumps(found) + "\n")

    def left(self) -> float:
        return self.limit - (time.monotonic() - START)


def key(row: dict[str, Any]) -> Key:
    return row["suite"], row["case"], row["version"]


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder; a last one that was cut short is left out."""
    path, found = folder / "rows.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def merge(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Machine, ceilings, sections and rows; of several rows of one version the last counts.

    A version that was begun and has no other row took its process with it: it has failed.
    """
    result: dict[str, Any] = {"machine": {}, "ceilings": {}, "sections": {}}
    rows: dict[Key, dict[str, Any]] = {}
    for line in lines:
        for name, value in line.items():
            if name == "row":
                rows[key(value)] = value
            else:
                result[name].update(value)
    lost = {"status": "failed", "reason": "its process ended while this version was prepared"}
    return result | {"rows": [row | lost if row["status"] == STARTED else row for row in rows.values()]}
