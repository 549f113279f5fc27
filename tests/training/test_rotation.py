"""Distillation from labels larger than memory: bounded, a function of seed and step, resumed bit-exactly."""

from __future__ import annotations

import os
import signal

import cv2
import numpy as np
import pytest
import torch

from fastbsn.commands import main
from fastbsn.errors import InputError, Interrupted, TrainingError
from fastbsn.io.storage import open_storage
from fastbsn.io.tars import tar_bytes
from fastbsn.io.weights import load_tensors
from fastbsn.labelling import generate
from fastbsn.training import LoopConfig, StudentConfig, distill
from fastbsn.training.label_files import LabelFiles
from fastbsn.training.labels import LabelSet
from fastbsn.training.rotation import Rotation, parse_bytes
from tests.conftest import photograph
from tests.labelling.helpers import teacher_file

IMAGES, SIDE = 40, 48
BYTES = SIDE * SIDE  # of a label
CONFIG = StudentConfig(channels=6, depth=2, batch=2, crop=32, renoised=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labels of 40 gray 8-bit images; and of the same in 10 tar files."""
    place, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    (place / "noisy").mkdir()
    (place / "shards").mkdir()
    for i in range(IMAGES):
        y = photograph(rng, SIDE, SIDE) + rng.normal(0, 25 / 255, (SIDE, SIDE))
        cv2.imwrite(str(place / "noisy" / f"{i:02}.png"), np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8))
    names = open_storage(place / "noisy").names()
    for i in range(0, IMAGES, 4):
        data = tar_bytes((name, (place / "noisy" / name).read_bytes()) for name in names[i : i + 4])
        (place / "shards" / f"{i:02}.tar").write_bytes(data)
    teacher = teacher_file(place / "teacher.safetensors")
    generate(place / "noisy", place / "labels", teacher, progress=False)
    generate(place / "shards", place / "tars", teacher, progress=False)
    return place


@pytest.mark.parametrize("kind", ["labels", "tars"])
def test_memory_is_kept_and_every_image_comes(kind, folder):
    files, memory = LabelFiles(folder / kind), 16 * BYTES
    rotation = Rotation(files, memory, seed=3)
    rotation.prepare(batch=2, crop=16, size=16, device=torch.device("cpu"), noisy=False)
    assert sorted(i for chunk in rotation.chunks for i in chunk) == list(range(IMAGES))
    seen, sets = set(), []
    for step in range(0, 400, 3):
        now = rotation.at(step)
        held = {place: rotation.chunks[rotation.position(place)] for place in rotation._read}
        assert sum(len(chunk) for chunk in held.values()) * BYTES <= memory and len(held) == rotation.resident + 1
        seen |= set(now.images.names)
        sets.append(now.images.names)
        whole = LabelSet.open(folder / kind)
        for name, label, sigma in zip(now.images.names, now.images.images, now.sigmas, strict=True):
            i = whole.images.names.index(name)
            assert torch.equal(label, whole.images.images[i]) and sigma == whole.sigmas[i]
        if len(seen) == IMAGES:
            break
    assert len(seen) == IMAGES
    again = Rotation(files, memory, seed=3)
    again.prepare(2, 16, 16, torch.device("cpu"), noisy=False)
    assert again.at(3 * (len(sets) - 1)).images.names == sets[-1] and again.at(0).images.names == sets[0]
    other = Rotation(files, memory, seed=4)
    other.prepare(2, 16, 16, torch.device("cpu"), noisy=False)
    assert other.at(0).images.names != sets[0]


def test_a_tar_file_is_in_one_chunk(folder):
    rotation = Rotation(LabelFiles(folder / "tars"), 16 * BYTES)
    rotation.prepare(2, 16, 16, torch.device("cpu"), noisy=False)
    names = rotation.files.names
    assert len(rotation.chunks) == 10 and all(len({names[i].partition("/")[0] for i in chunk}) == 1 for chunk in rotation.chunks)


def test_what_fits_is_read_once(folder):
    rotation = Rotation(LabelFiles(folder / "labels"), 1000 * BYTES)
    rotation.prepare(2, 16, 16, torch.device("cpu"), noisy=True)
    first = rotation.at(0)
    assert rotation.at(10_000) is first and first.count == IMAGES and first.noisy is not None


def test_memory_that_two_chunks_do_not_fit_into_is_refused(folder):
    with pytest.raises(InputError, match=f"give at least {8 * BYTES}"):
        Rotation(LabelFiles(folder / "tars"), 7 * BYTES).prepare(2, 16, 16, torch.device("cpu"), noisy=False)
    for text, value in (("4GiB", 2**32), ("500 MB", 5 * 10**8), ("12", 12), ("1.5kib", 1536)):
        assert parse_bytes(text) == value
    with pytest.raises(InputError, match="4GiB"):
        parse_bytes("much")


def state(path):
    return load_tensors(path.with_name(path.name + ".run") / "checkpoint.safetensors")[0]


def rotation(folder, memory=12 * BYTES) -> Rotation:
    return Rotation(LabelFiles(folder / "tars"), 2 * memory)


def test_an_interrupted_training_resumes_bit_exactly(folder, tmp_path):
    loop, whole, parts = LoopConfig(steps=40, log_steps=10), tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    distill(rotation(folder), whole, loop, CONFIG, progress=False)
    for stop in (7, 23):
        with pytest.raises(Interrupted):
            distill(
                rotation(folder),
                parts,
                loop,
                CONFIG,
                progress=False,
                callback=lambda now, stop=stop: now.step == stop and os.kill(os.getpid(), signal.SIGINT),
            )
    with pytest.raises(TrainingError, match="memory"):
        distill(rotation(folder, 16 * BYTES), parts, loop, CONFIG, progress=False)
    distill(rotation(folder), parts, loop, CONFIG, progress=False)
    assert all(torch.equal(v, state(parts)[k]) for k, v in state(whole).items())


def test_the_command(folder, tmp_path, capsys):
    common = ["--channels", "6", "--steps", "3", "--renoised", "0.5"]
    out = str(tmp_path / "s.safetensors")
    assert main(["distill", str(folder / "tars"), "-o", out, "--memory", f"{24 * BYTES}", *common]) == 0
    assert main(["distill", str(folder / "tars"), str(folder / "labels"), "-o", out + "2", "--memory", "1GiB", *common]) == 2
    assert "--memory" in capsys.readouterr().err
