"""Arrays of more than 2**31 elements: only the last block of a launch is run, on memory of which little is ever touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastbsn.kernels import conv, ends, runtime
from fastbsn.kernels.tuning import Config
from tests.kernels.interpreter import DEVICE, interpreter

BLOCK = 64
pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="the interpreter runs single blocks; hardware would run all of them")


@pytest.fixture(autouse=True)
def _untouched_memory(_nan_in_new_memory: None) -> Iterator[None]:
    torch.use_deterministic_algorithms(False)  # which would fill it
    yield


def run_block(monkeypatch: pytest.MonkeyPatch, block: int, call, tma: bool, **arguments) -> None:
    """Launch one program as number `block`; the interpreter does not copy the arrays."""
    read = interpreter.InterpreterBuilder.create_get_program_id

    def shifted(self, axis):
        handle = read(self, axis)
        handle.data = handle.data + block * (axis == 0)
        return handle

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_get_program_id", shifted)
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
    runtime.launch(call, (1,), tma, **arguments)


def large(rows: int, columns: int) -> Tensor:
    array = torch.empty(rows, columns, dtype=torch.float16)
    assert array.numel() > 2**31
    return array


@pytest.mark.parametrize("tma", [True, False])
def test_convolution(monkeypatch, tma):
    rows = 2**31 // 128 + BLOCK
    x, y, inside = large(rows, 128), large(rows, 128), torch.empty(rows, dtype=torch.uint8)
    x[-BLOCK:] = torch.randn(BLOCK, 128)
    inside[-BLOCK:] = 1
    w = torch.randn(128, 128).half()
    sizes = dict(P=rows, pitch=0)
    empty = dict.fromkeys(("x2", "w2", "b_ptr", "gate", "skip", "sums_ptr"))
    call = conv.conv_call(Config(BLOCK, 64, 4, 2), 128, 128, 1)
    run_block(monkeypatch, rows // BLOCK - 1, call, tma, x=x, w=w, inside_ptr=inside, y=y, **sizes, **empty)
    torch.testing.assert_close(y[-BLOCK:].float(), x[-BLOCK:].float() @ w.float(), rtol=2e-3, atol=2e-2)


def test_packed_image(monkeypatch):
    pixels = 2**31 // 16 + BLOCK
    image, packed = torch.empty(pixels, 1, 1, 1), large(pixels, 16)
    image[-BLOCK:] = torch.rand(BLOCK, 1, 1, 1)
    call = ends.pack_call(Config(BLOCK, 16, 4, 2), 1)
    run_block(monkeypatch, pixels // BLOCK - 1, call, False, image_ptr=image, packed_ptr=packed, pixels=pixels, plane=1)
    high, low, *ones = packed[-BLOCK:].float().unbind(1)
    torch.testing.assert_close(high + low, image[-BLOCK:].flatten(), rtol=1e-6, atol=1e-6)
    assert torch.stack(ones[:2]).eq(1).all() and torch.stack(ones[2:]).eq(0).all()


def test_tail(monkeypatch):
    """One image of 1 x W pixels, so that the phases of dilation 2 are two long rows (and two without pixels)."""
    c, w = 128, 2**24 + 2 * BLOCK
    pitch = w // 2 + 1
    s2, s3 = large(2 * 2 * pitch, c), torch.empty(w // 3 + 1, c, dtype=torch.float16)
    last = torch.randn(BLOCK, c).half()
    position = torch.arange(w - BLOCK, w)
    s2[position % 2 * 2 * pitch + position // 2] = last
    s3[position // 3] = 0
    weights, bias = torch.zeros(7, c, c), torch.zeros(7, c)
    weights[0] = weights[5] = weights[6] = torch.eye(c)
    weights = weights.half().view(-1, c)
    mu = torch.empty(1, 1, 1, w)
    sizes = dict(pixels=w, height=1, width=w, rows2=2, pitch2=pitch, rows3=0, pitch3=0)
    arrays = dict(s2_ptr=s2, s3_ptr=s3, b_ptr=bias, mu_ptr=mu)
    arrays |= dict.fromkeys(("w", "wp", "wc", "wn", "wo"), weights)
    call = ends.tail_call(Config(BLOCK, 64, 4, 2), c, 1, False, True)
    run_block(monkeypatch, w // BLOCK - 1, call, False, features=None, **arrays, **sizes)
    assert torch.equal(mu[0, 0, 0, -BLOCK:], last[:, 0].float().relu())
