"""What files hold beside pixels: the meaning of channels, bit depths and pages; and that writing a result like its input loses nothing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from fastbsn.errors import FileFormatError
from fastbsn.io.image_files import read_image, read_picture, write_picture
from tests.io.files import chunk, png

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>film 7</a></x:xmpmeta>"


def smooth(shape: tuple[int, ...], dtype: str = "uint8", high: int = 200) -> np.ndarray:
    i = np.indices(shape)
    return ((np.sin(i[-1] / 9) + np.cos(i[-2] / 7) + sum(i) * 0.01) % 1 * high).astype(dtype)


def exif(orientation: int = 1) -> bytes:
    e = Image.Exif()
    e[0x0112], e[0x010F], e[0x013B] = orientation, "maker", "artist"
    e.get_ifd(0x8769)[0x829A] = 0.01
    e.get_ifd(0x8825)[1] = "N"
    return e.tobytes()


def rewritten(path: Path, change=lambda x: x, quality: int | None = None) -> Path:
    """The file beside `path` that a result is written to: every part changed by `change`."""
    target = path.with_name(f"out{path.suffix}")
    picture = read_picture(path)
    write_picture(target, picture, [change(part.array) for part in picture.parts], quality)
    return target


def darker(x: np.ndarray) -> np.ndarray:
    return (x * 0.5).astype(x.dtype)


@pytest.mark.parametrize("shape, dtype", [((6, 7), "uint8"), ((6, 7, 2), "uint16"), ((6, 7, 3), "uint16"), ((6, 7, 4), "uint8")])
def test_png_keeps_every_chunk_that_still_holds(tmp_path, shape, dtype):
    kept = [(b"gAMA", struct.pack(">I", 45455)), (b"iCCP", b"p\0\0" + zlib.compress(ICC)), (b"pHYs", struct.pack(">IIB", 11811, 11811, 1))]
    kept += [(b"tEXt", b"Title\0film 7"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), (b"eXIf", exif()[6:])]
    dropped = [(b"tIME", bytes(7)), (b"bKGD", bytes(2 if len(shape) == 2 or shape[2] == 2 else 6))]
    path, image = tmp_path / "a.png", smooth(shape, dtype)
    path.write_bytes(png(image, extra=b"".join(chunk(*c) for c in kept + dropped)))
    out = rewritten(path, darker)
    assert np.array_equal(read_image(out), darker(image)) and read_image(out).dtype == dtype
    data = out.read_bytes()
    assert all(chunk(*c) in data for c in kept) and not any(name in data for name, _ in dropped)
    with Image.open(out) as opened:
        assert opened.info["icc_profile"] == ICC and opened.info["Title"] == "film 7" and opened.getexif()[0x010F] == "maker"


@pytest.mark.parametrize("suffix, options", [(".jpg", {"quality": 60}), (".webp", {"lossless": True})])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_and_webp_keep_metadata_and_apply_the_orientation_once(tmp_path, suffix, options, orientation):
    path = tmp_path / f"a{suffix}"
    comment = {"comment": b"by hand", "dpi": (300, 300)} if suffix == ".jpg" else {}
    Image.fromarray(smooth((16, 40, 3))).save(path, exif=exif(orientation), icc_profile=ICC, xmp=XMP, **comment, **options)
    upright = (40, 16, 3) if orientation == 6 else (16, 40, 3)
    assert read_image(path).shape == upright
    with Image.open(rewritten(path)) as out:
        e = out.getexif()
        assert out.size == (upright[1], upright[0]) and e.get(0x0112, 1) == 1
        assert (e[0x010F], e[0x013B], e.get_ifd(0x8769)[0x829A], e.get_ifd(0x8825)[1]) == ("maker", "artist", 0.01, "N")
        assert out.info["icc_profile"] == ICC and b"film 7" in out.info["xmp"]
        if comment:
            assert out.info["comment"] == b"by hand" and out.info["dpi"] == (300, 300)


def test_jpeg_keeps_its_compression_unless_told(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth((64, 64, 3))).save(path, quality=55, subsampling="4:2:2", progressive=True)
    with Image.open(path) as before, Image.open(rewritten(path)) as after:
        assert after.quantization == before.quantization and after.info["progressive"]
        assert [c[1:3] for c in after.layer] == [c[1:3] for c in before.layer] == [(2, 1), (1, 1), (1, 1)]
    small = rewritten(path).stat().st_size
    assert rewritten(path, quality=98).stat().st_size > 1.5 * small


@pytest.mark.parametrize("suffix, mode", [(".jpg", "L"), (".jpg", "CMYK"), (".bmp", "RGB"), (".bmp", "L"), (".webp", "RGBA")])
def test_the_kind_of_pixel_comes_back(tmp_path, suffix, mode):
    path, depth = tmp_path / f"a{suffix}", len(mode)
    image = smooth((24, 32, depth) if depth > 1 else (24, 32))
    made = Image.frombytes(mode, (32, 24), image.tobytes())
    made.save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {"quality": 95} if suffix == ".jpg" else {}))
    part = read_picture(path).parts[0]
    assert part.channels == {"CMYK": "XXXX"}.get(mode, mode) and part.array.shape == image.shape
    assert np.abs(part.array.astype(int) - image).max() <= (8 if suffix == ".jpg" else 0)
    with Image.open(rewritten(path)) as out:
        assert out.mode == mode and np.abs(np.asarray(out).astype(int) - part.array).max() <= (8 if suffix == ".jpg" else 0)


def test_a_jpeg_without_an_end_is_decoded_with_a_warning_and_one_without_pixels_is_not(tmp_path):
    path, file = tmp_path / "a.jpg", io.BytesIO()
    Image.fromarray(smooth((64, 80, 3))).save(file, "JPEG", quality=90)
    data, whole = file.getvalue(), np.asarray(Image.open(file))
    for tail in (b"", b"SEFH\x90\0\0\x01\x02 a trailer of some phone"):
        path.write_bytes(data[:-2] + tail)
        picture = read_picture(path)
        assert np.array_equal(picture.parts[0].array, whole) and "end-of-image" in picture.warnings[0]
    for cut in (3, 20, len(data) // 3):
        path.write_bytes(data[:-cut])
        with pytest.raises(FileFormatError, match="truncated"):
            read_picture(path)
    file = io.BytesIO()
    Image.fromarray(smooth((64, 80, 3))).save(file, "JPEG", progressive=True)
    path.write_bytes(file.getvalue()[:-2])  # whether a scan is missing cannot be known
    with pytest.raises(FileFormatError, match="truncated"):
        read_picture(path)


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(smooth((16, 16, 3)) // (i + 1)) for i in range(3)]
    for suffix in (".png", ".webp"):
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(FileFormatError, match="animated|3 frames"):
            read_picture(tmp_path / f"a{suffix}")


def tags(path: Path) -> list[dict[int, object]]:
    """All tags of all pages but where the segments are."""
    with tifffile.TiffFile(path) as tiff:
        return [{t.code: t.value for t in page.tags if t.code not in (273, 279, 324, 325)} for page in tiff.pages]


TIFFS = {
    "lzw with predictor": ((30, 40, 3), {"photometric": "rgb", "compression": "lzw", "predictor": True, "rowsperstrip": 7}),
    "deflate tiles": ((40, 50), {"photometric": "minisblack", "compression": "zlib", "tile": (16, 16)}),
    "planar": ((3, 30, 40), {"photometric": "rgb", "planarconfig": "separate"}),
    "planar, compressed": ((3, 30, 40), {"photometric": "rgb", "planarconfig": "separate", "compression": "zstd"}),
    "big-endian BigTIFF": ((2, 30, 40), {"photometric": "minisblack", "bigtiff": True, "byteorder": ">"}),
    "white is zero": ((30, 40), {"photometric": "miniswhite", "compression": "packbits"}),
    "CMYK": ((30, 40, 4), {"photometric": "separated"}),
    "strips": ((30, 40), {"photometric": "minisblack", "rowsperstrip": 4}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("kind", TIFFS)
def test_tiff_keeps_every_tag_and_its_compression(tmp_path, kind, dtype):
    shape, options = TIFFS[kind]
    path, image = tmp_path / "a.tif", smooth(shape, dtype)
    extra = [(34675, 7, len(ICC), ICC, True), (315, 2, 7, "artist", True), (274, 3, 1, 6, True), (700, 1, len(XMP), XMP, True)]
    tifffile.imwrite(path, image, resolution=(300, 300), resolutionunit="inch", software="scanner", extratags=extra, **options)
    before = read_picture(path).parts[0].array
    out = rewritten(path, darker)
    assert tags(out) == tags(path)
    after = read_picture(out).parts[0].array
    assert after.dtype == before.dtype and np.array_equal(after, darker(before))
    assert out.stat().st_size <= 1.2 * path.stat().st_size + 512


def test_tiff_keeps_exif_and_other_directories(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(smooth((20, 30, 3))).save(path, exif=exif(), icc_profile=ICC, dpi=(240, 240))
    with Image.open(rewritten(path, darker)) as out:
        assert out.getexif()[0x010F] == "maker" and out.getexif().get_ifd(0x8769)[0x829A] == 0.01
        assert out.info["icc_profile"] == ICC and out.info["dpi"] == (240, 240)
        assert np.array_equal(np.asarray(out), darker(smooth((20, 30, 3))))


def test_twelve_bits_stay_twelve_bits(tmp_path):
    path, image = tmp_path / "a.tif", smooth((21, 30), "uint16", 4000)
    tifffile.imwrite(path, image, bitspersample=12, photometric="minisblack")
    part = read_picture(path).parts[0]
    assert part.white == 4095 and np.array_equal(part.array, image)
    out = rewritten(path, darker)
    assert tags(out) == tags(path) and np.array_equal(read_image(out), darker(image))


def test_imagej_metadata_of_a_hyperstack(tmp_path):
    path, image = tmp_path / "a.tif", smooth((2, 3, 2, 16, 20), "uint16")
    metadata = {"axes": "TZCYX", "spacing": 0.5, "unit": "um", "finterval": 2.5, "Labels": [f"p{i}" for i in range(12)]}
    tifffile.imwrite(path, image, imagej=True, resolution=(9.2, 9.2), metadata=metadata | {"Ranges": (0.0, 100.0, 5.0, 90.0)})
    out = rewritten(path, darker)
    assert tags(out) == tags(path)
    with tifffile.TiffFile(out) as after, tifffile.TiffFile(path) as before:
        assert after.imagej_metadata == before.imagej_metadata and after.imagej_metadata["Labels"][3] == "p3"
        assert after.series[0].axes == "TZCYX" and np.array_equal(after.asarray(), darker(image))


def test_ome_metadata(tmp_path):
    path, image = tmp_path / "a.ome.tif", smooth((2, 2, 16, 20), "uint16")
    names = {"Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.108, "PhysicalSizeXUnit": "µm", "TimeIncrement": 3.0}
    for options in ({}, {"compression": "zlib"}):
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "TCYX", **names}, **options)
        assert read_picture(path).parts[0].channels == "XX"
        with tifffile.TiffFile(rewritten(path, darker)) as after, tifffile.TiffFile(path) as before:
            assert after.ome_metadata == before.ome_metadata and "GFP" in after.ome_metadata
            assert after.series[0].axes == "TCYX" and np.array_equal(after.asarray(), darker(image))


def test_pages_of_several_sizes_and_pyramids_keep_their_order(tmp_path):
    path, shapes = tmp_path / "a.tif", [(20, 30), (18, 22, 3), (20, 30)]
    with tifffile.TiffWriter(path) as writer:
        for i, shape in enumerate(shapes):
            writer.write(smooth(shape) + i, photometric="rgb" if len(shape) == 3 else "minisblack", metadata=None)
        writer.write(smooth((64, 64)), subifds=1, photometric="minisblack", metadata=None)
        writer.write(smooth((32, 32)), subfiletype=1, photometric="minisblack", metadata=None)
    out = rewritten(path, darker)
    with tifffile.TiffFile(path) as before, tifffile.TiffFile(out) as after:
        assert len(after.pages) == len(before.pages) == 4
        for a, b in zip(after.pages, before.pages, strict=True):
            assert np.array_equal(a.asarray(), darker(b.asarray()))
        assert np.array_equal(after.pages[3].pages[0].asarray(), darker(before.pages[3].pages[0].asarray()))


def test_channels_are_what_the_file_says(tmp_path):
    path = tmp_path / "a.tif"
    for samples, options, expected in [
        (5, {"photometric": "minisblack", "planarconfig": "contig"}, "XXXXX"),
        (5, {"photometric": "rgb", "extrasamples": [2, 0]}, "RGBAX"),
        (5, {"photometric": "rgb", "extrasamples": [0, 0]}, "RGBXX"),
        (4, {"photometric": "rgb", "extrasamples": [1]}, "RGBA"),
        (4, {"photometric": "rgb", "extrasamples": [0]}, "RGBX"),
        (2, {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [2]}, "LA"),
        (2, {"photometric": "minisblack", "planarconfig": "contig"}, "XX"),
        (4, {"photometric": "separated"}, "XXXX"),
    ]:
        image = smooth((20, 24, samples))
        tifffile.imwrite(path, image, **options)
        part = read_picture(path).parts[0]
        assert part.channels == expected and part.axes == "YXC" and np.array_equal(part.array, image), expected
        assert tags(rewritten(path, darker)) == tags(path)
    for axes in ("CYX", "ZCYX", "TCYX"):
        tifffile.imwrite(path, smooth((2, 3, 20, 24)[-len(axes) :]), imagej=True, metadata={"axes": axes})
        assert read_picture(path).parts[0].channels == "XXX" and read_picture(path).parts[0].axes == axes


@pytest.mark.parametrize("mode, channels", [("1", "L"), ("P", "RGB")])
def test_bits_and_palettes_become_eight_bits(tmp_path, mode, channels):
    path = tmp_path / "a.tif"
    made = Image.fromarray(smooth((20, 30, 3) if mode == "P" else (20, 30))).convert(mode)
    made.save(path, dpi=(200, 200), icc_profile=ICC)
    part = read_picture(path).parts[0]
    assert part.channels == channels and part.array.dtype == np.uint8
    assert np.array_equal(part.array, np.asarray(made.convert(channels)))
    with Image.open(rewritten(path, darker)) as out:
        assert out.mode == channels and out.info["dpi"] == (200, 200) and out.info["icc_profile"] == ICC
        assert np.array_equal(np.asarray(out), darker(part.array))


def test_four_bits_and_white_zero(tmp_path):
    path, image = tmp_path / "a.tif", smooth((20, 30), "uint8", 15)
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(path, image, bitspersample=4, photometric=photometric)
        expected = image * 17 if photometric == "minisblack" else 255 - image * 17
        assert np.array_equal(read_image(path), expected)


def test_jpeg_compressed_tiff_is_written_without_loss(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, smooth((64, 64, 3)), photometric="ycbcr", compression="jpeg", tile=(32, 32), resolution=(300, 300))
    before = read_picture(path).parts[0]
    assert before.channels == "RGB"
    out = rewritten(path, darker)
    assert np.array_equal(read_image(out), darker(before.array)) and tags(out)[0][282] == (300, 1)
    with Image.open(out) as opened:
        assert np.array_equal(np.asarray(opened), darker(before.array))
