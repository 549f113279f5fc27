"""Reading and writing: our checked, atomic files against the libraries they are built on. Outputs must be equal."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.images import photograph
from benchmarks.harness.measure import Case, Subject, Version
from benchmarks.harness.timing import Run
from fastbsn.io.image_files import read_image, write_image

SIDE = {"tiny": 32, "cpu": 512, "gpu": 512, "full": 2048}
Maker = Callable[[Any, torch.device], Run]


def _image(side: int) -> np.ndarray:
    return (photograph(3, side, side) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))


def _read_subject(suffix: str, side: int, device: torch.device) -> Subject:
    folder = tempfile.TemporaryDirectory(prefix="fastbsn-bench-")
    images = {Path(folder.name) / f"{i}{suffix}": np.roll(_image(side), 17 * i, 1) for i in range(4)}
    for path, image in images.items():
        write_image(path, image)
    return Subject(folder, list(images), lambda path: _tensor(images[path]), pixels=side**2, wall=True)


def _write_subject(suffix: str, side: int, device: torch.device) -> Subject:
    folder = tempfile.TemporaryDirectory(prefix="fastbsn-bench-")
    images = [np.roll(_image(side), 17 * i, 1) for i in range(4)]
    return Subject((folder, Path(folder.name) / f"x{suffix}"), images, _tensor, pixels=side**2, wall=True)


def _opencv_read(_: Any, device: torch.device) -> Run:
    return lambda path: _tensor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1])


def _numpy_read(_: Any, device: torch.device) -> Run:
    return lambda path: _tensor(np.load(path, allow_pickle=False))


def _fastbsn_read(_: Any, device: torch.device) -> Run:
    return lambda path: _tensor(read_image(path))


def _writer(write: Callable[[Path, np.ndarray], Any]) -> Maker:
    """Writes, and returns what the file then holds: the reading is part of the time of every version alike."""

    def make(net: Any, device: torch.device) -> Run:
        def run(image: np.ndarray) -> Tensor:
            write(net[1], image)
            return _tensor(read_image(net[1]))

        return run

    return make


def cases(scale: str) -> Sequence[Case]:
    side, found = SIDE[scale], []
    libraries: dict[str, tuple[Maker, Callable[[Path, np.ndarray], Any]]] = {
        ".png": (_opencv_read, lambda path, image: cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))),
        ".npy": (_numpy_read, lambda path, image: np.save(path, image)),
    }
    for suffix, (read, write) in libraries.items():
        readers = {"library": Version(read, "uint8", True), "fastbsn": Version(_fastbsn_read, "uint8")}
        writers = {"library": Version(_writer(write), "uint8", True), "fastbsn": Version(_writer(write_image), "uint8")}
        size = f"{suffix[1:]} {side} x {side} x 3"
        found.append(Case("io", f"read {size}", readers, lambda device, s=suffix: _read_subject(s, side, device)))
        found.append(Case("io", f"write and read {size}", writers, lambda device, s=suffix: _write_subject(s, side, device)))
    return found
