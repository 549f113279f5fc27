"""Muon for convolutions: momentum whose singular values are all made about one. Jordan et al., 2024; Adam for everything else.

Measured on this project's student (gray, blind, 3 minutes on one CPU core, 20 training images, sigma 25): 28.55 dB, Adam 27.92 dB, both
without decay. Decay does not pay in short runs (400 steps of the speed run's track "ci", mean of three seeds: 25.51 dB, without it 25.65),
but without it the spectral norms of a student's layers grew from 2 to 6 in 20,000 steps. A student trained so made up patterns in pictures
whose colours it had not seen; decay is one of three remedies, see benchmarks/results/weights.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pushes singular values in (0, 1] towards one, Jordan et al.
ITERATIONS = 5
SMALLEST = 16  # channels in and out; the first and last layers of an image network are left to Adam
RATIO = 10.0  # of the rate of matrices to that of Adam
DECAY = 0.1  # of matrices, times their rate


def is_matrix(p: Tensor) -> bool:
    """Whether `p` is a convolution weight [out, in, ...] that is updated as the matrix [out, in * taps]."""
    return p.ndim >= 3 and min(p.shape[:2]) >= SMALLEST


def orthogonalize(matrix: Tensor) -> Tensor:
    """[..., m, n] with singular values s -> the same singular vectors with values near one, for s not tiny against the largest."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Optimizer of the training loop; fit for CUDA graphs: a rate that is a tensor is read on the device.

    Args:
        groups: parameters, or groups of them.
        lr: rate of Adam, a float or a tensor on the device of the parameters; matrices use RATIO times as much.
        betas: decays of Adam's averages.
        momentum: decay of the matrices' average; the step looks ahead by it (Nesterov).
    """

    def __init__(self, groups: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.99), momentum: float = 0.95):
        # "capturable": `load_state_dict` then puts the step count on the device, where a graph advances it.
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "capturable": True})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if isinstance(param_group["lr"], Tensor):  # the default is one tensor; every group has a rate of its own
            param_group["lr"] = param_group["lr"].clone()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    params, gradients = alike.setdefault(p.shape, ([], []))
                    params.append(p)
                    gradients.append(p.grad)
            for params, gradients in alike.values():  # together: one by one, a teacher's step is ten thousand launches
                (self._matrices if is_matrix(params[0]) else self._adam)(params, gradients, group)

    def _states(self, params: list[Tensor], *names: str) -> list[list[Tensor]]:
        for p in params:
            for name in names:
                if name not in self.state[p]:
                    self.state[p][name] = torch.zeros((), device=p.device) if name == "step" else torch.zeros_like(p)
        return [[self.state[p][name] for p in params] for name in names]

    def _matrices(self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        (momenta,) = self._states(params, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalize(torch.stack(ahead).flatten(2))
        # Directions that the data hardly use get steps as large as the others, in random directions: without decay they add up.
        torch._foreach_mul_(params, 1 - RATIO * DECAY * group["lr"])
        scale = RATIO * max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
        torch._foreach_sub_(params, [u.view(params[0].shape) for u in updates * (scale * group["lr"])])

    def _adam(self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        steps, means, squares = self._states(params, "step", "mean", "square")
        decay1, decay2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - decay1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - decay2)
        step = torch.stack(steps).view(-1, *[1] * params[0].ndim)
        mean, square = torch.stack(means) / (1 - decay1**step), torch.stack(squares) / (1 - decay2**step)
        torch._foreach_sub_(params, list((mean / (square.sqrt() + 1e-8) * group["lr"]).unbind()))
