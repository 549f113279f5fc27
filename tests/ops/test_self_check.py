"""The self-check of the operations, run by the interpreter: right kernels pass, wrong ones do not."""

from __future__ import annotations

import pytest
import torch

from fastbsn import ops
from fastbsn.errors import BackendError
from fastbsn.ops import dispatch, self_check
from tests.kernels.interpreter import DEVICE

TRIALS = {"masked_conv2d": (8, 16, 3), "residual_modules": (16,), "mdc_modules": (8,), "unet": (3, 12, 2)}
HERE = torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)


@pytest.fixture(autouse=True)
def first_use(monkeypatch):
    monkeypatch.setattr(self_check, "_results", {})
    monkeypatch.setattr(self_check, "interpreted", lambda device: False)


def test_every_operation_has_a_trial():
    assert dispatch.TRIALS.keys() == TRIALS.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TRIALS)
def test_right_kernels_pass(name, dtype):
    with torch.inference_mode():
        assert dispatch.failure(HERE.type, 0, dtype, name, TRIALS[name]) is None
    assert dispatch._choice.name == "auto"


def test_activations_stay_away_from_zero():
    """Where a rounding would turn the derivative of a ReLU over, in one implementation and not in the other."""
    for name in ("masked_conv2d", "residual_modules", "mdc_modules"):
        got, own, exact = dispatch._runs(HERE, torch.bfloat16, name, TRIALS[name])
        assert self_check.judge(own, own, exact, torch.bfloat16).error < 0.02, name


def test_wrong_kernels_raise_their_numbers_by_name(monkeypatch):
    original = ops.residual.residual_body
    monkeypatch.setattr(ops.residual, "residual_body", lambda *a: (1.05 * original(*a)[0], None))
    x, params = torch.rand(1, 8, 5, 4, device=DEVICE).half(), [(torch.rand(8, 8, 3, 3).half(), torch.rand(8).half())]
    params.append((torch.rand(8, 8, 1, 1).half(), torch.rand(8).half()))
    with ops.backend("triton"), pytest.raises(BackendError, match="residual_modules are not used on .*: self-check failed: error 0.05"):
        ops.residual_module(x, params)
