"""Modules layer by layer, as wide networks run them: the same slots as the fused kernels, between guard bands, and no more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastbsn.kernels import mdc as kernels_mdc
from fastbsn.kernels import mdc_backward, runtime, tuning
from fastbsn.kernels import residual as kernels_residual
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import place
from fastbsn.kernels.tuning import Config
from tests.kernels import checks
from tests.kernels.interpreter import DEVICE

HALF, FULL = torch.float16, torch.float32
FLAT = Flat(1, 7, 5, 2, 2)


@pytest.mark.parametrize("tma", [True, False])
def test_memory(tma, monkeypatch):
    monkeypatch.setattr(runtime, "TMA_IN_INTERPRETER", tma)
    with tuning.forced(all=Config(128, 64, 4, 2)):
        checks.check_memory(144, 136, Flat(1, 3, 4, 2, 2), 3, HALF, DEVICE)


def residual(x: Tensor, w: Tensor, bias: Tensor, inside: Tensor, keep: bool) -> list[Tensor]:
    c, y, h = x.shape[1], torch.empty_like(x), torch.empty_like(x)
    kernels_residual.residual_module(x, w[: 9 * c], w[9 * c : 10 * c], bias[:2], inside, y, FLAT.pitch, h if keep else None)
    return [y, *([h * inside[:, None]] if keep else [])]


def mdc(x: Tensor, w: Tensor, bias: Tensor, inside: Tensor, keep: bool) -> list[Tensor]:
    c, s = x.shape[1], x.new_empty(11 if keep else 4, *x.shape)
    last, w5, w3, w1 = s[10 if keep else 0], w[: 25 * c], w[25 * c : 34 * c], w[34 * c :]
    last.fill_(7)
    s[place(0, 1, keep).x] = x
    kernels_mdc.mdc_body(s[:10], w5[None], w3[None], w1[None], bias[None], inside, FLAT.pitch, keep)
    if not keep:
        return [s[3]]
    assert last.eq(7).all(), "a slot behind the module was written"
    g = x.new_empty(11, *x.shape)
    g[0] = x.flip(1)
    sums = mdc_backward.mdc_backward_module(s, g, w5, w3, w1, FLAT.pitch, x=0, y=9, dy=0, t2=1, dx=10)
    return [*s[:3], *(s[3:9] * inside[:, None]), s[9], *g, sums.sum(0)]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("module", [residual, mdc])
def test_as_fused(module, keep, monkeypatch):
    """Every slot, forward and backward, with `tuning.WIDEST` below the channels and above them."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, inside = FLAT.pack(torch.randn(1, 24, 7, 5, device=DEVICE)), FLAT.inside(torch.device(DEVICE))
    w, bias = torch.randn(42 * 24, 24, device=DEVICE) * 0.1, torch.randn(8, 24, device=DEVICE)
    fused = module(x, w, bias, inside, keep)
    monkeypatch.setattr(tuning, "WIDEST", 16)
    monkeypatch.setattr(kernels_mdc, "mdc_first_call", None)
    monkeypatch.setattr(kernels_residual, "residual_call", None)
    for i, (got, wanted) in enumerate(zip(module(x, w, bias, inside, keep), fused, strict=True)):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4, msg=lambda m, i=i: f"array {i}: {m}")
