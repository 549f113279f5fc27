"""What a caller sees of a run and how it stops one: callbacks, signals, and labelling that counts in the budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fastbsn.errors import Interrupted
from fastbsn.io.weights import load_tensors
from fastbsn.training import ImageSet, LoopConfig, Progress, fit, stages, train_teacher
from fastbsn.training.labels import LabelSet
from tests.training.test_identity import STUDENT, TEACHER, images, small_fit
from tests.training.test_loop import state, stop_at


def test_a_callback_sees_every_step_and_label(tmp_path):
    seen: list[Progress] = []
    fit(images(0), steps=8, device="cpu", workdir=tmp_path, progress=False, teacher=TEACHER, student=STUDENT, callback=seen.append)
    assert [(p.stage, p.step) for p in seen] == [
        *(("teacher", i) for i in range(1, 5)),
        ("labels", 1),
        ("labels", 2),
        *(("student", i) for i in range(1, 5)),
    ]
    assert [p.fraction for p in seen if p.stage == "teacher"] == [0.25, 0.5, 0.75, 1.0]


def test_what_a_callback_raises_ends_the_training_and_it_goes_on_later(tmp_path):
    class Enough(Exception):
        pass

    def stop(now: Progress) -> None:
        if (now.stage, now.step) == ("student", 2):
            raise Enough

    with pytest.raises(Enough):
        fit(images(0), steps=8, device="cpu", workdir=tmp_path / "a", progress=False, teacher=TEACHER, student=STUDENT, callback=stop)
    assert load_tensors(tmp_path / "a/student.safetensors.run/checkpoint.safetensors")[1]["step"] == 2
    for name in "ab":
        fit(images(0), steps=8, device="cpu", workdir=tmp_path / name, progress=False, teacher=TEACHER, student=STUDENT)
    first, second = (state(tmp_path / name / "student.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in second)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_between_two_steps_and_the_handlers_come_back(number, tmp_path):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="step 2; checkpoint written") as stopped:
        train_teacher(
            ImageSet.from_arrays(images(0)), tmp_path / "t.safetensors", LoopConfig(9), TEACHER, progress=False, callback=stop_at(2, number)
        )
    assert stopped.value.signal == number and signal.getsignal(number) is before
    assert load_tensors(tmp_path / "t.safetensors.run/checkpoint.safetensors")[1]["step"] == 2


def test_a_signal_while_labelling_keeps_the_teacher(tmp_path):
    def stop(now: Progress) -> None:
        if now.stage == "labels":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped while labelling") as stopped:
        fit(images(0), steps=2, device="cpu", workdir=tmp_path, progress=False, teacher=TEACHER, student=STUDENT, callback=stop)
    assert stopped.value.signal == signal.SIGTERM and (tmp_path / "teacher.safetensors").exists()


def test_sigterm_ends_the_command_with_143_and_a_checkpoint(noisy_folder, tmp_path):
    output = tmp_path / "t.safetensors"
    small = ["--channels", "8", "--modules", "1", "--crop", "16", "--batch", "1", "--minutes", "5", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "fastbsn", "train", str(noisy_folder), "-o", str(output), *small])
    log = tmp_path / "t.safetensors.run" / "log.csv"
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert load_tensors(log.with_name("checkpoint.safetensors"))[1]["step"] >= 50 and not output.exists()


def test_the_library_says_through_its_logger_what_it_did(tmp_path, caplog, capsys):
    with caplog.at_level("INFO", "fastbsn"):
        for _ in range(2):
            small_fit(images(0), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert sum("2 images labelled" in line for line in said) == 2 and sum("this run has finished before" in line for line in said) == 2
    assert capsys.readouterr().out == ""


def test_labelling_counts_in_the_minutes(tmp_path, monkeypatch):
    compute = LabelSet.compute

    def slow(*arguments):
        time.sleep(1.5 if len(arguments) > 2 else 0)  # not where it is only timed
        return compute(*arguments)

    monkeypatch.setattr(LabelSet, "compute", slow)
    trained = small_fit(images(0), tmp_path, steps=None, minutes=4 / 60)
    assert trained.header["seconds"] < 1.5  # of the 2 s that are the student's


def test_a_long_labelling_leaves_a_tenth_of_the_budget():
    config = LoopConfig(minutes=1)
    assert config.progress(0, 30, 30) == 1 and config.progress(0, 15, 30) == 0.5
    assert config.progress(0, 3, 600) == 0.5
    assert LoopConfig(steps=10).progress(5, 1e9, 600) == 0.5


def test_labelling_keeps_to_its_share_of_the_minutes_and_a_run_goes_on_with_the_same_windows(tmp_path, rng, monkeypatch, caplog):
    big = [rng.random((1500, 1300)).astype(np.float32), rng.random((300, 280)).astype(np.float32)]
    monkeypatch.setattr(stages, "LABEL_SHARE", 0.05)
    start = time.monotonic()
    small_fit(big, tmp_path, steps=None, minutes=10 / 60)
    spent = time.monotonic() - start
    chosen = json.loads((tmp_path / "labels.json").read_text())
    (tmp_path / "student.safetensors").unlink()
    small_fit(big, tmp_path, steps=None, minutes=10 / 60)
    assert json.loads((tmp_path / "labels.json").read_text()) == chosen and (tmp_path / "student.safetensors").exists()
    if chosen["windows"] < 26:  # 25 in the first image and 1 in the second; a fast machine labels all of them
        assert "windows of 256" in caplog.text
    assert spent < 40


def test_windows_of_a_set_are_drawn_by_the_seed():
    images = ImageSet([torch.arange(600 * 520.0).view(1, 600, 520), torch.zeros(1, 50, 70)], ["a", "b"])
    assert images.windows(256, 5, 0) is images
    first, again, other = (images.windows(256, 3, seed) for seed in (0, 0, 1))
    assert first.names == again.names != other.names and len(first.images) == 3
    assert all(x.shape[1] <= 256 and x.shape[2] <= 256 for x in first.images)
    whole = images.windows(256, 4, 3)
    for name, x in zip(whole.names, whole.images, strict=True):
        if name.startswith("a@"):
            top, left = map(int, name[2:].split(","))
            assert torch.equal(x, images.images[0][:, top : top + 256, left : left + 256])
