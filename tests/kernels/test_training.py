"""Training through the kernels follows the reference."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fastbsn import ops
from fastbsn.nets import DBSN
from fastbsn.training import ImageSet, LoopConfig, TeacherConfig, train_teacher
from tests.kernels.interpreter import DEVICE
from tests.reliability.numbers import cases


def losses(net: DBSN, backend: str, steps: int) -> list[float]:
    net, found = copy.deepcopy(net).to(DEVICE), []
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    with ops.backend(backend):
        for _ in range(steps):
            clean = torch.rand(2, 1, 1, 1, generator=generator).expand(2, 1, 7, 6)
            y = (clean + 0.1 * torch.randn(2, 1, 7, 6, generator=generator)).to(DEVICE)
            loss = ((net(y)[0] - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


@pytest.mark.parametrize(("variant", "steps"), [("light", 8), ("paper", 3)])
def test_loss_curve(variant, steps):
    net = DBSN(1, 8, 1, variant)
    ours, theirs = losses(net, "triton", steps), losses(net, "reference", steps)
    assert torch.tensor(ours).isfinite().all()
    if variant == "light":
        assert theirs[-1] < 0.7 * theirs[0]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-5)


def test_the_training_loop_follows_the_reference(tmp_path):
    """`train_teacher` itself, L2 and likelihood phases, a minute of it in a full run."""
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([np.clip(0.5 + 0.1 * rng.standard_normal((16, 16)), 0, 1).astype(np.float32) for _ in range(4)])
    steps, curves = cases("one minute of training, steps"), []
    for backend in ("triton", "reference"):
        output = tmp_path / f"{backend}.safetensors"
        config = TeacherConfig(noise="heteroscedastic", channels=8, modules=1, batch=2, crop=8)
        train_teacher(images, output, LoopConfig(steps=steps, log_steps=2), config, DEVICE, progress=False, backend=backend)
        curves.append(np.loadtxt(tmp_path / f"{backend}.safetensors.run/log.csv", delimiter=",", skiprows=1)[:, 2])
    ours, theirs = curves
    assert len(ours) == steps // 2 and np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
