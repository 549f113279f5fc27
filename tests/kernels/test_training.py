"""Training through the kernels follows the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbsn import ops
from fastbsn.nets import DBSN
from fastbsn.training import ImageSet, LoopConfig, TeacherConfig, train_teacher
from tests.kernels.interpreter import DEVICE
from tests.reliability.numbers import cases

SHORT = 12  # steps


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


def check_curves(run: Callable[[Path, LoopConfig, str], None], steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the losses through the kernels are those of PyTorch. In mixed precision the first ones are no further from them than
    twice PyTorch's own; later on roundings have led the two to different networks."""

    def losses(name: str, steps: int, backend: str, mixed: bool) -> np.ndarray:
        with monkeypatch.context() as patched:
            if not mixed:
                patched.setattr(torch.autocast, "__enter__", lambda self: self)
                patched.setattr(torch.autocast, "__exit__", lambda *_: None)
            run(folder / name, LoopConfig(steps=steps, log_steps=2), backend)
        found = np.loadtxt(folder / f"{name}.run/log.csv", delimiter=",", skiprows=1)[:, 2]
        assert len(found) == steps // 2 and np.isfinite(found).all()
        return found

    exact = losses("exact", steps, "reference", mixed=False)
    np.testing.assert_allclose(losses("kernels", steps, "triton", mixed=False), exact, rtol=1e-3, atol=1e-5)
    exact = losses("exact short", SHORT, "reference", mixed=False) if steps > SHORT else exact
    ours, theirs = (np.linalg.norm(losses(f"mixed {b}", SHORT, b, mixed=True) - exact) for b in ("triton", "reference"))
    bound = 2 * theirs + 1e-5 * np.linalg.norm(exact)
    assert ours <= bound, f"mixed precision: {ours:.2e} from the losses in float32; bound {bound:.2e}"


@pytest.mark.parametrize(("variant", "steps"), [("light", 8), ("paper", 3)])
def test_loss_curve(variant, steps):
    net = DBSN(1, 8, 1, variant)
    ours, theirs = losses(net, "triton", steps), losses(net, "reference", steps)
    assert torch.tensor(ours).isfinite().all()
    if variant == "light":
        assert theirs[-1] < 0.7 * theirs[0]
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-5)


def test_the_training_loop_follows_the_reference(tmp_path, monkeypatch):
    """`train_teacher` itself, L2 and likelihood phases, a minute of it in a full run."""
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([np.clip(0.5 + 0.1 * rng.standard_normal((16, 16)), 0, 1).astype(np.float32) for _ in range(4)])

    def run(output: Path, loop: LoopConfig, backend: str) -> None:
        config = TeacherConfig(noise="heteroscedastic", channels=8, modules=1, batch=2, crop=8)
        train_teacher(images, output, loop, config, DEVICE, progress=False, backend=backend)

    check_curves(run, cases("G8 steps of training"), tmp_path, monkeypatch)
