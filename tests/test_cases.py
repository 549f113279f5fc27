"""What people meet: files of every structure through the commands, with the right result. Inputs are drawn by code."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fastbsn import Denoiser
from fastbsn.commands import main
from fastbsn.errors import Interrupted
from fastbsn.evaluation.metrics import psnr
from fastbsn.io.image_files import read_image, read_picture, write_image
from fastbsn.training.imageset import ImageSet
from tests.conftest import photograph

SIGMA = 25


def drawn(rng: np.random.Generator, channels: int = 1, h: int = 96, w: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy picture, uint8."""
    clean = photograph(rng, h, w, channels) * 0.7 + 0.15
    noisy = clean + rng.normal(0, SIGMA / 255, clean.shape)
    return tuple(np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in (clean, noisy))  # type: ignore[return-value]


def quality(clean: np.ndarray, other: np.ndarray, full: float = 255) -> float:
    x, y = (np.atleast_3d(a).astype(float).transpose(2, 0, 1) / full for a in (clean, other))
    return psnr(x, y)


def denoised(path: Path, *options: str, code: int = 0) -> Path:
    output = path.parent / "out"
    assert main(["denoise", str(path), "-o", str(output), "--device", "cpu", *options]) == code
    return output / path.name


def test_gray_stored_as_colour_takes_the_gray_model(tmp_path, rng, capsys):
    clean, noisy = drawn(rng)
    write_image(tmp_path / "gray.png", noisy)
    write_image(tmp_path / "rgb.png", np.stack([noisy] * 3, -1))
    gray, rgb = (read_image(denoised(tmp_path / name)) for name in ("gray.png", "rgb.png"))
    assert quality(clean, gray) > quality(clean, noisy) + 7
    assert np.array_equal(rgb, np.stack([gray] * 3, -1))
    assert "gray-awgn" in capsys.readouterr().out


def test_gray_with_alpha_stays_gray_with_alpha(tmp_path, rng):
    clean, noisy = drawn(rng)
    alpha = rng.integers(1, 256, noisy.shape, np.uint8)
    write_image(tmp_path / "a.png", np.stack([noisy, alpha], -1))
    out = read_image(denoised(tmp_path / "a.png"))
    assert out.shape == (*noisy.shape, 2) and np.array_equal(out[..., 1], alpha)
    assert quality(clean, out[..., 0]) > quality(clean, noisy) + 7


@pytest.mark.parametrize("kind", ["letterbox", "transparent", "white frame"])
def test_denoising_goes_on_beside_what_has_no_noise(tmp_path, rng, kind):
    clean, noisy = drawn(rng, 3)
    write_image(tmp_path / "alone.png", noisy)
    framed = np.full((176, 192, 4 if kind == "transparent" else 3), 255 if kind == "white frame" else 0, np.uint8)
    inside = np.s_[40:136, 40:152]
    framed[inside][..., :3] = noisy
    if kind == "transparent":
        framed[inside][..., 3] = 255
    write_image(tmp_path / "framed.png", framed)
    alone, out = (read_image(denoised(tmp_path / name, "--model", "color-awgn")) for name in ("alone.png", "framed.png"))
    assert quality(clean, out[inside][..., :3]) > quality(clean, alone) - 0.3
    out[inside] = framed[inside]
    assert np.array_equal(out, framed)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("writer", ["imagej", "ome", "samples"])
def test_unrelated_channels_are_denoised_each_by_itself(tmp_path, rng, count, writer):
    pairs = [drawn(rng) for _ in range(count)]
    stack = np.stack([noisy for _, noisy in pairs], -1 if writer == "samples" else 0)
    options = {
        "imagej": {"imagej": True, "metadata": {"axes": "CYX"}},
        "ome": {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}},
        "samples": {"photometric": "minisblack", "planarconfig": "contig"},
    }[writer]
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    out = read_picture(denoised(tmp_path / "a.tif")).parts[0]
    assert out.array.shape == stack.shape
    for i, (clean, noisy) in enumerate(pairs):
        write_image(tmp_path / f"{i}.png", noisy)
        assert np.abs(out.pixels[..., i].astype(int) - read_image(denoised(tmp_path / f"{i}.png"))).max() <= 1
        assert quality(clean, out.pixels[..., i]) > quality(clean, noisy) + 6


