"""Images held in memory in their own dtype, one channel count to a set."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastbsn.errors import FastBSNError, InputError, TrainingError
from fastbsn.inference.frames import Frames
from fastbsn.inference.ranges import DataRange
from fastbsn.io.image_files import NAMES, decode_image, list_images, read_picture
from fastbsn.io.stacks import count_pages, decode_stack
from fastbsn.pixels import RANGES, dtype_name, mirrored
from fastbsn.training.identity import tensor_digest

logger = logging.getLogger("fastbsn")


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


def read_frames(path: str | Path, data_range: DataRange | None = None, axes: str | None = None) -> tuple[list[Tensor], set[str]]:
    """Frames [C, H, W] of a file, all of its pages, without alpha, and its dtypes; see `ImageSet.from_folder`.

    Raises:
        FileFormatError, InputError: see `io.image_files.read_picture` and `inference.frames`.
    """
    found, dtypes = list[Tensor](), set[str]()
    for part in read_picture(path).parts:
        order = axes or part.axes
        array = part.array
        if "C" in order and part.channels.endswith("A") and order == part.axes:
            array = array.take(range(len(part.channels) - 1), order.index("C"))
        frames = Frames(array, None, order, data_range=data_range if data_range is not None else part.white)
        if frames.bad:
            logger.warning("%s: %d pixels are NaN or infinite; repaired from their neighbours", path, frames.bad)
        if data_range is None and part.white is None and frames.seems_12_bit:
            logger.warning("%s: values end at %g of 65535; for 12-bit data pass data_range=4095 (--data-range 4095)", path, frames.high)
        found += [to_tensor(frames.image(i)) for i in range(frames.count)]
        dtypes.add(frames.dtype)
    return found, dtypes


@dataclass
class ImageSet:
    """Images [C, H, W] with one channel count; `aligned` sets (labels) are cropped at the same places."""

    images: list[Tensor]
    names: list[str] = field(default_factory=list)
    data_ranges: dict[str, DataRange] = field(default_factory=dict)  # that the files were read with, by dtype name, where they were given

    def __post_init__(self) -> None:
        if not self.images:
            raise TrainingError("no training images: got an empty set; expected at least one image")
        channels = {image.shape[0]: name for name, image in zip(self.names or map(str, range(len(self.images))), self.images, strict=True)}
        if len(channels) > 1:
            counts = ", ".join(f"{count} ({name})" for count, name in sorted(channels.items()))
            raise InputError(f"training images have {counts} channels; expected one count: convert them or train on one kind")

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray]) -> ImageSet:
        """Arrays [H, W] or [H, W, C]: uint8, uint16, or floats in [0, 1] units, noise beyond included.

        Raises:
            InputError: another kind of array, or floats of another range.
        """
        for array in arrays:
            if array.dtype.kind == "f" and array.ndim in (2, 3) and array.size:
                Frames(array, None, "YXC"[: array.ndim])  # refuses what is not in [0, 1] units
        return cls([to_tensor(a) for a in arrays], [str(i) for i in range(len(arrays))])

    @classmethod
    def from_folder(cls, place: str | Path, data_range: DataRange | None = None, axes: str | None = None) -> ImageSet:
        """The images of a folder or of one file, pages of stacks one by one; a file that cannot be used is named and left out.

        Args:
            place: folder or file.
            data_range: see `Denoiser`; default: what the file says, or its dtype.
            axes: of every file, where it does not say them.

        Raises:
            TrainingError: no images, or none that can be used; the message names the first ones.
        """
        paths = [Path(place)] if Path(place).is_file() else list_images(place)
        if not paths:
            raise TrainingError(f"{place}: no images found; expected {NAMES} files")
        images, names, failed, ranges = list[Tensor](), list[str](), list[str](), dict[str, DataRange]()
        for path in paths:
            try:
                frames, dtypes = read_frames(path, data_range, axes)
            except (FastBSNError, MemoryError) as error:
                failed.append(str(error) if str(path) in str(error) else f"{path}: {error or 'too large for the memory of this machine'}")
                logger.warning("left out of the training: %s", failed[-1])
                continue
            images += frames
            ranges |= {} if data_range is None else dict.fromkeys(dtypes, data_range)
            names += [path.name if len(frames) == 1 else f"{path.name}[{i}]" for i in range(len(frames))]
        if not images:
            raise TrainingError(f"{place}: none of {len(paths)} files can be used; the first: {'; '.join(failed[:3])}")
        return cls(images, names, ranges)

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

    def windows(self, side: int, count: int, seed: int) -> ImageSet:
        """A random part of the set: `count` windows of at most `side` pixels on a side; the whole images where it holds no more."""
        places = [
            (i, top, left)
            for i, x in enumerate(self.images)
            for top in range(0, max(1, x.shape[1] - side + 1), side)
            for left in range(0, max(1, x.shape[2] - side + 1), side)
        ]
        if count >= len(places):
            return self
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        chosen = [places[i] for i in sorted(order[:count].tolist())]
        images = [self.images[i][:, top : top + side, left : left + side].clone() for i, top, left in chosen]
        return ImageSet(images, [f"{self.names[i]}@{top},{left}" for i, top, left in chosen], self.data_ranges)

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
