"""One training step: forward, backward, optimizer. On a GPU the whole step is one CUDA graph per objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastbsn.backends.capture import capture, replays
from fastbsn.training.ranks import Ranks

Loss = Callable[..., Tensor]  # (objective, *batch) -> scalar
TOLERANCE = 1e-3  # of the loss: a library may choose another algorithm inside a capture
WARM_UP = 3  # steps of an objective that run eagerly before its graph is captured


class EagerStep:
    """zero_grad, loss of this rank's part of the batch, backward, sum of the ranks, optimizer step; returns the loss of the batch."""

    def __init__(self, loss: Loss, optimizer: torch.optim.Optimizer, ranks: Ranks):
        self.loss, self.optimizer, self.ranks = loss, optimizer, ranks
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, objective: str, batch: tuple[Tensor, ...]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        part = self.ranks.part(batch)
        loss = self.loss(objective, *part)
        loss.backward()
        loss = self.ranks.sum_gradients(self.parameters, loss.detach(), len(part[0]) / len(batch[0]))
        self.optimizer.step()
        return loss


class GraphedStep:
    """The same step captured once per objective and replayed: a small network's step is bound by about a thousand launches.

    Needs an optimizer that never waits for the device (`Muon`) and learning rates that are tensors on the device; all batches of an
    objective must have the same shapes. The first steps of an objective run eagerly on a side stream, as capture requires.
    """

    def __init__(self, loss: Loss, optimizer: torch.optim.Optimizer, ranks: Ranks):
        self.device = optimizer.param_groups[0]["params"][0].device
        self.eager, self.stream = EagerStep(loss, optimizer, ranks), torch.cuda.Stream(self.device)
        self.usable, self.seen = True, dict[str, int]()
        self.graphs: dict[str, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, objective: str, batch: tuple[Tensor, ...]) -> Tensor:
        with torch.cuda.device(self.device):  # streams and captures are those of the current one
            return self._step(objective, batch)

    def _step(self, objective: str, batch: tuple[Tensor, ...]) -> Tensor:
        if objective in self.graphs:
            graph, inputs, loss = self.graphs[objective]
            for static, fresh in zip(inputs, batch, strict=True):
                static.copy_(fresh)
            graph.replay()
            return loss.clone()
        self.seen[objective] = self.seen.get(objective, 0) + 1
        if self.usable and self.seen[objective] > WARM_UP:
            return self._capture(objective, batch)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = self.eager(objective, batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss

    def _capture(self, objective: str, batch: tuple[Tensor, ...]) -> Tensor:
        inputs = tuple(x.clone() for x in batch)
        expected = self.eager.loss(objective, *inputs).detach()
        self.eager.optimizer.zero_grad(set_to_none=True)
        graph, loss = capture(lambda: self.eager(objective, inputs), self.device)
        self.usable = replays("training step", graph, loss, expected, TOLERANCE)
        if not self.usable:
            return self._step(objective, batch)
        self.graphs[objective] = (graph, inputs, loss)
        return loss.clone()
