"""One training by several processes (ranks), as torchrun starts them: gloo on CPUs, NCCL on GPUs.

Every rank draws the same global batch and cuts its part; gradients are summed, so that all ranks hold the same weights at every step.
Rank 0 alone writes files, and its clock is the clock of all. The folder of the run must be one that all ranks see.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from fastbsn.errors import TrainingError

STEP = timedelta(seconds=45)  # that a rank waits for another in a step: it is dead, or its machine is
START = timedelta(minutes=30)  # before the first step, while images are read and labelled
_group: dist.ProcessGroup | None = None  # of the steps


class Ranks:
    """This process among those that train together; a process on its own is rank 0 of 1.

    Attributes:
        rank, size: number of this process, number of processes.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The crops of this rank.

        Raises:
            TrainingError: fewer crops than ranks.
        """
        if len(batch[0]) < self.size:
            raise TrainingError(
                f"a batch of {len(batch[0])} crops for {self.size} processes; expected at least one for each: raise --batch"
            )
        return tuple(x.tensor_split(self.size)[self.rank] for x in batch)

    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor, share: float) -> Tensor:
        """Make each gradient that of the mean over the global batch; returns the loss of the global batch.

        Args:
            parameters: those with a gradient take part; they are the same on all ranks.
            loss: mean over this rank's part, whose gradient they have.
            share: of this rank's part in the global batch.
        """
        if self.size == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), loss.view(1).float()]).mul_(share)
        self._all_reduce(flat)
        pieces = flat[:-1].split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [x.view(g.shape) for x, g in zip(pieces, gradients, strict=True)])
        return flat[-1].clone()

    def total(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        self._all_reduce(summed)
        return [float(v) for v in summed]

    def meet(self) -> None:
        """Wait for all ranks, however long they take to start."""
        if self.size > 1:
            self._all_reduce(torch.zeros(1), start=True)

    def of_first(self, *values: float) -> list[float]:
        """The values of rank 0."""
        return self.total(*(v if self.first else 0.0 for v in values))

    def _all_reduce(self, x: Tensor, start: bool = False) -> None:
        try:
            dist.all_reduce(x, group=None if start else _group)
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.rank} of {self.size} lost another process ({str(error).splitlines()[0]}); "
                "start the same command again: it goes on from the last checkpoint"
            ) from error


def join() -> Ranks:
    """Meet the other ranks, where torchrun or its like has started this process; the GPU of this rank becomes the current one."""
    global _group
    if dist.is_available() and not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=START)
        _group = dist.new_group(timeout=STEP)
        atexit.register(_leave)
    return Ranks()


def _leave() -> None:
    """End gloo's threads. One that lives on may release a tensor while Python ends, which aborts the process."""
    global _group
    _group = None
    if dist.is_initialized():
        dist.destroy_process_group()
