"""Options of `python -m pytest benchmarks`."""

from __future__ import annotations

import pytest

from benchmarks.subjects import SCALES, SUITES, cases


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastbsn benchmarks")
    group.addoption("--scale", choices=SCALES, default=None, help="sizes; default gpu where there is one, else cpu")
    group.addoption("--suite", choices=SUITES, action="append", help="repeat for several; default all")
    group.addoption("--seconds", type=float, default=10.0, help="of timing per case (%(default)s)")
    group.addoption("--compile", action="store_true", help="also the torch.compile baselines, minutes each")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    import torch

    config = metafunc.config
    scale = config.getoption("scale") or ("gpu" if torch.cuda.is_available() else "cpu")
    found = [case for suite in config.getoption("suite") or SUITES for case in cases(suite, scale)]
    pairs = [(c, name) for c in found for name, v in c.versions.items() if config.getoption("compile") or v.section != "compile"]
    metafunc.parametrize(("case", "version"), pairs, ids=[f"{case.suite}: {case.name}: {name}" for case, name in pairs])
