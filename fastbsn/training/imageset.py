"""Images held in memory in their own dtype, one channel count to a set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastbsn.errors import InputError, TrainingError
from fastbsn.io.image_files import decode_image, list_images, read_image
from fastbsn.io.stacks import count_pages, decode_stack
from fastbsn.pixels import RANGES, dtype_name, mirrored
from fastbsn.training.identity import tensor_digest


def to_tensor(image: np.ndarray) -> Tensor:
    """[H, W] or [H, W, C] array -> [C, H, W] tensor of the same dtype (float64 becomes float32)."""
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(f"training image has shape {image.shape}; expected [H, W] or [H, W, C] with at least one pixel")
    image = image.astype(np.float32) if image.dtype == np.float64 else image
    tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))
    if dtype_name(tensor) not in RANGES and not tensor.is_floating_point():
        raise InputError(f"training image has dtype {image.dtype}; expected uint8, uint16 or a float type")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(f"training image has {int((~tensor.isfinite()).sum())} non-finite pixels; repair or remove the image")
    return tensor


def decode(data: bytes, name: str) -> list[Tensor]:
    """Frames [C, H, W] of an image file that is in memory: one, or those of a TIFF stack.

    Raises:
        FileFormatError, InputError: see `io.image_files.read_image` and `io.stacks.read_stack`.
    """
    if not name.lower().endswith((".tif", ".tiff")) or count_pages(data) == 1:
        return [to_tensor(decode_image(data, name))]
    stack, axes = decode_stack(io.BytesIO(data), name)
    order = [axes.index(a) for a in "TZCYX" if a in axes]
    stack = stack.transpose(order)
    if "C" not in axes:
        stack = stack[..., None, :, :]
    return [to_tensor(frame.transpose(1, 2, 0)) for frame in stack.reshape(-1, *stack.shape[-3:])]


@dataclass
class ImageSet:
    """Images [C, H, W] with one channel count; `aligned` sets (labels) are cropped at the same places."""

    images: list[Tensor]
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.images:
            raise TrainingError("no training images: got an empty set; expected at least one image")
        channels = {image.shape[0] for image in self.images}
        if len(channels) > 1:
            raise InputError(f"training images have {sorted(channels)} channels; expected one count: convert them or train on one kind")

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray]) -> ImageSet:
        return cls([to_tensor(a) for a in arrays], [str(i) for i in range(len(arrays))])

    @classmethod
    def from_folder(cls, folder: str | Path) -> ImageSet:
        paths = list_images(folder)
        if not paths:
            raise TrainingError(f"{folder}: no images found; expected PNG, JPEG, TIFF or .npy files")
        return cls([to_tensor(read_image(p)) for p in paths], [p.name for p in paths])

    @property
    def channels(self) -> int:
        return self.images[0].shape[0]

    @cached_property
    def digest(self) -> str:
        """Of the values, dtypes and shapes of all images, in order."""
        return tensor_digest(self.images)

    @property
    def areas(self) -> Tensor:  # [images]
        return torch.tensor([float(i.shape[1] * i.shape[2]) for i in self.images])

    def to(self, device: torch.device) -> ImageSet:
        """The same set on a device: a GPU holds the training images in their own dtype and cuts its crops itself."""
        return ImageSet([x.to(device) for x in self.images], self.names)

    def at_least(self, size: int) -> ImageSet:
        """The same set with images smaller than `size` pixels on a side extended by reflection."""

        def extend(x: Tensor) -> Tensor:
            bottom, right = max(0, size - x.shape[1]), max(0, size - x.shape[2])
            if not (bottom or right):
                return x
            rows, cols = mirrored(x.shape[1], x.shape[1] + bottom), mirrored(x.shape[2], x.shape[2] + right)
            return x[:, rows[:, None], cols[None, :]]

        return ImageSet([extend(x) for x in self.images], self.names)
