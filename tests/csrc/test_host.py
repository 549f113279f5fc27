"""The CPU executor of the extension's plan against float64, and under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ..conftest import SEED
from .conftest import ROOT, compile_cpp, random_unet, run_on_host

Library = Callable[[str], ctypes.CDLL]


def bf16_bound(net: torch.nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """float64 result and the error (L2, relative to the residual) that PyTorch itself has in bfloat16."""
    with torch.no_grad():
        exact = net.double()(x.double())
        eager = net.bfloat16()(x.bfloat16()).double()
    net.float()
    return exact, ((eager - exact).norm() / (exact - x).norm()).item()


def random_cases() -> list[tuple[int, int, int, tuple[int, int, int]]]:
    draw = random.Random(SEED)
    return [
        (draw.randint(1, 5), 6 * draw.randint(1, 4), draw.randint(1, 5), (draw.randint(1, 3), draw.randint(1, 50), draw.randint(1, 50)))
        for _ in range(6)
    ]


@pytest.mark.parametrize(
    "in_channels, channels, depth, shape",
    [
        (1, 6, 5, (1, 1, 1)),
        (3, 6, 1, (2, 1, 2)),
        (3, 12, 2, (3, 5, 7)),
        (1, 18, 3, (1, 37, 41)),
        (3, 48, 2, (1, 13, 31)),
        (4, 24, 5, (2, 33, 31)),
        *random_cases(),
    ],
)
def test_equals_float64_within_bf16(library: Library, in_channels: int, channels: int, depth: int, shape: tuple[int, int, int]) -> None:
    net = random_unet(in_channels, channels, depth)
    weight = net.out.weight.detach().clone()
    x = torch.rand(shape[0], in_channels, *shape[1:])
    exact, eager_error = bf16_bound(net, x)
    with torch.no_grad():
        net.out.weight.copy_(weight)  # the round trip through bfloat16 rounded the parameters
    y = run_on_host(library("host.cpp"), net, x)
    error = ((y.double() - exact).norm() / (exact - x).norm()).item()
    assert error <= 2 * eager_error + 1e-6


def test_tiles_do_not_change_a_bit(library: Library) -> None:
    net, x = random_unet(3, 12, 3), torch.rand(2, 3, 45, 59)
    whole = run_on_host(library("host.cpp"), net, x, processors=1)
    for shared, processors in ((49152, 64), (20000, 1), (12000, 500)):
        assert torch.equal(run_on_host(library("host.cpp"), net, x, shared, processors), whole)


@pytest.mark.parametrize("dtype, top", [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integer_frames_are_scaled_rounded_and_clamped(library: Library, dtype: torch.dtype, top: int) -> None:
    net = random_unet(3, 6, 2)
    frame = torch.randint(0, top + 1, (2, 3, 11, 9)).to(dtype)
    scale = torch.tensor(1 / top, dtype=torch.float32)
    expected = run_on_host(library("host.cpp"), net, frame.float() * scale) / scale
    assert expected.min() < 0 and expected.max() > top  # so that clamping shows
    assert torch.equal(run_on_host(library("host.cpp"), net, frame).int(), expected.round().clamp(0, top).int())


def test_half_frames(library: Library) -> None:
    net, frame = random_unet(1, 6, 1), torch.cat([torch.rand(1, 1, 7, 9), 1e-6 * torch.rand(1, 1, 7, 9)]).half()
    expected = run_on_host(library("host.cpp"), net, frame.float())
    assert torch.equal(run_on_host(library("host.cpp"), net, frame), expected.half())


def test_refusals_say_why(library: Library) -> None:
    net = random_unet(1, 48, 1)
    with pytest.raises(ValueError, match="shared memory than the 1 KiB"):
        run_on_host(library("host.cpp"), net, torch.rand(1, 1, 4, 4), shared=2000)
    with pytest.raises(ValueError, match="depth 1 to 16"):
        run_on_host(library("host.cpp"), net, torch.rand(1, 1, 4, 4), depth=17)


def test_sanitizers(tmp_path: Path) -> None:
    flags = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = compile_cpp(tmp_path / "sanitize", ROOT / "tests/csrc/sanitize.cpp", ROOT / "csrc/plan.cpp", flags=flags)
    done = subprocess.run(
        [program, str(SEED)], capture_output=True, text=True, env={**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "blocks" in done.stdout
