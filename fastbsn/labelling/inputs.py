"""Inputs: image files of a tree, and WebDataset tar files of them. A *unit* is one file, the smallest part of the work."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.inference.frames import Frames
from fastbsn.io.image_files import SUFFIXES
from fastbsn.io.storage import Storage
from fastbsn.io.tars import SUFFIX
from fastbsn.labelling.job import Job
from fastbsn.labelling.windows import Picture
from fastbsn.pixels import white
from fastbsn.training.imageset import decode
from fastbsn.training.labels import as_label, label_levels

Row = dict[str, Any]  # of a label, see `training.label_files`; or {"image", "failure"}


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def is_tar(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def list_units(source: Storage) -> list[str]:
    """Names of the units of a place, sorted.

    Raises:
        InputError: there are none.
    """
    units = [name for name in source.names() if is_image(name) or is_tar(name)]
    if not units:
        raise InputError(f"{source.location}: no images found; expected PNG, JPEG, TIFF, .npy or .tar files")
    return units


class Image:
    """One input image on its way to its label.

    Args:
        name: in messages and rows.
        label: name of the label.
        data: of the file.
        job: what it is prepared for.
        shard: tar file that it comes from.

    Raises:
        FileFormatError, InputError: it cannot be decoded, or has another number of channels than the model.
    """

    def __init__(self, name: str, label: str, data: bytes, job: Job, shard: Any = None):
        self.name, self.label, self.shard, predictor = name, label, shard, job.predictor
        self._lock = threading.Lock()
        tensors = decode(data, name)
        self.stack = len(tensors) > 1
        self.pictures = []
        for x in tensors:
            if x.shape[0] != predictor.channels:
                raise InputError(f"image has {x.shape[0]} channels; the model takes {predictor.channels}")
            frames = Frames(x, predictor.channels, "CYX", data_range=white(x))
            with job.measuring:
                self.pictures.append(Picture(self, frames, label_levels(predictor, frames)))
        self._left = len(self.pictures)

    def done(self, frames: int) -> bool:
        """Whether, with so many more frames done, all are; afterwards never again."""
        with self._lock:
            before, self._left = self._left, self._left - frames
            return before > 0 >= self._left

    def finished(self, job: Job) -> tuple[Row, dict[str, Tensor]]:
        """Its row, and the tensors of its label."""
        made = [as_label(job.predictor, p.frames, p.levels) for p in self.pictures]

        def joined(tensors: list[Tensor]) -> Tensor:
            return torch.stack(tensors) if self.stack else tensors[0]

        tensors = {"label": joined([m.label for m in made])}
        stds = [m.std for m in made if m.std is not None]
        if job.std and stds:
            tensors["std"] = joined(stds)
        x = tensors["label"]
        dtype = str(x.dtype).removeprefix("torch.")
        row = {"image": self.name, "label": self.label, "shape": list(x.shape), "dtype": dtype}
        return row | {"sigma": [m.sigma for m in made], "error": [m.error for m in made]}, tensors
