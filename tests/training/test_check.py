"""A training set before it is trained on, and what `fit` does with files that are not as they should be."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile
import torch

from fastbsn import Denoiser
from fastbsn.commands import main
from fastbsn.errors import InputError, TrainingError
from fastbsn.io.image_files import write_image
from fastbsn.io.weights import load_networks
from fastbsn.nets import noise_level
from fastbsn.pixels import to_unit
from fastbsn.training.check import check, mended
from fastbsn.training.imageset import ImageSet, to_tensor
from tests.conftest import photograph

SIGMA = 25


def noisy(rng: np.random.Generator, h: int = 96, w: int = 112, channels: int = 1, dtype: str = "uint8") -> np.ndarray:
    x = photograph(rng, h, w, channels) * 0.6 + 0.2
    x = np.clip(x + rng.normal(0, SIGMA / 255, x.shape), 0, 1)
    return np.rint(x * np.iinfo(dtype).max).astype(dtype) if dtype[0] == "u" else x.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_bars_are_continued_and_blank_images_are_left_out_by_name(rng, caplog, dtype):
    good, bars, blank = noisy(rng, 400, 100, dtype=dtype), noisy(rng, 400, 100, dtype=dtype), np.zeros((64, 64), dtype)
    bars[:150] = 0
    bars[:, 80:] = 0
    with caplog.at_level(logging.WARNING, "fastbsn"):
        made = check(ImageSet([to_tensor(x) for x in (good, bars, blank)], ["good", "bars", "blank"]))
    assert made.names == ["good", "bars"] and "blank: left out" in caplog.text
    assert torch.equal(made.images[0], to_tensor(good)) and made.images[1].dtype == made.images[0].dtype
    assert torch.equal(made.images[1][:, 150:, :80], to_tensor(bars)[:, 150:, :80])
    assert noise_level(to_unit(to_tensor(bars))) < 5 / 255  # what a training would have been told
    assert noise_level(to_unit(made.images[1])) == pytest.approx(SIGMA / 255, rel=0.15)


def test_a_set_of_blank_images_is_refused():
    with pytest.raises(TrainingError, match="all 2 training images are blank"):
        check(ImageSet.from_arrays([np.zeros((64, 64), np.uint8)] * 2))
    with pytest.raises(InputError, match="repair='yes'"):
        check(ImageSet.from_arrays([np.eye(8, dtype=np.uint8)]), "yes")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["salt and pepper", "salt", "hot"])
@pytest.mark.parametrize("level", [0, 5, SIGMA])
def test_impulses_are_found_and_repaired(rng, dtype, kind, level):
    clean = photograph(rng, 200, 240) * 0.5 + 0.2
    x = np.clip(clean + rng.normal(0, level / 255, clean.shape) + rng.uniform(-1, 1, clean.shape) / 255, 0, 1)
    where = rng.random(x.shape) < (0.001 if kind == "hot" else 0.05)
    value = np.where(rng.random(x.shape) < 0.5, 0.0, 1.0) if kind == "salt and pepper" else 1.0
    full = np.iinfo(dtype).max if dtype[0] == "u" else 1
    before, hit = ((v * full).round().astype(dtype) if full > 1 else v.astype(dtype) for v in (x, np.where(where, value, x)))
    made, defects = mended(to_tensor(hit))
    made = made[0].numpy()
    changed = made != hit
    assert made.dtype == before.dtype and defects and defects.stripes is None and changed.sum() >= 0.85 * where.sum()
    assert (changed & ~where).sum() <= 2e-4 * where.size
    error = np.abs(made.astype(float) - clean * full)[where] / full
    assert np.median(error) < 0.02 + 1.5 * level / 255


@pytest.mark.parametrize("seed", range(4))
def test_pictures_without_impulses_stay_as_they_are(seed):
    rng = np.random.default_rng(seed)
    lines = np.full((200, 200), 40, np.uint8)
    lines[::9], lines[:, ::13] = 250, 220
    photons = np.clip(rng.poisson(0.05, (200, 200)) * 60, 0, 255).astype(np.uint8)
    for x in (noisy(rng, 300, 300), noisy(rng, 200, 200, dtype="uint16"), lines, photons, rng.integers(0, 256, (200, 200), np.uint8)):
        made, defects = mended(to_tensor(x))
        assert defects is None and torch.equal(made, to_tensor(x))


def test_gray_stored_as_colour_trains_a_gray_model(rng):
    x = noisy(rng)
    assert check(ImageSet.from_arrays([np.stack([x] * 3, -1)])).channels == 1
    assert check(ImageSet.from_arrays([noisy(rng, channels=3)])).channels == 3


def test_fit_goes_on_past_bad_files_and_takes_stacks_alpha_and_missing_pixels(tmp_path, rng, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "stack.tif", np.stack([noisy(rng, 64, 64) for _ in range(3)]), photometric="minisblack")
    write_image(folder / "alpha.png", np.stack([noisy(rng, 64, 64), np.full((64, 64), 9, np.uint8)], -1))
    holes = noisy(rng, 64, 64, dtype="float32")
    holes[5, 5] = np.nan
    write_image(folder / "holes.tif", holes)
    write_image(folder / "bad.png", noisy(rng, 64, 64))
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:200])
    (folder / ".hidden.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "fastbsn"):
        images = ImageSet.from_folder(folder)
    assert images.names == ["alpha.png", "holes.tif", "stack.tif[0]", "stack.tif[1]", "stack.tif[2]"]
    assert all(x.shape == (1, 64, 64) and to_unit(x).isfinite().all() for x in images.images)
    assert "bad.png: truncated" in caplog.text and "holes.tif: 1 pixels are NaN" in caplog.text
    for place in (folder, folder / "stack.tif"):
        assert main(["fit", str(place), "-o", str(tmp_path / "s.safetensors"), "--steps", "2", "--overwrite", "--device", "cpu"]) == 0
    (folder / "worse").mkdir()
    (folder / "worse/only.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TrainingError, match=r"none of 1 files can be used.*only\.png"):
        ImageSet.from_folder(folder / "worse")


def test_images_of_several_kinds_are_named(rng):
    with pytest.raises(InputError, match=r"1 \(0\), 3 \(1\) channels"):
        ImageSet.from_arrays([noisy(rng), noisy(rng, channels=3)])


def test_twelve_bits_are_warned_about_and_a_range_is_stored_with_the_model(tmp_path, rng, caplog):
    (tmp_path / "in").mkdir()
    for i in range(2):
        write_image(tmp_path / f"in/{i}.png", noisy(rng, 64, 64, dtype="uint16") // 16)
    with caplog.at_level(logging.WARNING, "fastbsn"):
        ImageSet.from_folder(tmp_path / "in")
    assert "0.png: values end at" in caplog.text and "--data-range 4095" in caplog.text
    caplog.clear()
    output = tmp_path / "s.safetensors"
    assert main(["fit", str(tmp_path / "in"), "-o", str(output), "--steps", "2", "--data-range", "4095", "--device", "cpu"]) == 0
    assert load_networks(output)[1]["data_ranges"] == {"uint16": 4095.0} and "4095 (" not in caplog.text
    d = Denoiser(device="cpu").fit(tmp_path / "in", steps=2, data_range=(-5, 4095), progress=False)
    assert tuple(d.data_ranges["uint16"]) == (-5, 4095)


def test_bad_files_do_not_stop_evaluate_and_simulate(tmp_path, rng, capsys):
    (tmp_path / "in").mkdir()
    for i in range(2):
        write_image(tmp_path / f"in/{i}.png", noisy(rng, 40, 40))
    (tmp_path / "in/bad.png").write_bytes((tmp_path / "in/0.png").read_bytes()[:100])
    for command in (
        ["evaluate", str(tmp_path / "in"), "--model", "gray-awgn"],
        ["simulate", str(tmp_path / "in"), "-o", str(tmp_path / "out")],
    ):
        assert main([*command, "--noise", "gaussian:25"]) == 1
        assert "bad.png: truncated" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"0.npy", "1.npy"}
    write_image(tmp_path / "in/0.jpg", noisy(rng, 40, 40))
    assert main(["simulate", str(tmp_path / "in"), "-o", str(tmp_path / "other"), "--noise", "gaussian:25"]) == 2
    assert "would both become 0.npy" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_of_another_range_mean_the_same_everywhere(tmp_path, rng, dtype, caplog):
    values = (noisy(rng, 64, 64, dtype="float64") * 65535).astype(dtype)
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.tif", values)
    command = ["fit", str(tmp_path / "in"), "-o", str(tmp_path / "s.safetensors"), "--steps", "2", "--device", "cpu"]
    assert main(command) == 2 and "pass data_range" in caplog.text
    for train in (lambda: Denoiser(device="cpu").fit([values], steps=2, progress=False), lambda: ImageSet.from_arrays([values])):
        with pytest.raises(InputError, match="pass data_range"):
            train()
    assert main([*command, "--data-range", "65535"]) == 0
    d = Denoiser(device="cpu").fit([values], steps=2, data_range=65535, progress=False)
    assert d.data_ranges == load_networks(tmp_path / "s.safetensors")[1]["data_ranges"] == {dtype: 65535}


def test_a_budget_of_nothing_is_refused(rng):
    for budget in ({"steps": 0}, {"minutes": 0}, {"steps": -1}):
        with pytest.raises(TrainingError, match="expected more than 0"):
            Denoiser(device="cpu").fit([noisy(rng)], progress=False, **budget)
