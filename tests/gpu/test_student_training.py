"""The checks of the student's training kernels on hardware. Run with `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn import ops
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, distill
from fastbsn.training.labels import LabelSet
from tests.kernels import checks, student_checks

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]
HALF, BF16 = torch.float16, torch.bfloat16
DEVICE = "cuda"


@pytest.mark.parametrize("dtype", [HALF, BF16])
@pytest.mark.parametrize(
    ("inputs", "channels", "depth", "n", "tiles"),
    [(3, 48, 5, 4, (3, 3)), (1, 48, 5, 1, (1, 1)), (3, 24, 3, 2, (9, 5)), (4, 96, 4, 1, (6, 11))],
)
def test_against_float64(inputs, channels, depth, n, tiles, dtype):
    student_checks.check_student(inputs, channels, depth, n, tiles, dtype, DEVICE)


@pytest.mark.parametrize(
    ("n", "c", "h", "w", "dtype"), [(1, 8, 1, 1, HALF), (3, 48, 37, 53, BF16), (2, 96, 64, 31, HALF), (1, 200, 7, 9, BF16)]
)
def test_resampling(n, c, h, w, dtype):
    student_checks.check_resampling(n, c, h, w, dtype, DEVICE)


def test_hundred_gradients_are_bit_equal():
    net = student_checks.random_student(3, 48, 3).to(DEVICE, BF16)
    x = torch.rand(2, 3, 48, 64, device=DEVICE, dtype=BF16)
    checks.check_repeats(lambda: torch.cat([g.flatten() for g in student_checks.gradients(net, x, torch.ones_like(x), "triton")[1]]), 100)


def test_the_training_loop_follows_the_reference(tmp_path):
    """`distill` itself, its step captured in a CUDA graph."""
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([np.clip(0.5 + 0.1 * rng.standard_normal((64, 64, 3)), 0, 1).astype(np.float32) for _ in range(8)])
    labels = LabelSet(images, [0.1] * 8, [0.02] * 8, "gaussian", noisy=images, digest="x")
    curves = []
    for backend in ("triton", "reference"):
        output = tmp_path / f"{backend}.safetensors"
        config = StudentConfig(depth=3, batch=8, crop=32)
        distill(labels, output, LoopConfig(steps=200, log_steps=20), config, device=DEVICE, progress=False, backend=backend)
        curves.append(np.loadtxt(tmp_path / f"{backend}.safetensors.run/log.csv", delimiter=",", skiprows=1)[:, 2])
    ours, theirs = curves
    assert np.isfinite(ours).all() and ours[-1] < ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=5e-2)


def test_compiled_with_inductor():
    net, x = student_checks.random_student(3, 48, 2).to(DEVICE, BF16), torch.rand(1, 3, 40, 44, device=DEVICE, dtype=BF16)
    with ops.backend("triton"), torch.no_grad():
        compiled = torch.compile(net, fullgraph=True)
        assert checks.error(compiled(x), net(x)) < 2e-2
