"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMPT = ">" * 3
FILES = sorted(p for p in (ROOT / "fastbsn").rglob("*.py") if PROMPT in p.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_examples_run(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    result = doctest.testmod(import_module(name), raise_on_error=False)
    assert result.attempted and not result.failed
