"""Training through the kernels follows the reference."""

from __future__ import annotations

import copy

import pytest
import torch

from fastbsn import ops
from fastbsn.nets import DBSN
from tests.kernels.interpreter import DEVICE


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
