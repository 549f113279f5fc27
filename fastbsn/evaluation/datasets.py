"""Test images: a folder of clean ones, or pairs of noisy and clean photographs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastbsn.errors import FastBSNError, InputError
from fastbsn.inference.ranges import DataRange, split_range
from fastbsn.io.image_files import list_images, read_image
from fastbsn.pixels import as_unit

T = TypeVar("T")


class Pair(NamedTuple):
    """A noisy image and its clean version, float32 [C, H, W] in [0, 1] units."""

    name: str
    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]


def load_image(path: str | os.PathLike[str], channels: int | None = None, data_range: DataRange | None = None) -> NDArray[np.float32]:
    """Read one image as float32 [C, H, W] in [0, 1], by `as_unit`.

    Args:
        path: of the file.
        channels: 1 for gray (BT.601 luma), 3 for colour (gray repeated), None for what the file holds.
        data_range: white minus black, or (black, white); default: that of the dtype.

    Raises:
        InputError: no such file, or channels is not 1, 3 or None.
        FileFormatError: the file cannot be read, or is not gray or colour.
    """
    if channels not in (1, 3, None):
        raise InputError(f"channels={channels}; expected 1, 3 or None")
    x = as_unit(read_image(path), channels == 1, *split_range(data_range)).astype(np.float32)
    if len(x) not in (1, 3):
        raise InputError(f"{path}: {len(x)} channels; expected gray or colour")
    return np.ascontiguousarray(np.repeat(x, 3, 0) if channels == 3 and len(x) == 1 else x)


def load_clean(folder: str | os.PathLike[str], channels: int | None = None) -> list[tuple[str, NDArray[np.float32]]]:
    """All images directly in `folder`, sorted, as (file name, float32 [C, H, W] in [0, 1]); `channels` as in `load_image`.

    Raises:
        InputError: no such folder, or no images in it.
        FileFormatError: an image cannot be read.
    """
    return [(path.name, load_image(path, channels)) for path in _images(Path(folder))]


def load_pairs(
    noisy: str | os.PathLike[str],
    clean: str | os.PathLike[str] | None = None,
    channels: int | None = None,
    data_range: DataRange | None = None,
    failed: list[str] | None = None,
) -> Iterator[Pair]:
    """Pairs by name, read one by one: from two folders (same name, any suffix), or from one with `NAME_real.*` (noisy) and `NAME_mean.*`.

    Args:
        noisy, clean: as above.
        channels, data_range: see `load_image`.
        failed: takes a sentence for each pair that cannot be used, which is left out; without it, the first one is raised.

    Raises:
        InputError: no pairs, an image without its partner, or partners of different shapes.
        FileFormatError: an image cannot be read.
    """
    if clean is None:
        files = _images(Path(noisy))
        left = {p.stem.removesuffix("_real"): p for p in files if p.stem.endswith("_real")}
        right = {p.stem.removesuffix("_mean"): p for p in files if p.stem.endswith("_mean")}
    else:
        left, right = ({p.stem: p for p in _images(Path(folder))} for folder in (noisy, clean))
    alone = sorted(left.keys() ^ right.keys())
    if alone or not left:
        raise InputError(
            f"{noisy}: {len(left)} noisy and {len(right)} clean images, {len(alone)} without a partner {alone[:3]}; expected pairs: "
            "two folders with equal names, or one with NAME_real.* and NAME_mean.*"
        )
    return usable(sorted(left), lambda name: _load_pair(name, left[name], right[name], channels, data_range), failed)


def usable(items: Iterable[T], load: Callable[[T], Pair], failed: list[str] | None) -> Iterator[Pair]:
    """What is loaded of every item; see `load_pairs` for `failed`."""
    for item in items:
        try:
            yield load(item)
        except FastBSNError as error:
            if failed is None:
                raise
            failed.append(str(error))


def _load_pair(name: str, noisy: Path, clean: Path, channels: int | None, data_range: DataRange | None) -> Pair:
    x, y = load_image(noisy, channels, data_range), load_image(clean, channels, data_range)
    if x.shape != y.shape:
        raise InputError(f"{name}: noisy image has shape {x.shape} and clean image {y.shape}; expected the same")
    return Pair(name, x, y)


def _images(folder: Path) -> list[Path]:
    files = list_images(folder)
    if not files:
        raise InputError(f"{folder}: no images; expected .png, .jpg, .tif or .npy files directly in it")
    return files
