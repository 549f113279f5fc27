"""TIFF (tifffile). A result is written as a copy of the input file with other pixels, so that every tag of every page is kept."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage, TiffPageSeries

from fastbsn.errors import FileFormatError
from fastbsn.io.atomic import atomic_file
from fastbsn.io.checks import check_dtype, check_page, check_tiff
from fastbsn.io.picture import Part, Picture

AXES = "TZCYX"
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
_EXACT = (COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS, COMPRESSION.ZSTD)
_PHOTOMETRIC, _COMPRESSION, _PREDICTOR, _SUBSAMPLING, _LONG, _LONG8 = 262, 259, 317, 530, 4, 16
# Copied to pages that are made anew: descriptions, makers, resolution in other units, XMP, IPTC, Photoshop, ICC profile.
_COPIED = (269, 270, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 33723, 34377, 34675)


def read_tiff(file: BinaryIO, max_pixels: int) -> Picture:
    """All images of a file, the smaller versions of a pyramid included. OME metadata that point to other files are not followed."""
    size, stored, parts = file.seek(0, io.SEEK_END), 0, []
    check_tiff(file)
    file.seek(0)
    with TiffFile(file, name="file", _multifile=False) as tiff:
        for series in _images(tiff):
            pages = _pages(series)
            stored += sum(check_page(page, size, max_pixels) for page in pages)
            # ImageJ may store a stack as one block behind its only page; then the series alone knows how long it is.
            held = series.dataoffset is not None and series.dataoffset + series.nbytes <= size
            if stored > size or (not held and series.nbytes > sum(page.nbytes for page in pages)):
                raise FileFormatError(f"truncated: shape {series.shape} from {len(pages)} pages of {stored} bytes, in a file of {size}")
            parts.append(_part(series, pages[0]))
    if not parts:
        raise FileFormatError("no images in it; expected at least one page")
    return Picture(parts, "TIFF")


def _images(tiff: TiffFile) -> list[TiffPageSeries]:
    return [level for series in tiff.series for level in series.levels]


def _pages(series: TiffPageSeries) -> list[TiffPage]:
    return [page.aspage() for page in series.pages if page is not None]


def _white(page: TiffPage) -> int:
    """Largest value that the bits of a sample make."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    return 2**bits - 1


def _expands(page: TiffPage) -> bool:
    """Whether reading makes other samples of it: palettes, and less than 8 bits."""
    return page.photometric == PHOTOMETRIC.PALETTE or _white(page) < 255


def _part(series: TiffPageSeries, page: TiffPage) -> Part:
    array, axes, white = series.asarray(), series.axes, _white(page)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        colours = (page.colormap.T >> (8 if page.colormap.max() > 255 else 0)).astype(np.uint8)
        array, axes, white = colours[array], axes + "S", 255
    elif white < 255:
        array, white = array.astype(np.uint8) * np.uint8(255 // white), 255
    check_dtype(array.dtype)
    if page.photometric == PHOTOMETRIC.MINISWHITE and array.dtype.kind == "u":
        array = array.dtype.type(white) - array
    axes = axes.replace("I", "T").replace("Q", "T")
    samples = "S" in axes and "C" not in axes
    axes = axes.replace("S", "C") if samples else axes
    if len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise FileFormatError(f"axes {series.axes} of shape {series.shape}; expected each of {AXES} at most once: split the file")
    depth = array.shape[axes.index("C")] if "C" in axes else 1
    known = white if array.dtype.kind == "u" and white < np.iinfo(array.dtype).max else None
    return Part(array, axes, _channels(page, depth, samples), known)


def _channels(page: TiffPage, depth: int, samples: bool) -> str:
    if depth == 1:
        return "L"
    if not samples:  # fluorescence, polarisation, time: each its own picture
        return "X" * depth
    colour = page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.PALETTE) and depth >= 3
    gray = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
    extra = "".join("A" if kind in _ALPHA else "X" for kind in page.extrasamples)
    letters = "RGB" if colour else "L" if gray and "A" in extra else ""
    return (letters + extra if len(letters + extra) == depth else letters.ljust(depth, "X"))[:depth]


def write_tiff(path: Path, picture: Picture, arrays: list[NDArray]) -> None:
    """The file that `picture` was read from, with the pixels of `arrays`, which have the shapes of its parts."""
    source: Path = picture.kept["source"]
    with atomic_file(path, source.stat().st_size) as file, TiffFile(source, _multifile=False) as tiff:
        images = _images(tiff)
        if any(_expands(_pages(series)[0]) for series in images):
            _write_anew(file, images, picture.parts, arrays)
            return
        with open(source, "rb") as old:
            shutil.copyfileobj(old, file)
        file.seek(0)
        with TiffFile(file, mode="r+", _multifile=False) as copy:
            for series, array in zip(_images(copy), arrays, strict=True):
                _replace(copy, file, series, _as_stored(array, _pages(series)[0]))


