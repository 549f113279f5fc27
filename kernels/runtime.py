"""Launching: a kernel with what it needs besides its arguments (Call), and the GPU that it is launched for (Target).

Files with kernels import no torch, nor does this one before it launches: the gate compiles kernels where there is none (aot.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from triton.tools.tensor_descriptor import TensorDescriptor

from . import tuning
from .tuning import Config

if TYPE_CHECKING:
    from torch import Tensor

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"  # as it was when the kernels were made
TMA_IN_INTERPRETER = True


@dataclass(frozen=True)
class Call:
    """A kernel, the block shape of each array it reads or writes by blocks, and its compile-time constants."""

    kernel: Any
    config: Config
    blocks: Mapping[str, tuple[int, int]]
    constants: Mapping[str, Any] = field(default_factory=dict)


def constants(config: Config, precision: str, **sizes: Any) -> dict[str, Any]:
    """`sizes`, and those of `config` under the names that kernels give them."""
    return sizes | {"BLOCK": config.block, "CHUNK": config.chunk, "STAGES": config.stages, "PRECISION": precision}


@dataclass(frozen=True)
class Target:
    """The GPU: its column of the table, and whether blocks are read through TMA descriptors."""

    arch: str
    tma: bool
    precision: str  # of float32 products: "ieee" or "tf32"

    def config(self, kernel: str, x: Tensor) -> Config:
        """Sizes for `kernel` on arrays like x [..., C]."""
        return tuning.config(kernel, self.arch, x.shape[-1], x.element_size())


def target(x: Tensor) -> Target:
    """The GPU that holds x, or the interpreter."""
    if INTERPRETER:
        return Target("interpreter", TMA_IN_INTERPRETER, "ieee")
    import torch

    capability = _capability(x.device.index or 0)
    # Not by the table's column: from 9.0 on, a descriptor made in the kernel needs an allocator for scratch memory.
    return Target(tuning.architecture(*capability), capability >= (9, 0), "tf32" if torch.backends.cudnn.allow_tf32 else "ieee")


@cache
def _capability(index: int) -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability(index)


def launch(call: Call, grid: tuple[int, ...], tma: bool, **arguments: Any) -> None:
    """Run `call` on the GPU of its tensors; arrays it reads by blocks are passed as descriptors (TMA) or as pointers."""
    import torch

    device = next(value.device for value in arguments.values() if isinstance(value, torch.Tensor))
    for name, shape in call.blocks.items():
        array = arguments.get(name)
        if tma and array is not None:
            arguments[name] = TensorDescriptor(array, list(array.shape), list(array.stride()), list(shape))
    options = {"num_warps": call.config.warps, "num_stages": call.config.stages, "enable_fp_fusion": True}
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        call.kernel[grid](**arguments, **call.constants, **options)


def programs(x: Tensor) -> int:
    """Programs that fill the GPU of x twice; a constant in the interpreter, so that tests see several splits of a sum."""
    import torch

    return 64 if INTERPRETER else 2 * torch.cuda.get_device_properties(x.device).multi_processor_count


def empty_float32(like: Tensor, *shape: int) -> Tensor:
    """A new float32 array on the device of `like`."""
    import torch

    return torch.empty(shape, device=like.device)
