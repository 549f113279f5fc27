"""The self-check of whole networks: a small one of the same kind, with the kernels and with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fastbsn.backends import reference
from fastbsn.errors import BackendError
from fastbsn.nets import Network
from fastbsn.ops import self_check

T = TypeVar("T", bound=Callable[[Tensor], Any])
SHAPES = ((2, 37, 70), (1, 72, 264))  # images, height, width: partial tiles and phases, borders, several tiles each way


def proven(kernels: str, net: Network, device: torch.device, dtype: torch.dtype, make: Callable[[Network], T]) -> T:
    """`make(net)`, if what it makes of a small network passes the self-check.

    Raises:
        BackendError: it does not; the message has the numbers.
    """
    if not self_check.interpreted(device):
        small = sample(net)
        about = ", ".join(f"{key}={value}" for key, value in small.config.items())
        result = self_check.check(kernels, device, dtype, about, lambda: _runs(small, device, dtype, make))
        if not result.passed:
            raise BackendError(f"the kernels '{kernels}' are not used on {device}: {result}")
    return make(net)


def sample(net: Network) -> Network:
    """A network that runs all kernels of `net`, on random weights of its own: the process's random numbers stay as they are."""
    config = dict(net.config)
    if "depth" in config:
        config["depth"] = min(config["depth"], 3)  # two levels more are like the third
    if "modules" in config:
        config["modules"] = min(config["modules"], 2 + config["modules"] % 2)  # odd and even numbers end in different buffers
    with torch.device("meta"):
        small = type(net)(**config)
    small.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in small.parameters():
            std = 0.3 if p.ndim == 1 else (2 / p[0].numel()) ** 0.5  # biases that a wrong border would show
            p.copy_(std * torch.randn(p.shape, generator=draw))
    return small.eval()


@torch.no_grad()
def _runs(net: Network, device: torch.device, dtype: torch.dtype, make: Callable[[Network], Any]) -> self_check.Runs:
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(n, net.channels, h, w, generator=draw).to(device) for n, h, w in SHAPES]

    def outputs(run: Callable[[Tensor], Any]) -> list[Tensor | None]:
        if net.kind == "student":
            return [x - run(x) for x in images]  # the noise: the image itself hides errors
        return [t for x in images for t in run(x)]

    found = outputs(make(net)), outputs(reference.prepare(net, device, dtype)), outputs(reference.prepare(net, device, torch.float64))
    asked = [results for results in zip(*found, strict=True) if results[0] is not None]  # a teacher may be asked for no features
    return cast(self_check.Runs, tuple(zip(*asked, strict=True)))
