"""What the page does with pictures: formats, models, errors as sentences, archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from fastbsn.app import work
from fastbsn.app.work import Settings, denoise, denoise_all, pictures, show
from fastbsn.commands import main
from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.image_files import read_image, write_image
from tests.conftest import photograph

AUTO = Settings("auto", 1.0, "cpu")


def noisy(path: Path, rng, channels: int = 1, dtype: str = "uint8") -> Path:
    white = np.iinfo(dtype).max
    x = photograph(rng, 40, 52, channels)
    write_image(path, np.rint(np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1) * white).astype(dtype))
    return path


@pytest.mark.parametrize(
    "name, channels, dtype", [("a.png", 3, "uint16"), ("b.PNG", 1, "uint8"), ("c.jpg", 3, "uint8"), ("d.tif", 1, "uint16")]
)
def test_result_is_saved_in_the_format_of_the_input(name, channels, dtype, tmp_path, rng):
    file = noisy(tmp_path / name, rng, channels, dtype)
    result = denoise(file, AUTO)
    shown = show(result, file, tmp_path)
    saved = read_image(shown.saved)
    assert shown.saved.name == f"{file.stem}-denoised{file.suffix}"
    assert saved.dtype == dtype and saved.shape == result.before.shape and (shown.height, shown.width) == (40, 52)
    assert cv2.imread(str(shown.before)).shape == cv2.imread(str(shown.after)).shape == (40, 52, 3)
    assert np.std(result.after) < np.std(result.before) and 0 < result.noise < 0.2 * np.iinfo(dtype).max


def test_strength_of_nothing_is_the_picture_itself(tmp_path, rng):
    file = noisy(tmp_path / "a.png", rng)
    result = denoise(file, Settings("gray-awgn", 0.0, "cpu"))
    assert np.array_equal(result.before, result.after) and result.model == "gray-awgn"


@pytest.mark.parametrize("keep, words", [(60, "truncated"), (0, "0 bytes")])
def test_errors_name_the_file_and_not_its_folder(keep, words, tmp_path, rng):
    file = noisy(tmp_path / "a.png", rng)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FileFormatError, match=f"^a.png.*{words}") as raised:
        denoise(file, AUTO)
    assert str(tmp_path) not in str(raised.value)


def test_large_pictures_are_refused_by_their_header(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(work, "MAX_PIXELS", 40 * 52 - 1)
    with pytest.raises(FileFormatError, match="a.png"):
        denoise(noisy(tmp_path / "a.png", rng), AUTO)


def test_only_pictures_are_taken():
    assert pictures(["x/b.png", "x/notes.txt", "y/.hidden.png", "a.TIF"]) == [Path("a.TIF"), Path("x/b.png")]
    with pytest.raises(InputError, match="no pictures"):
        pictures(["x/notes.txt"])


def test_archive_holds_every_good_picture_under_a_name_of_its_own(tmp_path, rng):
    for folder in "xy":
        (tmp_path / folder).mkdir()
        noisy(tmp_path / folder / "a.png", rng)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff")
    failed = denoise_all([tmp_path / "x/a.png", bad, tmp_path / "y/a.png"], AUTO, tmp_path / "all.zip")
    assert len(failed) == 1 and failed[0].startswith("bad.jpg")
    with zipfile.ZipFile(tmp_path / "all.zip") as pack:
        assert pack.testzip() is None and pack.namelist() == ["a-denoised.png", "a-2-denoised.png"]


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    monkeypatch.delitem(__import__("sys").modules, "fastbsn.app.page", raising=False)
    assert main(["app", "--no-browser"]) == 2
    assert "fastbsn[app]" in capsys.readouterr().err


def test_metadata_and_kind_of_file_are_kept_on_save(tmp_path, rng):
    pixels = read_image(noisy(tmp_path / "a.png", rng, 3))
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300), quality=70)
    tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", resolution=(9, 9))
    sizes = []
    for name, quality in (("a.jpg", None), ("a.jpg", 98), ("a.tif", None)):
        file = tmp_path / name
        shown = show(denoise(file, AUTO), file, tmp_path, quality)
        sizes.append(shown.saved.stat().st_size)
        if name == "a.jpg":
            with Image.open(shown.saved) as out:
                assert out.getexif()[0x010F] == "maker" and out.info["dpi"] == (300, 300)
    assert sizes[1] > 1.5 * sizes[0]
    with tifffile.TiffFile(shown.saved) as out:
        assert out.pages[0].planarconfig == 2 and out.pages[0].resolution == (9, 9)
    denoise_all([tmp_path / "a.tif"], AUTO, tmp_path / "all.zip")
    assert zipfile.ZipFile(tmp_path / "all.zip").read("a-denoised.tif") == shown.saved.read_bytes()


def test_stacks_are_for_the_command(tmp_path, rng):
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 256, (3, 40, 40), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="a.tif: a stack.*fastbsn denoise"):
        denoise(tmp_path / "a.tif", AUTO)
