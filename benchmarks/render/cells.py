"""What all tables are made of: Markdown, numbers and the line about the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns are left-aligned, the others right-aligned."""
    lines = [head, ["---"] * texts + ["--:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float | None, digits: int, sign: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def machine(found: Row) -> str:
    """One line: hardware, versions, commit, date."""
    gpu = [f"{found['gpu']} (driver {found.get('driver')})"] if "gpu" in found else []
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if name in ("torch", "triton"))
    return "; ".join([*gpu, found["cpu"], versions, f"commit {found['commit']}", found["date"]]) + "."
