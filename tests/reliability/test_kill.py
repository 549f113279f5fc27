"""kill -9 while training: no torn file, no completed save lost, the resumed run ends bit-exactly where the undisturbed one does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from fastbsn.io.weights import load_tensors
from tests.reliability.numbers import cases

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
import numpy as np, torch
from fastbsn.training import ImageSet, LoopConfig, TeacherConfig, train_teacher
torch.set_num_threads(1)
rng = np.random.default_rng(0)
images = ImageSet.from_arrays([rng.random((40, 40)).astype(np.float32) for _ in range(3)])
print("ready", flush=True)
loop = LoopConfig(steps=60, checkpoint_seconds=0, log_steps=5)
train_teacher(images, sys.argv[1], loop, TeacherConfig(channels=8, modules=1, batch=1, crop=24), progress=False)
"""


def start(output: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(output)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def test_kill_9_at_any_instant(tmp_path):
    rng = np.random.default_rng(0)
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    assert start(whole).wait() == 0
    checkpoint = tmp_path / "killed.safetensors.run" / "checkpoint.safetensors"
    steps, cut_short = [0], 0
    for i in range(cases("G11 kills of a training run")):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(killed)
        while i % 3 and process.poll() is None and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before:
            time.sleep(0.01)  # two of three kills come after a save of this run, however slow the machine is
        time.sleep(rng.uniform(0, 0.2))
        cut_short += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if checkpoint.exists():
            tensors, header = load_tensors(checkpoint)  # never torn
            assert tensors and header["step"] >= steps[-1], "a completed save was lost"
            steps.append(header["step"])
    assert cut_short > 0 and max(steps) > 0, "no run was cut short after a save: the test proves nothing on this machine"
    assert start(killed).wait() == 0
    final = [load_tensors(p.with_name(p.name + ".run") / "checkpoint.safetensors")[0] for p in (whole, killed)]
    assert final[0].keys() == final[1].keys()
    assert all(torch.equal(final[0][key], final[1][key]) for key in final[0])