def _as_stored(array: NDArray, page: TiffPage) -> NDArray:
    if page.photometric == PHOTOMETRIC.MINISWHITE and array.dtype.kind == "u":
        return array.dtype.type(_white(page)) - array
    return array


def _replace(tiff: TiffFile, file: BinaryIO, series: TiffPageSeries, array: NDArray) -> None:
    """Put other pixels into a series: over the old ones where they fit, else at the end of the file."""
    if series.dataoffset is not None:
        file.seek(series.dataoffset)
        stored = array.astype(array.dtype.newbyteorder(tiff.byteorder), copy=False)
        for block in stored if stored.ndim > 2 else [stored]:
            file.write(np.ascontiguousarray(block).data)
        return
    pages = _pages(series)
    for page, image in zip(pages, array.reshape(len(pages), *pages[0].shape), strict=True):
        segments = list(_encode(page, image, tiff.byteorder))
        offsets = []
        for i, data in enumerate(segments):
            fits = i < len(page.databytecounts) and len(data) <= page.databytecounts[i]
            offsets.append(file.seek(page.dataoffsets[i]) if fits else file.seek(0, io.SEEK_END))
            file.write(data)
        kind = _LONG8 if tiff.is_bigtiff else _LONG
        for code, values in zip((324, 325) if page.is_tiled else (273, 279), (offsets, list(map(len, segments))), strict=True):
            page.tags[code].overwrite(values if len(values) > 1 else values[0], dtype=kind)
        if page.compression not in _EXACT:  # lossy, or of a kind that is read only
            page.tags[_COMPRESSION].overwrite(COMPRESSION.ADOBE_DEFLATE)
            if page.photometric == PHOTOMETRIC.YCBCR:
                page.tags[_PHOTOMETRIC].overwrite(PHOTOMETRIC.RGB)
            if _SUBSAMPLING in page.tags:
                page.tags[_SUBSAMPLING].overwrite((1, 1))
            if _PREDICTOR in page.tags:
                page.tags[_PREDICTOR].overwrite(1)


def _encode(page: TiffPage, image: NDArray, byteorder: Literal["<", ">"]) -> Iterator[bytes]:
    """The segments of a page, encoded by tifffile as the page is."""
    exact, file = page.compression in _EXACT, io.BytesIO()
    options: dict[str, Any] = {"tile": (page.tilelength, page.tilewidth)} if page.is_tiled else {"rowsperstrip": page.rowsperstrip}
    if image.ndim == 3:
        options |= {"planarconfig": page.planarconfig, "extrasamples": page.extrasamples}
    tifffile.imwrite(
        file,
        image,
        byteorder=byteorder,
        photometric=PHOTOMETRIC.RGB if page.photometric == PHOTOMETRIC.YCBCR else page.photometric,
        compression=page.compression if exact else COMPRESSION.ADOBE_DEFLATE,
        predictor=page.predictor if exact else None,
        bitspersample=page.bitspersample if isinstance(page.bitspersample, int) else None,
        metadata=None,
        **options,
    )
    file.seek(0)
    with TiffFile(file) as made:
        first = made.pages.first
        for offset, count in zip(first.dataoffsets, first.databytecounts, strict=True):
            file.seek(offset)
            yield file.read(count)


def _write_anew(file: BinaryIO, images: list[TiffPageSeries], parts: list[Part], arrays: list[NDArray]) -> None:
    """Pages whose samples became others: 8-bit gray or RGB in place of bits and palettes."""
    with tifffile.TiffWriter(file) as writer:
        for series, part, array in zip(images, parts, arrays, strict=True):
            page = _pages(series)[0]
            colour = part.channels.startswith("RGB")
            planar = colour and not part.axes.endswith("C")
            tags = [(t.code, t.dtype, t.count, t.value, True) for t in page.tags if t.code in _COPIED]
            writer.write(
                array,
                photometric="rgb" if colour else "minisblack",
                planarconfig=PLANARCONFIG.SEPARATE if planar else None,
                compression=None if page.compression == COMPRESSION.NONE else COMPRESSION.ADOBE_DEFLATE,
                resolution=page.resolution,
                resolutionunit=page.resolutionunit,
                description=None,
                software=False,
                extratags=tags,
                metadata=None,
            )
