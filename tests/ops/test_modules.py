"""Many modules in a row are the modules one by one, with and without phases."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import checks


@pytest.mark.parametrize("kind", ["residual", "mdc"])
@pytest.mark.parametrize("d", [2, 3])
def test_bodies_are_modules_in_a_row(kind, d):
    x = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    modules = [checks.random_module(8, kind, "cpu", torch.float64) for _ in range(2)]
    expected = x
    for params in modules:
        expected = checks.SINGLE[kind](expected, params, d)
    for phases in (True, False):
        assert checks.error(checks.BODIES[kind](x, modules, d, phases), expected) < 1e-13
