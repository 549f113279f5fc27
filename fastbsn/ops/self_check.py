"""Kernels prove themselves before they are used: once per process, GPU and kind of network or operation, on a small input.

Whether they were ever run on such a GPU does not matter to the rule: their error against float64 is at most twice that of PyTorch in
the same dtype, or what would be chosen next is used, with one warning that has the numbers. Asked for by name, they raise instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

RULE = "kernels are used on a GPU after a self-check there: error against float64 at most twice that of PyTorch in the same dtype"
Runs = tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]  # results of the kernels, of PyTorch, and in float64


class Result(NamedTuple):
    """Relative errors (L2) of the output that comes nearest to its limit, or what was raised instead."""

    error: float = float("nan")
    allowed: float = float("nan")
    raised: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        numbers = self.raised or f"error {self.error:.2g}, allowed {self.allowed:.2g} (twice PyTorch's)"
        return f"self-check {'passed' if self.passed else 'failed'}: {numbers}"


_results: dict[tuple[Hashable, ...], Result] = {}
_lock = threading.RLock()  # held while a check runs: a second thread waits for its result


def judge(got: Sequence[Tensor], own: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> Result:
    """Compare every output with float64, relative to the size of the output."""

    def error(found: Tensor, wanted: Tensor) -> float:
        size = wanted.double().norm().clamp_min(torch.finfo(torch.float32).tiny)  # of an output that is all zeros: 0 is right
        return float((found.double() - wanted.double()).norm() / size)

    results = []
    for g, o, e in zip(got, own, exact, strict=True):
        if g.shape != e.shape:
            return Result(raised=f"a result of shape {tuple(g.shape)}; expected {tuple(e.shape)}")
        results.append(Result(error(g, e), 2 * error(o, e) + torch.finfo(dtype).eps))
    return next((r for r in results if not r.passed), max(results, key=lambda r: r.error / r.allowed))


def check(kernels: str, device: torch.device, dtype: torch.dtype, about: Hashable, run: Callable[[], Runs]) -> Result:
    """The result for these kernels; `run` is called the first time only.

    Args:
        kernels: their name, "cuda hopper" for instance.
        device: where they run; its index counts.
        dtype: of the arithmetic.
        about: what else the compiled kernels depend on, channels for instance.
        run: runs kernels and references.
    """
    key = (kernels, device, dtype, about)
    with _lock:
        if key not in _results:
            try:
                _results[key] = judge(*run(), dtype)
            except torch.OutOfMemoryError:
                raise  # says nothing about the kernels
            except Exception as error:  # compilers, drivers and launches fail in many ways; all of them are reasons to use something else
                _results[key] = Result(raised=f"{type(error).__name__}: {error}".strip())
        return _results[key]


def known(kernels: str, device: torch.device, dtype: torch.dtype, about: Hashable) -> bool:
    """Whether `check` has a result already, and so would run nothing."""
    with _lock:
        return (kernels, device, dtype, about) in _results


def interpreted(device: torch.device) -> bool:
    """Whether kernels on `device` are Python code under the interpreter of Triton, in a test: nothing to check then."""
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


def report() -> dict[str, str]:
    """{"cuda hopper on cuda:0 in bfloat16, ...": result} of all checks so far."""
    with _lock:
        found = dict(_results)
    return {f"{kernels} on {device} in {str(dtype)[6:]}, {about}": str(r) for (kernels, device, dtype, about), r in found.items()}
