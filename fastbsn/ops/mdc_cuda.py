"""The module of the paper D-BSN as one CUDA kernel for sm_90a (csrc/mdc.h): where it runs, packing and launching. Forward only."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import MATRICES

CHANNELS = 96
_A1, _B1, _C, _JOIN_A, _JOIN_B, _JOIN_C, _T1, _T2 = range(len(MATRICES))
# Of the matrices [w1, w5, w3], in the order in which the kernel multiplies with them.
ORDER = [_A1, *range(8, 33), _JOIN_A, _C, _JOIN_C, _B1, *range(33, 42), _JOIN_B, _T1, _T2]


def _extension() -> Any:
    return import_module("fastbsn._C")


def why_not(device: torch.device, dtype: torch.dtype, channels: int) -> str | None:
    """Why the kernel cannot run, as a sentence, or None."""
    if channels != CHANNELS:
        return f"the CUDA kernel of the module has {CHANNELS} channels, not {channels}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"the CUDA kernel of the module computes in torch.float16 and torch.bfloat16, not {dtype}"
    if device.type != "cuda":
        return f"the CUDA kernel of the module needs a GPU, not device {device}"
    try:
        extension = _extension()
        return extension.mdc_why_not(device.index or 0) or None
    except ImportError as error:
        return f"the extension fastbsn._C is not installed ({error}); it is built on installation where nvcc is found"
    except extension.CudaError as error:
        return str(error)


def pack(w5: Tensor, w3: Tensor, w1: Tensor) -> Tensor:
    """[25 * C, C], [9 * C, C] and [8 * C, C], as `kernels.mdc.mdc_module` takes them -> [42, C / 8, C, 8]: octet of inputs, output."""
    matrices = torch.cat([w1, w5, w3]).view(-1, CHANNELS // 8, 8, CHANNELS)
    return matrices[ORDER].transpose(2, 3).contiguous()


def mdc_module(x: Tensor, weights: Tensor, bias: Tensor, inside: Tensor, flat: Flat, y: Tensor) -> None:
    """One module on the current stream.

    Args:
        x, y: [P, C] float16 or bfloat16, in the layout of `flat`; y is written where `flat` has pixels, or positions of a phase that
            are outside the image, and x is read there only. They must not overlap.
        weights: of `pack`, in the dtype of x.
        bias: [8, C] float32, in the order of `slots.BIASES`.
        inside: [P] uint8, 1 where there is a pixel.
    """
    images, index = flat.n * flat.d * flat.d, x.device.index or 0
    addresses = [t.data_ptr() for t in (x, y, inside, weights, bias)]
    stream = torch.cuda.current_stream(x.device).cuda_stream
    _extension().mdc_launch(x.dtype == torch.float16, *addresses, images, flat.hp, flat.wp, flat.rows, flat.pitch, index, stream)
