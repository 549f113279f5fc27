"""The prepared teacher, end to end: both variants, odd sizes, blind spot, refusals."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from fastbsn.backends import triton
from fastbsn.errors import BackendError, InputError
from fastbsn.kernels import tuning
from fastbsn.kernels.tuning import Config
from fastbsn.nets import DBSN, UNet
from tests.kernels import checks
from tests.kernels.interpreter import DEVICE

WHERE = torch.device(DEVICE)


@pytest.mark.parametrize(
    ("variant", "c", "modules", "shape", "dtype", "features"),
    [
        ("light", 8, 1, (1, 1, 1, 1), torch.float32, True),
        ("light", 24, 2, (2, 3, 7, 5), torch.float16, True),
        ("light", 16, 1, (1, 4, 12, 6), torch.bfloat16, False),
        ("paper", 8, 1, (1, 1, 2, 3), torch.float32, False),
        ("paper", 16, 2, (1, 3, 8, 7), torch.float16, True),
        ("paper", 8, 1, (2, 8, 5, 4), torch.float16, False),
        ("light", 136, 1, (1, 3, 3, 4), torch.float16, True),
        ("paper", 136, 1, (1, 1, 4, 3), torch.bfloat16, False),
    ],
)
def test_prepared_teacher(variant, c, modules, shape, dtype, features):
    checks.check_teacher(variant, c, modules, shape, dtype, features, DEVICE)


@pytest.mark.parametrize(("variant", "c"), [("light", 8), ("paper", 8), ("light", 136)])
def test_blind_spot(variant, c):
    with tuning.forced(all=Config(256, min(2 * c, 64), 8, 2)) if DEVICE == "cpu" else nullcontext():
        checks.check_blind_spot(variant, c, 4, torch.float16, DEVICE)


def test_other_sizes_and_repeats_use_their_own_buffers(monkeypatch):
    monkeypatch.setattr(triton, "SIZES", 1)
    net = triton.prepare(checks.random_teacher("light", 8, 1).to(DEVICE), WHERE, torch.float16)
    x, y = torch.rand(1, 3, 4, 5, device=DEVICE), torch.rand(1, 3, 3, 2, device=DEVICE)
    first, features = net(x)
    net(y)
    again, features_again = net(x)
    assert torch.equal(first, again) and torch.equal(features, features_again)


def test_refusals():
    def why_not(net, dtype=torch.bfloat16):
        return triton.why_not(net, WHERE, dtype)

    assert why_not(DBSN(3, 16, 1)) is None
    assert "UNet" in why_not(UNet())
    assert "blind_spot='plain'" in why_not(DBSN(3, 16, 1, blind_spot="plain"))
    assert "20 channels; expected a multiple of 8" in why_not(DBSN(3, 20, 1))
    assert "float64" in why_not(DBSN(3, 16, 1), torch.float64)
    assert "the image has 32 channels" in why_not(DBSN(32, 32, 1))
    with pytest.raises(BackendError, match="'triton'.*UNet"):
        triton.prepare(UNet(), WHERE, torch.bfloat16)
    for c in (16, 136):
        net = triton.prepare(DBSN(3, c, 1), WHERE, torch.float16)
        with pytest.raises(InputError, match=r"\(1, 4, 8, 8\).*\[N, 3, H, W\]"):
            net(torch.rand(1, 4, 8, 8, device=DEVICE))
