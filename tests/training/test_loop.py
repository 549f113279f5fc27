"""Training: it learns, resumes bit-exactly, stops on SIGINT with the checkpoint written, and refuses what it cannot do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbsn.denoiser import Denoiser
from fastbsn.errors import InputError, Interrupted, TrainingError
from fastbsn.io.weights import load_networks, load_tensors
from fastbsn.pixels import to_unit
from fastbsn.training import ImageSet, LoopConfig, Progress, StudentConfig, TeacherConfig, distill, fit, train_teacher
from fastbsn.training.crops import cut, draw_places
from fastbsn.training.labels import LabelSet
from fastbsn.training.loop import run
from fastbsn.training.monitor import read_log
from fastbsn.training.student import StudentTask
from fastbsn.training.teacher import TeacherTask
from tests.conftest import photograph

SMALL = TeacherConfig(channels=8, modules=1, batch=2, crop=32)
STUDENT = StudentConfig(channels=6, depth=2, batch=2, crop=32)


@pytest.fixture
def noisy(rng) -> ImageSet:
    arrays = [(photograph(rng, 48, 56) + rng.normal(0, 25 / 255, (48, 56))).astype(np.float32) for _ in range(6)]
    return ImageSet.from_arrays(arrays)


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path.with_name(path.name + ".run") / "checkpoint.safetensors")[0]


def stop_at(step: int, number: int = signal.SIGINT):
    def callback(now: Progress) -> None:
        if now.step == step:
            os.kill(os.getpid(), number)

    return callback


@pytest.mark.parametrize("noise", ["gaussian", "heteroscedastic", "correlated"])
def test_interrupted_training_resumes_bit_exactly(noise, noisy, tmp_path):
    loop = LoopConfig(steps=20, log_steps=5)
    config = TeacherConfig(noise=noise, channels=8, modules=1, batch=2, crop=16, stride=2 if noise == "correlated" else None)
    config = config.resolved(noisy, torch.device("cpu"))
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    device = torch.device("cpu")
    run(TeacherTask(noisy, config, device, 0), loop, a, device, progress=False)
    for stop in (3, 16, 19):  # in each phase: mu, sigma, joint
        with pytest.raises(Interrupted, match=f"step {stop}"):
            run(TeacherTask(noisy, config, device, 0), loop, b, device, progress=False, callback=stop_at(stop))
        assert not b.exists()
    run(TeacherTask(noisy, config, device, 0), loop, b, device, progress=False)
    first, second = state(a), state(b)
    assert first.keys() == second.keys()
    assert any(k.startswith("optimizer.") for k in first) and any(k.startswith("generator.") for k in first)
    for key in first:
        assert torch.equal(first[key], second[key]), key
    rows_a, rows_b = (read_log(p.with_name(p.name + ".run") / "log.csv") for p in (a, b))
    assert [(r["step"], r["lr"]) for r in rows_a] == [(r["step"], r["lr"]) for r in rows_b]


def test_student_resumes_bit_exactly(noisy, tmp_path):
    labels = LabelSet(noisy, [0.1] * 6, [0.02] * 6, "gaussian", noisy=noisy, digest="x")
    config = StudentConfig(channels=6, depth=2, batch=3, crop=32, renoised=0.5)
    loop, device = LoopConfig(steps=12, log_steps=4), torch.device("cpu")
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run(StudentTask(labels, config, device, 0), loop, a, device, progress=False)
    with pytest.raises(Interrupted):
        run(StudentTask(labels, config, device, 0), loop, b, device, progress=False, callback=stop_at(5))
    run(StudentTask(labels, config, device, 0), loop, b, device, progress=False)
    assert all(torch.equal(v, state(b)[k]) for k, v in state(a).items())


def test_teacher_learns_and_leaves_what_a_person_needs(noisy, tmp_path):
    output = train_teacher(noisy, tmp_path / "t.safetensors", LoopConfig(steps=300, lr=3e-3, log_steps=50), SMALL, progress=False).path
    folder = tmp_path / "t.safetensors.run"
    losses = [float(r["loss"]) for r in read_log(folder / "log.csv")]
    assert len(losses) == 6 and losses[3] < 0.75 * losses[0]
    assert (folder / "preview.png").stat().st_size > 1000 and (folder / "curve.png").stat().st_size > 1000
    networks, header = load_networks(output)
    assert set(networks) == {"teacher", "noise_model"}
    assert header["kind"] == "teacher" and header["steps"] == 300 and header["config"]["task"]["channels"] == 8
    y = noisy.images[0][0].numpy()
    estimate, sigma = Denoiser(networks, header)(y, data_range=1.0, return_sigma=True)
    assert estimate.std() < y.std() and 0.08 < float(sigma.mean()) < 0.12


def test_checkpoint_of_another_configuration_is_refused(noisy, tmp_path):
    output, device = tmp_path / "t.safetensors", torch.device("cpu")
    config = SMALL.resolved(noisy, device)
    with pytest.raises(Interrupted):
        run(TeacherTask(noisy, config, device, 0), LoopConfig(steps=9), output, device, progress=False, callback=stop_at(2))
    with pytest.raises(TrainingError, match="steps"):
        run(TeacherTask(noisy, config, device, 0), LoopConfig(steps=10), output, device, progress=False)


def test_fit_makes_a_student_that_denoises(rng, tmp_path):
    clean = [photograph(rng, 64, 64) for _ in range(7)]
    images = [(c + rng.normal(0, 25 / 255, c.shape)).astype(np.float32) for c in clean]
    student = fit(
        images[:6],
        steps=500,
        progress=False,
        workdir=tmp_path,
        teacher=TeacherConfig(channels=16, modules=1, batch=2, crop=32),
        student=StudentConfig(channels=12, depth=2, batch=4, crop=32),
    ).networks["student"]
    with torch.no_grad():
        output = student(torch.from_numpy(images[6])[None, None])[0, 0].numpy()
    before, after = (10 * np.log10(1 / np.mean((x - clean[6]) ** 2)) for x in (images[6], output))
    assert after > before + 4, (before, after)


def test_crops_of_aligned_sets_are_the_same_places(rng):
    a = ImageSet.from_arrays([rng.random((20, 30, 3)).astype(np.float32) for _ in range(3)])
    b = ImageSet([2 * x for x in a.images], a.names)
    places = draw_places(a, a.areas, 16, 12, torch.Generator().manual_seed(0))
    x, y = (cut(s, places, 12) for s in (a, b))
    assert torch.equal(2 * x, y)
    assert len({tuple(c.flatten()[:4].tolist()) for c in x}) > 10


def test_integer_images_keep_their_dtype_in_memory(rng):
    images = ImageSet.from_arrays([rng.integers(0, 255, (8, 9, 3), dtype=np.uint8), rng.integers(0, 65535, (8, 9, 3), dtype=np.uint16)])
    assert [i.dtype for i in images.images] == [torch.uint8, torch.uint16]
    assert all(0 <= float(to_unit(i).min()) and float(to_unit(i).max()) <= 1 for i in images.images)


@pytest.mark.parametrize("budget", [{}, {"steps": 1, "minutes": 1}, {"steps": 0}, {"minutes": -1}])
def test_budget_must_be_one_positive_number(budget):
    with pytest.raises(TrainingError, match="budget"):
        LoopConfig(**budget)


def test_non_finite_training_image_is_refused():
    with pytest.raises(InputError, match="1 non-finite"):
        ImageSet.from_arrays([np.array([[0.0, np.nan]], np.float32)])


def test_mixed_channel_counts_are_refused():
    with pytest.raises(InputError, match=r"1 \(0\), 3 \(1\) channels"):
        ImageSet.from_arrays([np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)])


def test_diverged_loss_stops_training(noisy, tmp_path):
    with pytest.raises(TrainingError, match="loss is"):
        train_teacher(noisy, tmp_path / "t.safetensors", LoopConfig(steps=60, lr=1e30, log_steps=5), SMALL, progress=False)


def test_distill_starts_from_a_given_student(noisy, tmp_path):
    labels = LabelSet(noisy, [0.1] * 6, [0.02] * 6, "gaussian", noisy=noisy, digest="x")
    first = distill(labels, tmp_path / "a.safetensors", LoopConfig(steps=5), STUDENT, progress=False)
    init = load_networks(first.path)[0]["student"]
    second = distill(labels, tmp_path / "b.safetensors", LoopConfig(steps=1, lr=1e-9), STUDENT, init=init, progress=False)
    for a, b in zip(init.parameters(), second.networks["student"].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
