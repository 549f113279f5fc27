"""The student's training through the kernels: against float64, in the eyes of PyTorch, and in the loop."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbsn import ops
from fastbsn.ops.unet import unet_body
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, distill
from fastbsn.training.labels import LabelSet
from tests.conftest import SEED
from tests.kernels import checks, student_checks
from tests.kernels.interpreter import DEVICE
from tests.kernels.test_training import check_curves
from tests.reliability.numbers import cases

HALF, BF16, FULL = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("inputs", "channels", "depth", "n", "tiles", "dtype"),
    [
        (1, 6, 1, 1, (1, 1), FULL),
        (3, 12, 2, 2, (2, 3), FULL),
        (3, 24, 2, 2, (3, 5), HALF),
        (3, 48, 2, 1, (5, 4), BF16),
        (2, 18, 3, 3, (1, 2), FULL),
        (9, 12, 5, 1, (1, 1), HALF),
    ],
)
def test_against_float64(inputs, channels, depth, n, tiles, dtype):
    student_checks.check_student(inputs, channels, depth, n, tiles, dtype, DEVICE)


@pytest.mark.parametrize("i", range(cases("G8 shapes of the student")))
def test_random_shapes(i):
    draw = random.Random(1000 * SEED + i)
    torch.manual_seed(1000 * SEED + i)
    depth, tiles = draw.randint(1, 3), (draw.randint(1, 3), draw.randint(1, 3))
    student_checks.check_student(
        draw.randint(1, 4), 6 * draw.randint(1, 4), depth, draw.randint(1, 3), tiles, draw.choice((HALF, BF16)), DEVICE
    )


@pytest.mark.parametrize(
    ("n", "c", "h", "w", "dtype"), [(1, 8, 1, 1, FULL), (3, 16, 5, 7, HALF), (2, 24, 8, 15, BF16), (1, 136, 3, 2, HALF)]
)
def test_resampling(n, c, h, w, dtype):
    student_checks.check_resampling(n, c, h, w, dtype, DEVICE)


def test_opcheck():
    net = student_checks.random_student(3, 6, 1).to(DEVICE)
    weights, biases = [c.weight for c in net.convolutions], [c.bias for c in net.convolutions]
    image = torch.rand(1, 3, 2, 4, device=DEVICE, requires_grad=True)
    torch.library.opcheck(unet_body, (image, weights, biases, 0.1, True))


def test_the_image_gets_a_gradient_only_where_it_is_wanted():
    net, x = student_checks.random_student(1, 6, 1).to(DEVICE), torch.rand(1, 1, 4, 4, device=DEVICE)
    with ops.backend("triton"):
        net.estimated_noise(x).sum().backward()
    assert x.grad is None and net.enc0.weight.grad.isfinite().all()


def test_compiled_network_is_one_graph():
    net, x = student_checks.random_student(3, 6, 1).to(DEVICE), torch.rand(1, 3, 5, 4, device=DEVICE)
    with ops.backend("triton"), torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        assert checks.error(compiled(x), net(x)) < 1e-6


def test_only_by_name(monkeypatch):
    """Nothing has shown yet that these kernels beat cuDNN in the student's training."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert not ops.dispatch.use_triton(torch.rand(1, 3, 4, 4).half(), trial=("unet", (3, 48, 3)), automatic=False)


def test_the_training_loop_follows_the_reference(tmp_path, monkeypatch):
    """`distill` itself, a minute of it in a full run."""
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([np.clip(0.5 + 0.1 * rng.standard_normal((16, 16, 3)), 0, 1).astype(np.float32) for _ in range(4)])
    labels = LabelSet(images, [0.1] * 4, [0.02] * 4, "gaussian", noisy=images, digest="x")

    def run(output: Path, loop: LoopConfig, backend: str) -> None:
        config = StudentConfig(channels=6, depth=1, batch=2, crop=8)
        distill(labels, output, loop, config, device=DEVICE, progress=False, backend=backend)

    check_curves(run, cases("G8 steps of training"), tmp_path, monkeypatch)
