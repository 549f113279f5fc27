"""kill -9 while training: no torn file, no completed save lost, the resumed run ends bit-exactly where the undisturbed one does."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from fastbsn.io.weights import load_tensors
from fastbsn.training import ImageSet, LoopConfig, TeacherConfig, loop, train_teacher
from tests.conftest import SEED
from tests.reliability.numbers import cases

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["fastbsn.training"])


def train(output: Path) -> None:
    torch.set_num_threads(1)
    loop.draw_curve = lambda *_: None  # takes longer than the steps
    rng = np.random.default_rng(0)
    images = ImageSet.from_arrays([rng.random((40, 40)).astype(np.float32) for _ in range(3)])
    budget = LoopConfig(steps=60, checkpoint_seconds=0, log_steps=5)
    train_teacher(images, output, budget, TeacherConfig(channels=8, modules=1, batch=1, crop=24), progress=False)


def finish(output: Path) -> None:
    process = processes.Process(target=train, args=(output,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_kill_9_at_any_instant(tmp_path):
    rng, wanted = np.random.default_rng(SEED), cases("G11 kills of a training run")
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    finish(whole)
    folder = killed.with_name(killed.name + ".run")
    checkpoint, step, kills, last = folder / "checkpoint.safetensors", 0, 0, 0

    def check_finished():
        final = [load_tensors(p.with_name(p.name + ".run") / "checkpoint.safetensors")[0] for p in (whole, killed)]
        assert final[0].keys() == final[1].keys()
        assert all(torch.equal(final[0][key], final[1][key]) for key in final[0])

    def saved() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    while kills < wanted:
        before = saved()
        process = processes.Process(target=train, args=(killed,))
        process.start()
        while kills % 3 and process.is_alive() and saved() == before:
            time.sleep(0.01)  # two of three kills come after a save of this run, however slow the machine is
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        if process.exitcode == 0:  # the run is finished: the next one starts anew
            check_finished()
            killed.unlink()
            shutil.rmtree(folder)
            step = 0
            continue
        kills += 1
        if checkpoint.exists():
            tensors, header = load_tensors(checkpoint)  # never torn
            assert tensors and header["step"] >= step, "a completed save was lost"
            last = step = header["step"]
    assert last > 0, "no run was cut short after a save: the test proves nothing on this machine"
    finish(killed)
    check_finished()
