"""What a pixel's value means: white of every dtype, axes, luma, and what lies beyond the border."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RANGES = {"uint8": 255.0, "uint16": 65535.0}  # white minus black, by dtype name; floats are in [0, 1] units by convention
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as the gray BSD68 set was made


def dtype_name(x: np.ndarray | Tensor) -> str:
    """Name of the dtype, the same for arrays and tensors, such as "uint8"."""
    return str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else x.dtype.name


def white(x: np.ndarray | Tensor) -> float:
    """Value of white: 255 of uint8, 65535 of uint16, else 1."""
    return RANGES.get(dtype_name(x), 1.0)


def to_unit(x: Tensor) -> Tensor:
    """Tensor of any dtype -> float32, white at 1."""
    scale = white(x)
    return x.float() if scale == 1 else x.float() / scale


def as_unit(image: np.ndarray, gray: bool = False, black: float = 0.0, full: float | None = None) -> np.ndarray:
    """Image [H, W] or [H, W, C] -> float64 [C, H, W] in [0, 1]; alpha is dropped, `gray` takes the luma of colour. black: its value;
    full: white minus black, that of the dtype by default."""
    scale = full or white(image)
    x = np.atleast_3d(image)
    x = x[..., : {2: 1, 4: 3}.get(x.shape[2], x.shape[2])].astype(np.float64)
    x = (x - black) / scale
    if gray and x.shape[2] == 3:
        x = np.rint(x @ LUMA * 255)[..., None] / 255 if scale == 255 else (x @ LUMA)[..., None]
    return x.transpose(2, 0, 1)


def luma(x: Tensor) -> Tensor:
    """[..., 3, H, W] in [0, 1] units -> gray [..., 1, H, W]."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)


def mirrored(size: int, length: int, device: torch.device | None = None) -> Tensor:
    """Indices [length] that extend `size` pixels by reflection at the last one, which is not repeated; one pixel is repeated."""
    period = max(1, 2 * (size - 1))
    i = torch.arange(length, device=device) % period
    return torch.minimum(i, period - i)