def test_planar_colour_stays_colour(tmp_path, rng):
    clean, noisy = drawn(rng, 3)
    tifffile.imwrite(tmp_path / "a.tif", noisy.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    write_image(tmp_path / "a.png", noisy)
    out = denoised(tmp_path / "a.tif")
    with tifffile.TiffFile(out) as tiff:
        assert len(tiff.pages) == 1 and tiff.pages[0].photometric == 2 and tiff.pages[0].planarconfig == 2
    assert np.array_equal(read_image(out), read_image(denoised(tmp_path / "a.png")))


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_other_types_with_a_range_and_a_black_level(tmp_path, rng, dtype, suffix):
    clean, noisy = ((x.astype(float) * 4095 / 255).astype(dtype) for x in drawn(rng))
    write_image(tmp_path / f"a{suffix}", noisy)
    out = read_image(denoised(tmp_path / f"a{suffix}", "--data-range", "4095"))
    assert out.dtype == dtype and quality(clean, out, 4095) > quality(clean, noisy, 4095) + 6
    if dtype != "uint32":
        write_image(tmp_path / f"b{suffix}", noisy - np.dtype(dtype).type(1024))
        shifted = read_image(denoised(tmp_path / f"b{suffix}", "--data-range", "4095", "--black-level", "-1024"))
        np.testing.assert_allclose(shifted.astype(float) + 1024, out, atol=1 if dtype != "float32" else 0.05)


def test_a_black_level_needs_a_range(tmp_path, rng, capsys):
    write_image(tmp_path / "a.png", drawn(rng)[1])
    denoised(tmp_path / "a.png", "--black-level", "7", code=1)
    assert "--data-range" in capsys.readouterr().err


def test_twelve_packed_bits_need_no_range(tmp_path, rng):
    clean, noisy = ((x.astype(float) * 4095 / 255).astype(np.uint16) for x in drawn(rng))
    tifffile.imwrite(tmp_path / "a.tif", noisy, bitspersample=12, photometric="minisblack")
    assert quality(clean, read_image(denoised(tmp_path / "a.tif")), 4095) > quality(clean, noisy, 4095) + 6


def test_results_of_one_name_are_refused_before_anything_runs(tmp_path, rng, capsys):
    for name in ("s1/x.png", "s2/x.png"):
        (tmp_path / name).parent.mkdir()
        write_image(tmp_path / name, drawn(rng)[1])
    assert main(["denoise", str(tmp_path / "s1"), str(tmp_path / "s2"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "s1/x.png" in error and "s2/x.png" in error and not (tmp_path / "out").exists()


def test_results_hidden_files_and_hidden_folders_are_not_inputs(tmp_path, rng, capsys):
    for name in ("a.png", ".b.png", ".hidden/c.png", "sub/d.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "in" / name, drawn(rng)[1])
    (tmp_path / "in/notes.txt").write_text("text")
    command = ["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "in/out"), "--json", "--preview"]
    for done, skipped in ((2, 0), (0, 2), (0, 2)):
        assert main(command) == 0
        captured = capsys.readouterr()
        result = json.loads(captured.out)
        assert (result["done"], result["skipped"]) == (done, skipped)
        assert result["not_read"] == [str(tmp_path / "in/notes.txt")] and "notes.txt" in captured.err
    written = sorted(str(p.relative_to(tmp_path / "in/out")) for p in (tmp_path / "in/out").rglob("*.png"))
    assert written == ["a.png", "a.png_before_after.png", "sub/d.png", "sub/d.png_before_after.png"]


def test_every_image_has_its_own_preview(tmp_path, rng):
    (tmp_path / "in").mkdir()
    for name in ("x.png", "x.jpg"):
        write_image(tmp_path / "in" / name, drawn(rng)[1])
    assert main(["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--preview"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"x.png", "x.jpg", "x.png_before_after.png", "x.jpg_before_after.png"}


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "pages"])
def test_scans(tmp_path, rng, mode):
    clean, noisy = drawn(rng, 3)
    made = Image.fromarray(noisy)
    if mode == "pages":
        others = [made.resize((80, 64)), made.convert("L")]
        made.save(tmp_path / "a.tif", save_all=True, append_images=others)
    else:
        made.convert(mode).save(tmp_path / "a.tif")
    before, after = (read_picture(path).parts for path in (tmp_path / "a.tif", denoised(tmp_path / "a.tif")))
    assert [p.array.shape for p in after] == [p.array.shape for p in before] and [p.channels for p in after] == [p.channels for p in before]
    assert all(not np.array_equal(a.array, b.array) for a, b in zip(after, before, strict=True))
    if mode == "CMYK":
        assert all(not np.array_equal(after[0].array[..., i], before[0].array[..., i]) for i in range(3))


def test_colour_and_what_goes_with_it(tmp_path, rng):
    clean, noisy = drawn(rng, 3)
    alpha, (depth_clean, depth) = rng.integers(0, 256, noisy.shape[:2], np.uint8), drawn(rng)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([noisy, alpha, depth]), photometric="rgb", extrasamples=[2, 0])
    out = read_image(denoised(tmp_path / "a.tif"))
    assert np.array_equal(out[..., 3], alpha)
    assert quality(clean, out[..., :3]) > quality(clean, noisy) + 6 and quality(depth_clean, out[..., 4]) > quality(depth_clean, depth) + 6


def test_a_file_that_does_not_fit_into_memory_is_a_failed_file(tmp_path, rng, monkeypatch, capsys):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", drawn(rng)[1])
    from fastbsn.io import image_files

    def read(data, limit):
        if data == (tmp_path / "a.png").read_bytes():
            raise MemoryError
        return original(data, limit)

    original = image_files.read_png
    monkeypatch.setattr(image_files, "read_png", read)
    assert main(["denoise", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "-o", str(tmp_path / "out")]) == 1
    assert "a.png: too large for the memory" in capsys.readouterr().err and (tmp_path / "out/b.png").exists()


def test_what_was_chosen_is_said_and_logged(tmp_path, rng, capfd):
    write_image(tmp_path / "a.png", drawn(rng)[1])
    denoised(tmp_path / "a.png", "-v", "--log-file", str(tmp_path / "log.txt"))
    assert "a.png: gray-awgn, 1 channel" in capfd.readouterr().err
    assert "gray-awgn" in (tmp_path / "log.txt").read_text()
    denoised(tmp_path / "a.png", "--log-file", str(tmp_path / "none/log.txt"), code=2)
    logging.getLogger("fastbsn").handlers = []


def test_sigterm_stops_a_run_with_143(tmp_path, rng):
    (tmp_path / "in").mkdir()
    for i in range(40):
        write_image(tmp_path / f"in/{i}.png", drawn(rng, 3, 256, 256)[1])
    command = [sys.executable, "-m", "fastbsn", "denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not list((tmp_path / "out").glob("*.png")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in error
    assert not list((tmp_path / "out").glob(".fastbsn*")) and len(list((tmp_path / "out").glob("*.png"))) < 40


@pytest.mark.parametrize("suffix, decoder", [(".jpg", "read_pillow"), (".png", "read_png"), (".tif", "read_tiff")])
def test_a_signal_in_a_decoder_is_no_damaged_file(tmp_path, rng, monkeypatch, suffix, decoder):
    def stopped(*_: object) -> None:
        raise Interrupted("stopped", signal.SIGTERM)

    write_image(tmp_path / f"a{suffix}", drawn(rng)[1])
    monkeypatch.setattr(f"fastbsn.io.image_files.{decoder}", stopped)
    assert main(["denoise", str(tmp_path / f"a{suffix}"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 143
    with pytest.raises(Interrupted):
        ImageSet.from_folder(tmp_path)


@pytest.mark.parametrize("kind", ["salt and pepper", "hot pixels"])
@pytest.mark.parametrize("channels", [1, 3])
def test_impulses_are_mended_first_and_it_is_said(tmp_path, rng, caplog, kind, channels):
    clean = drawn(rng, channels, 192, 200)[0]
    noisy = np.clip(np.rint(clean + rng.normal(0, 6, clean.shape)), 0, 255).astype(np.uint8)
    where = rng.random(noisy.shape) < (0.05 if kind == "salt and pepper" else 0.0006)
    hit = np.where(where, np.where(rng.random(noisy.shape) < (0.5 if kind == "salt and pepper" else 0), 0, 255), noisy).astype(np.uint8)
    write_image(tmp_path / "a.png", hit)
    write_image(tmp_path / "b.png", noisy)
    out, best = (read_image(denoised(tmp_path / name)) for name in ("a.png", "b.png"))
    assert kind in caplog.text and quality(clean, out) > quality(clean, best) - 1
    whole, tiled = (Denoiser.from_pretrained("gray-awgn")(hit, axes="YXC"[: hit.ndim], tile=t) for t in (None, 48))
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    left = read_image(denoised(tmp_path / "a.png", "--repair", "off", "--overwrite"))
    assert quality(clean, left) < quality(clean, out) - 1


def test_drawings_and_masks_hold_no_impulses(tmp_path, rng, caplog):
    mask = drawn(rng)[1] > 120
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        denoised(tmp_path / name)
    assert "mended" not in caplog.text


def test_axes_of_an_array_that_says_nothing_about_them(tmp_path, rng, capsys):
    clean, noisy = drawn(rng)
    np.save(tmp_path / "a.npy", np.stack([noisy] * 5))
    denoised(tmp_path / "a.npy", code=1)
    assert "--axes TYX" in capsys.readouterr().err
    assert quality(clean, np.load(denoised(tmp_path / "a.npy", "--axes", "TYX"))[2]) > quality(clean, noisy) + 6
    np.save(tmp_path / "b.npy", np.stack([noisy] * 5, -1))
    assert quality(clean, np.load(denoised(tmp_path / "b.npy"))[..., 2]) > quality(clean, noisy) + 6


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", ".webp", ".bmp"])
def test_empty_files_and_files_of_another_kind_are_one_sentence(tmp_path, suffix, capsys):
    (tmp_path / f"a{suffix}").touch()
    (tmp_path / f"b{suffix}").write_bytes(b"hello")
    for name, text in (("a", "0 bytes"), ("b", "content is unknown")):
        denoised(tmp_path / f"{name}{suffix}", code=1)
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}{suffix}" in line and text in line


def test_names_of_every_kind_come_back(tmp_path, rng):
    folder = tmp_path / "in put"
    folder.mkdir()
    names = ["grün 日本.png", "50% off.png", "UP.PNG", "dot.name.JPG", "-dash.png", "a'b\"c.tif", "sub.png/in.png"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(drawn(rng)[1]).save(folder / name)
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(folder / "none.png")
    assert main(["denoise", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(names)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 4000), (2000, 5, 3)])
def test_thin_images(tmp_path, rng, shape):
    for suffix in (".png", ".tif", ".jpg"):
        write_image(tmp_path / f"a{suffix}", rng.integers(0, 256, shape, np.uint8))
        assert read_image(denoised(tmp_path / f"a{suffix}")).shape == shape


def test_further_pictures_of_a_jpeg_are_mentioned(tmp_path, rng, caplog):
    views = [Image.fromarray(drawn(rng, 3)[1]) for _ in range(2)]
    views[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=views[1:])
    denoised(tmp_path / "a.jpg")
    assert "further pictures behind the first" in caplog.text


@pytest.mark.parametrize("name", ["photos", "photo.png", "photo.tif"])
def test_what_does_not_exist_is_said_to_be_missing(tmp_path, capsys, name):
    assert main(["denoise", str(tmp_path / name), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert f"{tmp_path / name}: there is no such file" in capsys.readouterr().err
