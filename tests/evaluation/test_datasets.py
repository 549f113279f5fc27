"""Folders of clean images and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from fastbsn.errors import FileFormatError, InputError
from fastbsn.evaluation.datasets import load_clean, load_image, load_pairs
from fastbsn.io.image_files import write_image


@pytest.mark.parametrize("dtype, white", [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_images_become_float_channels_first_in_the_unit_range(tmp_path, dtype, white):
    array = np.zeros((4, 5, 4), dtype)
    array[..., 0], array[..., 3] = white, white
    write_image(tmp_path / "a.tif", array)
    x = load_image(tmp_path / "a.tif")
    assert x.shape == (3, 4, 5) and x.dtype == np.float32 and x.flags.c_contiguous
    assert (x[0] == 1).all() and (x[1:] == 0).all()
    gray = load_image(tmp_path / "a.tif", channels=1)
    assert gray.shape == (1, 4, 5) and gray == pytest.approx(np.full((1, 4, 5), 0.299), abs=0.5 / 255)


def test_gray_and_colour_on_request(tmp_path, rng):
    write_image(tmp_path / "b.png", rng.integers(0, 256, (4, 5), np.uint8))
    write_image(tmp_path / "a.png", rng.integers(0, 256, (6, 5, 3), np.uint8))
    assert [(name, x.shape) for name, x in load_clean(tmp_path)] == [("a.png", (3, 6, 5)), ("b.png", (1, 4, 5))]
    assert [x.shape[0] for _, x in load_clean(tmp_path, 1)] == [1, 1]
    assert [x.shape[0] for _, x in load_clean(tmp_path, 3)] == [3, 3]
    (_, a), (_, b) = load_clean(tmp_path, 3)
    assert (b[0] == b[2]).all() and not (a[0] == a[2]).all()
    with pytest.raises(InputError):
        load_image(tmp_path / "a.png", 2)


def test_pairs_of_two_folders_and_of_one(tmp_path, rng):
    images = {name: rng.integers(0, 256, (4, 5), np.uint8) for name in "abcd"}
    for folder in ("noisy", "clean", "one"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "noisy" / "x.png", images["a"])
    write_image(tmp_path / "clean" / "x.tif", images["b"])
    write_image(tmp_path / "one" / "y_real.png", images["c"])
    write_image(tmp_path / "one" / "y_mean.png", images["d"])
    for pairs, names in [(list(load_pairs(tmp_path / "noisy", tmp_path / "clean")), "xab"), (list(load_pairs(tmp_path / "one")), "ycd")]:
        ((name, noisy, clean),) = pairs
        assert name == names[0]
        assert np.array_equal(np.rint(noisy[0] * 255), images[names[1]]) and np.array_equal(np.rint(clean[0] * 255), images[names[2]])


def test_incomplete_and_damaged_sets_are_refused(tmp_path, rng):
    for folder in ("noisy", "clean"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="no images"):
        load_clean(tmp_path / "noisy")
    write_image(tmp_path / "noisy" / "a.png", np.zeros((4, 5), np.uint8))
    write_image(tmp_path / "clean" / "b.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match="2 without a partner"):
        load_pairs(tmp_path / "noisy", tmp_path / "clean")
    with pytest.raises(InputError, match="0 noisy and 0 clean"):
        load_pairs(tmp_path / "noisy")
    write_image(tmp_path / "noisy" / "b.png", np.zeros((5, 4), np.uint8))
    (tmp_path / "noisy" / "a.png").unlink()
    with pytest.raises(InputError, match="expected the same"):
        list(load_pairs(tmp_path / "noisy", tmp_path / "clean"))
    (tmp_path / "clean" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(FileFormatError, match="b.png"):
        list(load_pairs(tmp_path / "noisy", tmp_path / "clean"))
