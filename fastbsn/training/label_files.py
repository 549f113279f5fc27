"""Stored pseudo-labels: a finished label folder, as `fastbsn label` writes it, read one label at a time.

`manifest.json` names a file of rows, one JSON object per input image:
{"image", "label", "shape", "dtype", "sigma", "error"}. Shape and dtype are those of the stored tensor "label", [C, H, W] or, of a stack,
[F, C, H, W]; "sigma" and "error" have one number per frame, in units of the image range. Names lead into the two places; a
name that goes on behind ".tar/" is a member of that file. Manifests of version 1 hold their rows themselves.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastbsn.errors import FileFormatError
from fastbsn.io.storage import Storage, open_storage
from fastbsn.io.tars import TarFile, split_name
from fastbsn.io.weights import load_networks, parse_tensors
from fastbsn.nets import NoiseModel
from fastbsn.training.identity import digest
from fastbsn.training.imageset import decode

MANIFEST = "manifest.json"
VERSION = 2


class Entry(NamedTuple):
    """One label: names of image and file, frame of a stack or None, noise level and stated RMS error, pixels and bytes (0: not known)."""

    image: str
    label: str
    frame: int | None
    sigma: float
    error: float
    pixels: int
    nbytes: int


class Members:
    """Files of a storage, and members of the tar files in it; a tar file of an object store is fetched once."""

    def __init__(self, storage: Storage):
        self.storage, self._open, self._stack, self._lock = storage, dict[str, TarFile](), ExitStack(), threading.Lock()

    def read(self, name: str) -> bytes:
        tar, member = split_name(name)
        if not member:
            return self.storage.read(name)
        with self._lock:
            if tar not in self._open:
                self._open[tar] = TarFile(self._stack.enter_context(self.storage.local(tar)))
            found = self._open[tar]
        return found.read(member)

    def close(self) -> None:
        """Give fetched files back; they are fetched again when they are read again."""
        with self._lock:
            self._open.clear()
            self._stack.close()


class LabelFiles:
    """Labels of a finished folder, one per frame of every image.

    Args:
        location: local folder, or URL.
        noisy: place of the noisy images; default as in the manifest.

    Attributes:
        entries: one per label. names, sigmas, errors: of the entries.
        noise: kind of noise of the images. noise_model: for kinds whose noise depends on the image.
        digest: of everything that the labels are.

    Raises:
        FileFormatError: no manifest (labelling did not finish), or one that is damaged.
    """

    def __init__(self, location: str | PathLike[str], noisy: str | PathLike[str] | None = None):
        self.storage = open_storage(location)
        if not self.storage.exists(MANIFEST):
            raise FileFormatError(f"{location}: no {MANIFEST}; expected a finished label folder: run `fastbsn label` again to complete it")
        text = self.storage.read(MANIFEST)
        self.digest = digest(text)
        try:
            manifest = json.loads(text)
            if manifest["version"] not in (1, VERSION):
                raise ValueError(f"version {manifest['version']}; this fastbsn reads 1 and {VERSION}")
            rows = manifest["labels"] if manifest["version"] == 1 else self._rows(manifest["rows"])
            self.noise, source = str(manifest["noise"]), str(manifest["source"])
            self._model = manifest.get("noise_model") if manifest["version"] > 1 else "noise_model.safetensors"
            entries = [entry for row in rows for entry in _entries(row)]
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{location}/{MANIFEST}: not a label manifest ({error}); run `fastbsn label` into an empty folder"
            ) from error
        self.source = open_storage(noisy if noisy is not None else source)
        self.names = [e.image for e in entries]
        self.sigmas, self.errors = [e.sigma for e in entries], [e.error for e in entries]
        self.entries = entries
        self._label_files, self._noisy_files = Members(self.storage), Members(self.source)

    def __len__(self) -> int:
        return len(self.names)

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.storage.read(name).splitlines())

    @cached_property
    def noise_model(self) -> NoiseModel | None:
        if self._model is None or not self.storage.exists(self._model):
            return None
        with self.storage.local(self._model) as path:
            model = load_networks(path)[0].get("noise_model")
        assert isinstance(model, NoiseModel)
        return model

    def label(self, i: int) -> Tensor:
        """Label [C, H, W] in its stored dtype. FileFormatError: missing or damaged."""
        entry = self.entries[i]
        label = parse_tensors(self._label_files.read(entry.label), entry.label)[0]["label"]
        return label if entry.frame is None else label[entry.frame].clone()

    def noisy(self, i: int) -> Tensor:
        """The image [C, H, W] that it is the label of."""
        entry = self.entries[i]
        return decode(self._noisy_files.read(entry.image), entry.image)[entry.frame or 0]

    def close(self) -> None:
        """Give back what was fetched from an object store."""
        self._label_files.close()
        self._noisy_files.close()


def _entries(row: dict[str, Any]) -> Iterator[Entry]:
    shape = row.get("shape", [])
    sigmas, errors = ([float(v) for v in (row[k] if isinstance(row[k], list) else [row[k]])] for k in ("sigma", "error"))
    pixels, size = (math.prod(shape[-2:]), math.prod(shape[-3:]) * getattr(torch, row["dtype"]).itemsize) if shape else (0, 0)
    for frame, (sigma, error) in enumerate(zip(sigmas, errors, strict=True)):
        yield Entry(str(row["image"]), str(row["label"]), frame if len(shape) == 4 else None, sigma, error, pixels, size)
