"""CUDA graphs: captured on a stream of the right device, one at a time in the process, and compared with eager execution once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_lock = threading.Lock()  # two captures at a time would mix


def capture(work: Callable[[], T], device: torch.device) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture `work`, which has run before, so that nothing is compiled in the capture; return the graph and what `work` returned.

    Without a stream of its own, `torch.cuda.graph` takes one that belongs to the GPU of the first capture of the process, and a graph
    of another GPU stays empty (pytorch issue 87894). Threads that do not capture go on allocating memory.
    """
    graph = torch.cuda.CUDAGraph()
    with _lock, torch.cuda.device(device):
        stream = torch.cuda.Stream(device)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = work()
    return graph, result


def replays(what: str, graph: torch.cuda.CUDAGraph, result: Tensor, eager: Tensor, tolerance: float = 0.0) -> bool:
    """Replay once and say whether `result` is the eager one; if not, with a warning that `what` goes on without graphs.

    Args:
        what: the subject of the warning.
        result: where the graph writes, contiguous.
        eager: same shape and dtype.
        tolerance: relative, for operations whose results differ between runs.
    """
    result.view(-1).view(torch.uint8).fill_(0xA5)  # a graph that does nothing must not find the right values there
    graph.replay()
    if torch.allclose(result.double(), eager.double(), rtol=tolerance, atol=0.0, equal_nan=True):
        return True
    warnings.warn(
        f"{what}: a replayed CUDA graph differs from eager execution on {eager.device}; going on without", RuntimeWarning, stacklevel=2
    )
    return False
