"""TIFF stacks: axes and values come back; lies about size, loops and other files do not get through."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
import tifffile

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.checks import DTYPES
from fastbsn.io.image_files import read_image
from fastbsn.io.stacks import read_stack, write_stack

SIZES = {"T": 5, "Z": 2, "C": 3, "Y": 6, "X": 7}


def sample(rng, axes: str, dtype: str = "uint16") -> np.ndarray:
    return rng.uniform(0, 200, [SIZES[a] for a in axes]).astype(dtype)


@pytest.mark.parametrize("axes", ["YX", "TYX", "ZYX", "CYX", "TZYX", "TZCYX", "TYXC", "YXC", "TZYXC", "ZTYX", "YXT", "XY"])
def test_round_trip_keeps_axes_dtype_and_values(tmp_path, rng, axes):
    for dtype in DTYPES:
        array = sample(rng, axes, dtype)
        write_stack(tmp_path / "a.tif", array, axes)
        back, found = read_stack(tmp_path / "a.tif")
        assert found == axes and back.dtype == array.dtype and np.array_equal(back, array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_sees_a_hyperstack(tmp_path, rng, dtype):
    write_stack(tmp_path / "a.tif", sample(rng, "TZCYX", dtype), "TZCYX")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej and tiff.imagej_metadata["frames"] == 5 and tiff.imagej_metadata["slices"] == 2


def test_stacks_of_other_writers(tmp_path, rng):
    array = sample(rng, "TYX", "float32")
    tifffile.imwrite(tmp_path / "plain.tif", array, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "ome.tif", array, ome=True, photometric="minisblack", metadata={"axes": "ZYX"}, compression="zlib")
    tifffile.imwrite(tmp_path / "imagej.tif", array, imagej=True, metadata={"axes": "TYX"}, byteorder=">")
    tifffile.imwrite(tmp_path / "big.tif", array, bigtiff=True, photometric="minisblack", byteorder=">")
    for name, axes in {"plain.tif": "TYX", "ome.tif": "ZYX", "imagej.tif": "TYX", "big.tif": "TYX"}.items():
        back, found = read_stack(tmp_path / name)
        assert found == axes and back.dtype == np.float32 and np.array_equal(back, array), name


def test_a_single_image_is_a_stack_of_two_axes_and_readable_as_an_image(tmp_path, rng):
    array = sample(rng, "YX")
    write_stack(tmp_path / "a.tif", array, "YX")
    assert read_stack(tmp_path / "a.tif")[1] == "YX" and np.array_equal(read_image(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("options", [{"imagej": True}, {"photometric": "minisblack"}, {"ome": True, "photometric": "minisblack"}])
def test_truncated_stacks_are_refused(tmp_path, rng, options):
    path, array = tmp_path / "a.tif", sample(rng, "TYX")
    tifffile.imwrite(path, array, metadata={"axes": "TYX"}, **options)
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        try:
            back, _ = read_stack(path)
        except FileFormatError:
            continue
        assert np.array_equal(back, array), cut  # only what follows the pixels was cut


def directory(width: int, height: int, offset: int, stored: int, next_directory: int) -> bytes:
    """A little-endian TIFF directory of one gray 8-bit strip."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, offset),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, stored),
    ]
    return struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags) + struct.pack("<I", next_directory)


def test_pages_that_share_their_data_or_form_a_loop_are_refused(tmp_path):
    path, length = tmp_path / "a.tif", len(directory(8, 8, 0, 64, 0))
    header = b"II*\0" + struct.pack("<I", 72) + bytes(range(64))
    pages = [directory(8, 8, 8, 64, 72 + length * (i + 1)) for i in range(3)]
    path.write_bytes(header + directory(8, 8, 8, 64, 0))
    assert np.array_equal(read_stack(path)[0].ravel(), np.arange(64))
    path.write_bytes(header + b"".join(pages) + directory(8, 8, 8, 64, 0) + bytes(8))
    assert read_stack(path)[0].shape == (4, 8, 8)  # sharing, and still fewer pixels than the file has bytes
    path.write_bytes(header + b"".join(directory(8, 8, 8, 64, 72 + length * (i + 1)) for i in range(99)) + directory(64, 64, 8, 64, 0))
    with pytest.raises(FileFormatError):
        read_stack(path)
    path.write_bytes(header + pages[0] + directory(8, 8, 8, 64, 72))
    with pytest.raises(FileFormatError, match="2 pages form a loop"):
        read_stack(path)


@pytest.mark.parametrize(
    "data, text",
    [
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**28), "268435456 tags in one directory"),
        (
            b"MM\0*\0\0\0\x08" + struct.pack(">HHHIII", 1, 273, 1, 2**32 - 1, 8, 0),
            "tag 273 has 4294967295 values of type 1 at 8; the file has 26",
        ),
    ],
)
def test_directories_are_checked_before_tifffile_reads_them(tmp_path, data, text):
    (tmp_path / "a.tif").write_bytes(data)
    for read in (read_stack, read_image):
        with pytest.raises(FileFormatError, match=text):
            read(tmp_path / "a.tif")


def test_metadata_do_not_open_other_files(tmp_path, rng):
    """OME metadata may name further files; only the file that was asked for is read."""
    array = sample(rng, "ZYX")
    tifffile.imwrite(tmp_path / "b.ome.tif", array, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tiff:
        xml = tiff.ome_metadata
    theirs = re.search(r"urn:uuid:[-0-9a-f]+", xml)[0]
    ours = "urn:uuid:11111111-1111-1111-1111-111111111111"
    planes = "".join(
        f'<TiffData FirstZ="{i}" IFD="{i}" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for i, (name, uuid) in enumerate([("a.ome.tif", ours), ("b.ome.tif", theirs)])
    )
    xml = re.sub(r"<TiffData[^>]*/>", planes, xml.replace(theirs, ours))
    tifffile.imwrite(tmp_path / "a.ome.tif", array[0], description=xml.encode(), metadata=None)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert np.array_equal(tiff.series[0].asarray(), array), "tifffile no longer follows such names: this test proves nothing"
    back, axes = read_stack(tmp_path / "a.ome.tif")
    assert axes == "YX" and np.array_equal(back, array[0])


@pytest.mark.parametrize(
    "lie",
    [
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">',
        '{"shape": [2, 6, 7], "axes": "ZYX"}',
        "ImageJ=1.11a\nimages=2\nslices=2\n",
    ],
)
def test_metadata_do_not_make_pages_of_other_bytes(tmp_path, rng, lie):
    """A description that promises two pages where there is one; the rest of the file is not pixels."""
    array = sample(rng, "YX")
    tifffile.imwrite(tmp_path / "a.tif", array, description=lie.encode(), metadata=None)
    try:
        back, _ = read_stack(tmp_path / "a.tif")
    except FileFormatError:
        return
    assert np.array_equal(back, array)


def test_wrong_arguments(tmp_path, rng):
    array = sample(rng, "TYX")
    for name, values, axes in [("a.png", array, "TYX"), ("a.tif", array, "YX"), ("a.tif", array, "TTX"), ("a.tif", array, "TQX")] + [
        ("a.tif", array, "TZC"), ("a.tif", array.astype(int), "TYX"), ("a.tif", array[:0], "TYX")
    ]:  # fmt: skip
        with pytest.raises(InputError):
            write_stack(tmp_path / name, values, axes)
    with pytest.raises(InputError):
        read_stack(tmp_path / "none.tif")
    (tmp_path / "a.tif").write_bytes(b"text")
    with pytest.raises(FileFormatError):
        read_stack(tmp_path / "a.tif")
