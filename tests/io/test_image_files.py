"""Image files: exact round trips, the conventions of each format, and refusals."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import tifffile

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io import checks, image_files
from fastbsn.io.image_files import SUFFIXES, list_images, read_image, read_picture, write_image, write_picture
from tests.io.files import chunk, exif, png, repair_checksums

LOSSLESS = [(s, d) for s in (".png", ".tif", ".TIFF", ".npy") for d in checks.DTYPES if s != ".png" or d in ("uint8", "uint16")]


def sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    high = {"uint8": 256, "uint16": 65536, "int8": 127, "int16": 32767, "uint32": 2**32, "int32": 2**31 - 1}.get(dtype)
    return rng.integers(0, high, shape, dtype) if high else rng.normal(0, 1, shape).astype(dtype)


@pytest.mark.parametrize("suffix, dtype", LOSSLESS)
def test_round_trip_is_exact(tmp_path, rng, suffix, dtype):
    for shape in [(1, 1), (1, 7), (5, 1), (13, 17), (6, 5, 3), (6, 5, 4), (1, 1, 3)]:
        array = sample(rng, shape, dtype)
        stored = array.copy()
        write_image(tmp_path / f"a{suffix}", array)
        back = read_image(tmp_path / f"a{suffix}")
        assert back.dtype == array.dtype and back.shape == shape and np.array_equal(back, stored) and np.array_equal(array, stored)
        assert back.flags.writeable and back.flags.c_contiguous


def test_layouts_other_than_contiguous_are_written_as_they_look(tmp_path, rng):
    array = sample(rng, (9, 8, 3), "uint16")
    for view in (array[::2, ::-1], array.transpose(1, 0, 2), np.asfortranarray(array), array.astype(">u2")):
        for suffix in (".png", ".tif", ".npy"):
            write_image(tmp_path / f"a{suffix}", view)
            assert np.array_equal(read_image(tmp_path / f"a{suffix}"), view)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_jpeg_is_close_and_in_rgb_order(tmp_path, shape):
    array = np.zeros(shape, np.uint8)
    array[..., 0 if len(shape) == 3 else slice(None)] = np.linspace(0, 255, 50).astype(np.uint8)
    for suffix in (".jpg", ".JPEG"):
        write_image(tmp_path / f"a{suffix}", array, quality=100)
        back = read_image(tmp_path / f"a{suffix}")
        assert back.shape == shape and back.dtype == np.uint8
        assert np.abs(back.astype(int) - array).mean() < 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_of_another_writer(tmp_path, rng, dtype, interlaced, channels):
    for h, w in [(1, 1), (3, 2), (8, 9), (19, 33)]:
        array = sample(rng, (h, w, channels) if channels > 1 else (h, w), dtype)
        (tmp_path / "a.png").write_bytes(png(array, interlaced=interlaced))
        assert np.array_equal(read_image(tmp_path / "a.png"), array)


def test_png_colour_chunks_do_not_change_the_data(tmp_path, rng):
    array = sample(rng, (6, 7, 3))
    for gamma in (22727, 45455, 100000):
        extra = chunk(b"gAMA", struct.pack(">I", gamma)) + chunk(b"cHRM", struct.pack(">8I", *[30000] * 8)) + chunk(b"tEXt", b"a\0b")
        for dtype in ("uint8", "uint16"):
            (tmp_path / "a.png").write_bytes(png(array.astype(dtype), extra=extra))
            assert np.array_equal(read_image(tmp_path / "a.png"), array)


def test_png_palettes_are_expanded_and_gray_with_alpha_is_kept(tmp_path, rng):
    indices, palette = sample(rng, (5, 6)) % 4, sample(rng, (4, 3))
    (tmp_path / "a.png").write_bytes(png(indices, 3, chunk(b"PLTE", palette.tobytes())))
    assert np.array_equal(read_image(tmp_path / "a.png"), palette[indices])
    both = sample(rng, (5, 6, 2))
    (tmp_path / "a.png").write_bytes(png(both))
    assert np.array_equal(read_image(tmp_path / "a.png"), both)


def test_jpeg_orientation_is_applied(tmp_path):
    array = np.zeros((16, 32), np.uint8)
    array[:, :16] = 200  # bright left half
    data = cv2.imencode(".jpg", array)[1].tobytes()
    for orientation, bright in {1: np.s_[:, :16], 3: np.s_[:, 16:], 6: np.s_[:16], 8: np.s_[16:]}.items():
        (tmp_path / "a.jpg").write_bytes(data[:2] + exif(orientation) + data[2:])
        back = read_image(tmp_path / "a.jpg")
        assert back.ndim == 2 and back[bright].mean() > 190 and back.mean() < 110, orientation


def test_jpeg_thumbnails_and_trailing_data_are_not_the_end(tmp_path, rng):
    data = cv2.imencode(".jpg", sample(rng, (24, 24, 3)))[1].tobytes()
    thumbnail = b"\xff\xe2" + struct.pack(">H", len(data) + 2) + data  # as cameras store a preview
    whole = data[:2] + thumbnail + data[2:]
    (tmp_path / "a.jpg").write_bytes(whole + b"MPF appendix")
    assert read_image(tmp_path / "a.jpg").shape == (24, 24, 3)
    for cut in (len(thumbnail) + 2, len(whole) - 3, len(whole) // 2 + 40):
        (tmp_path / "a.jpg").write_bytes(whole[:cut])
        with pytest.raises(FileFormatError, match="truncated"):
            read_image(tmp_path / "a.jpg")


def test_progressive_jpeg(tmp_path, rng):
    array = cv2.GaussianBlur(sample(rng, (40, 56, 3)), (9, 9), 3)
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    assert np.abs(read_image(tmp_path / "a.jpg")[..., ::-1].astype(int) - array).mean() < 4


@pytest.mark.parametrize("options", [
    {"compression": "zlib"}, {"compression": "lzw", "predictor": True}, {"compression": "zstd"}, {"bigtiff": True}, {"byteorder": ">"},
    {"tile": (16, 16)}, {"rowsperstrip": 3}, {"planarconfig": "separate"},
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_another_writer(tmp_path, rng, options, dtype):
    array = sample(rng, (21, 18, 3), dtype)
    planar = np.moveaxis(array, -1, 0) if "planarconfig" in options else array
    tifffile.imwrite(tmp_path / "a.tif", planar, photometric="rgb", **options)
    back = read_image(tmp_path / "a.tif")
    assert back.dtype == np.dtype(dtype) and np.array_equal(back, array)


def test_tiff_with_white_zero_is_turned_over(tmp_path, rng):
    array = sample(rng, (5, 6), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif"), 65535 - array)


def test_npy_of_another_machine(tmp_path, rng):
    array = sample(rng, (5, 6, 3), "float32")
    for stored in (array.astype(">f4"), np.asfortranarray(array)):
        np.save(tmp_path / "a.npy", stored)
        back = read_image(tmp_path / "a.npy")
        assert back.dtype == np.float32 and back.dtype.isnative and back.flags.c_contiguous and np.array_equal(back, array)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_is_what_its_content_is(tmp_path, rng, suffix):
    """Downloads are often named .jpg and hold a PNG or WebP; arrays are not pictures."""
    named = image_files.FORMATS[suffix]
    for other in (".png", ".jpg", ".webp", ".bmp", ".tif", ".npy"):
        array, kind, path = sample(rng, (8, 8, 3)), image_files.FORMATS[other], tmp_path / f"b{suffix}"
        write_image(tmp_path / f"a{other}", array)
        path.write_bytes((tmp_path / f"a{other}").read_bytes())
        if named != kind and "NPY" in (named, kind):
            with pytest.raises(FileFormatError, match=f"content is {kind} and the name says {named}"):
                read_image(path)
            continue
        picture = read_picture(path)
        assert picture.kind == kind and np.array_equal(read_image(path), read_image(tmp_path / f"a{other}"))
        assert any(f"content is {kind}" in w for w in picture.warnings) == (kind != named)
        out = tmp_path / f"out{suffix}"
        write_picture(out, picture, [picture.parts[0].array])
        assert read_picture(out).kind == kind and read_image(out).shape == (8, 8, 3)
    (tmp_path / f"b{suffix}").write_bytes(b"GIF89a and so on")
    with pytest.raises(FileFormatError, match="unknown"):
        read_image(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".npy"])
def test_every_truncation_is_refused(tmp_path, rng, suffix):
    """At every byte: no decoder may fill in what is missing."""
    path = tmp_path / f"a{suffix}"
    write_image(path, sample(rng, (5, 4, 3)))
    data = path.read_bytes()
    for cut in range(len(data) - 2 * (suffix == ".jpg")):  # only the end-of-image marker
        path.write_bytes(data[:cut])
        with pytest.raises(FileFormatError):
            read_image(path)


def test_png_damage_is_found_even_with_repaired_checksums(tmp_path, rng):
    data = bytearray(png(sample(rng, (9, 11, 3))))
    position = data.index(b"IDAT") + 30
    data[position] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(FileFormatError, match="checksum of chunk b'IDAT'"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(repair_checksums(bytes(data)))
    with pytest.raises(FileFormatError):
        read_image(tmp_path / "a.png")


def test_png_with_too_few_rows_is_refused(tmp_path, rng):
    (tmp_path / "a.png").write_bytes(png(sample(rng, (9, 11)), size=(11, 10)))
    with pytest.raises(FileFormatError, match="pixel data end after 108 bytes; 11 x 10 pixels need 120"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy"])
def test_the_pixel_limit_is_an_argument(tmp_path, rng, suffix):
    write_image(tmp_path / f"a{suffix}", sample(rng, (8, 9)))
    assert read_image(tmp_path / f"a{suffix}", max_pixels=72).shape == (8, 9)
    with pytest.raises(FileFormatError, match="9 x 8 pixels; expected 1 to 71"):
        read_image(tmp_path / f"a{suffix}", max_pixels=71)


def test_unsupported_kinds_are_named(tmp_path, rng):
    tifffile.imwrite(tmp_path / "pages.tif", sample(rng, (2, 5, 6)), photometric="minisblack")
    tifffile.imwrite(tmp_path / "complex.tif", sample(rng, (5, 6)).astype(np.complex64))
    tifffile.imwrite(tmp_path / "lab.tif", sample(rng, (5, 6, 3)), photometric="cielab")
    np.save(tmp_path / "object.npy", np.array([[{}]], object), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.zeros((2, 2), complex))
    np.save(tmp_path / "line.npy", np.zeros(4))
    np.save(tmp_path / "nothing.npy", np.zeros((0, 4)))
    np.save(tmp_path / "long.npy", np.zeros((2, 3)))
    (tmp_path / "long.npy").write_bytes((tmp_path / "long.npy").read_bytes() + b"\0")
    np.save(tmp_path / "flat.npy", np.zeros((2, 3, 0)))
    texts = {
        "pages.tif": "a stack, TYX",
        "complex.tif": "complex64",
        "lab.tif": "CIELAB",
        "object.npy": "object",
        "complex.npy": "complex128",
    }
    lengths = {
        "line.npy": "shape",
        "nothing.npy": "4 x 0 pixels",
        "long.npy": "49 bytes of values; float64 .* needs 48",
        "flat.npy": "needs 0",
    }
    for name, text in (texts | lengths).items():
        with pytest.raises(FileFormatError, match=text):
            read_image(tmp_path / name)


def test_what_a_format_cannot_hold_is_refused(tmp_path, rng):
    shapes = ((4, 4), "float32"), ((4, 4, 3), "uint16"), ((4, 4, 4), "uint8")
    float_image, colour, alpha = (sample(rng, *s) for s in shapes)
    for name, array in [
        ("a.png", float_image), ("a.jpg", colour), ("a.jpg", alpha), ("a.tif", alpha[..., :2]), ("a.npy", np.zeros((2, 2), np.int64)),
        ("a.png", np.zeros((0, 4), np.uint8)), ("a.tif", np.zeros((2, 3, 4, 3), np.uint8)), ("a.gif", alpha), ("a", alpha),
    ]:  # fmt: skip
        with pytest.raises(InputError):
            write_image(tmp_path / name, array)
    assert not list(tmp_path.iterdir())


def test_missing_and_unknown_files_are_input_errors(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "a.gif", "folder.png"):
        with pytest.raises(InputError):
            read_image(tmp_path / name)
    with pytest.raises(InputError):
        list_images(tmp_path / "none")


def test_listing_takes_images_in_order_and_nothing_else(tmp_path):
    for name in ("b.png", "a.JPG", "c.npy", "d.txt", ".hidden.png", ".fastbsn-1.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png", "c.npy"]
