"""What the page does with a picture, without the page."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbsn.denoiser import Denoiser
from fastbsn.errors import FastBSNError, InputError
from fastbsn.inference.choose import choose_for
from fastbsn.inference.parts import denoise_channels
from fastbsn.io.atomic import atomic_file, write_bytes
from fastbsn.io.image_files import SUFFIXES, read_picture, write_picture
from fastbsn.io.picture import Picture
from fastbsn.report.view import encode, noise_found, picture, view

MAX_PIXELS = 2**26  # of a picture: 8192 x 8192
MAX_FILE = 2**29  # bytes of an uploaded file


class Settings(NamedTuple):
    """What a person chooses: "auto" or a model, how much is removed, and the device."""

    model: str
    strength: float
    device: str


class Result(NamedTuple):
    """A denoised picture, and what there is to say about it; `noise` in the units of the picture's values.

    before, after: channels last. picture: the file, for its metadata.
    """

    before: NDArray
    after: NDArray
    noise: float
    model: str
    reason: str
    seconds: float
    picture: Picture


class Shown(NamedTuple):
    """Files of a result: the two pictures that are looked at, and the one that is saved."""

    before: Path
    after: Path
    saved: Path
    height: int
    width: int


@lru_cache(maxsize=4)
def open_model(model: str, device: str) -> Denoiser:
    return Denoiser.from_pretrained(model, device=device)


def pictures(files: Iterable[str | Path]) -> list[Path]:
    """The files among `files` that are pictures by their suffix, by name; hidden ones are left out.

    Raises:
        InputError: there are none.
    """
    found = sorted((p for p in map(Path, files) if p.suffix.lower() in SUFFIXES and p.name[0] != "."), key=lambda p: p.name)
    if not found:
        raise InputError(f"no pictures among these files; expected {', '.join(SUFFIXES)}")
    return found


def denoise(file: Path, settings: Settings) -> Result:
    """Read and denoise one picture.

    Raises:
        FileFormatError, InputError, BackendError: the sentence names the file, without its folder.
    """
    model, reason = settings.model, "chosen"

    def pick(values: NDArray, axes: str, colour: bool) -> Denoiser:
        nonlocal model, reason
        if settings.model == "auto":
            model, reason = choose_for(values, axes, colour, part.white)
        return open_model(model, settings.device)

    try:
        found = read_picture(file, MAX_PIXELS)
        part = found.parts[0]
        if len(found.parts) > 1 or set(part.axes) & set("TZ"):
            raise InputError(f"a stack, {part.axes} of shape {part.array.shape}; this page takes single pictures: use fastbsn denoise")
        start, named = time.perf_counter(), settings.model != "auto"
        options = {"data_range": part.white, "strength": settings.strength}
        clean = denoise_channels(part.array, part.axes, part.channels, pick, named, **options)
        seconds = time.perf_counter() - start
    except FastBSNError as error:
        sentence = str(error).replace(str(file), file.name)
        raise type(error)(sentence if file.name in sentence else f"{file.name}: {sentence}") from error
    before, after = (np.ascontiguousarray(p.pixels) for p in (part, replace(part, array=clean)))
    axes = "YX" if before.ndim == 2 else "YXC"
    return Result(before, after, noise_found(picture(before, axes)), model, reason, seconds, found)


def save(path: Path, result: Result, quality: int | None = None) -> None:
    """Write a result as a file like the one that was read, metadata included."""
    part = result.picture.parts[0]
    array = np.moveaxis(result.after, -1, part.axes.index("C")) if "C" in part.axes else result.after
    write_picture(path, result.picture, [np.ascontiguousarray(array)], quality)


def show(result: Result, file: Path, folder: Path, quality: int | None = None) -> Shown:
    """Write what the page shows of a result, and the result in the format of `file`, to a new folder in `folder`."""
    axes = "YX" if result.before.ndim == 2 else "YXC"
    shown = view(picture(result.before, axes), picture(result.after, axes))
    target = Path(tempfile.mkdtemp(dir=folder))
    files = Shown(target / "before.png", target / "after.png", target / denoised_name(file), *shown.before.shape[:2])
    write_bytes(files.before, encode(shown.before, ".png"))
    write_bytes(files.after, encode(shown.after, ".png"))
    save(files.saved, result, quality)
    return files


def denoised_name(file: Path) -> str:
    """`photo.jpg` -> `photo-denoised.jpg`: a downloads folder often holds the picture itself."""
    return f"{file.stem}-denoised{file.suffix}"


def denoise_all(files: Sequence[Path], settings: Settings, archive: Path, quality: int | None = None) -> list[str]:
    """Denoise pictures into a ZIP archive, each in its own format; pictures of the same name are numbered.

    Returns:
        The sentences of the pictures that failed; the others are in the archive.
    """
    failed, taken = [], set()
    with tempfile.TemporaryDirectory(dir=archive.parent) as temporary, atomic_file(archive) as out:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as pack:  # pictures are compressed already
            for file in files:
                name, n = file, 1
                while denoised_name(name) in taken:
                    n += 1
                    name = file.with_stem(f"{file.stem}-{n}")
                part = Path(temporary) / f"part{file.suffix}"
                try:
                    save(part, denoise(file, settings), quality)
                except FastBSNError as error:
                    failed.append(str(error))
                    continue
                pack.write(part, denoised_name(name))
                taken.add(denoised_name(name))
    return failed
