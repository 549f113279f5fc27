"""A run is of its images and settings: the same one goes on, another one is refused or starts anew, and never returns the wrong weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn import Denoiser
from fastbsn.commands import main
from fastbsn.errors import Interrupted, TrainingError
from fastbsn.inference.predictor import Predictor
from fastbsn.io.weights import load_networks
from fastbsn.nets import DBSN, UNet
from fastbsn.training import ImageSet, LoopConfig, StudentConfig, TeacherConfig, distill, fit, train_teacher
from fastbsn.training.labels import LabelSet

TEACHER = TeacherConfig(channels=8, modules=1, batch=1, crop=16)
STUDENT = StudentConfig(channels=6, depth=1, batch=1, crop=16)


def images(seed: int, count: int = 2) -> list[np.ndarray]:
    return [x.astype(np.float32) for x in np.random.default_rng(seed).random((count, 20, 24))]


def weights(networks: dict[str, torch.nn.Module]) -> torch.Tensor:
    return torch.cat([p.flatten() for p in networks["student"].parameters()])


def small_fit(arrays, folder, **settings):
    settings = {"steps": 2, "teacher": TEACHER, "student": STUDENT} | settings
    return fit(arrays, workdir=folder, device="cpu", progress=False, **settings)


def test_fit_of_other_images_into_the_same_folder_is_refused_naming_both(tmp_path):
    first = small_fit(images(0), tmp_path)
    digests = [ImageSet.from_arrays(images(seed)).digest for seed in (0, 1)]
    with pytest.raises(TrainingError, match=f"task.data: '{digests[0]}' there, '{digests[1]}' now"):
        small_fit(images(1), tmp_path)
    again = small_fit(images(0), tmp_path)
    assert torch.equal(weights(again.networks), weights(first.networks)) and again.header["config"] == first.header["config"]


def test_fit_of_other_images_starts_anew_when_told_to(tmp_path):
    first = small_fit(images(0), tmp_path / "w")
    second = small_fit(images(1), tmp_path / "w", overwrite=True)
    alone = small_fit(images(1), tmp_path / "alone")
    assert torch.equal(weights(second.networks), weights(alone.networks))
    assert not torch.equal(weights(second.networks), weights(first.networks))


def test_a_denoiser_refuses_the_folder_of_another_fit(tmp_path):
    Denoiser(device="cpu").fit(images(0), steps=2, workdir=tmp_path, progress=False)
    with pytest.raises(TrainingError, match="task.data"):
        Denoiser(device="cpu").fit(images(1), steps=2, workdir=tmp_path, progress=False)
    Denoiser(device="cpu").fit(images(1), steps=2, workdir=tmp_path, progress=False, overwrite=True)


def test_the_command_goes_on_with_its_own_images_only(tmp_path, capsys, monkeypatch):
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i, x in enumerate(images(seed)):
            np.save(tmp_path / name / f"{i}.npy", x)
    output = tmp_path / "s.safetensors"
    with monkeypatch.context() as broken:
        broken.setattr("fastbsn.training.stages.distill", lambda *a, **k: (_ for _ in ()).throw(Interrupted("power cut")))
        assert main(["fit", str(tmp_path / "a"), "-o", str(output), "--steps", "2"]) == 130
    assert main(["fit", str(tmp_path / "b"), "-o", str(output), "--steps", "2"]) == 2
    assert "task.data" in capsys.readouterr().err and not output.exists()
    assert main(["fit", str(tmp_path / "a"), "-o", str(output), "--steps", "2"]) == 0
    assert main(["fit", str(tmp_path / "b"), "-o", str(output), "--steps", "2", "--overwrite"]) == 0


def test_fit_with_another_kind_of_noise_is_refused(tmp_path):
    small_fit(images(0), tmp_path, teacher=None, student=None)
    with pytest.raises(TrainingError, match="task.noise: 'gaussian' there, 'heteroscedastic' now"):
        small_fit(images(0), tmp_path, teacher=None, student=None, noise="heteroscedastic")


@pytest.mark.parametrize("finished", [True, False])
def test_a_teacher_of_as_many_other_images_is_refused(finished, tmp_path):
    def interrupt(now):
        raise Interrupted("enough")

    if finished:
        train_teacher(ImageSet.from_arrays(images(0)), tmp_path / "t.safetensors", LoopConfig(2), TEACHER, progress=False)
    else:
        with pytest.raises(Interrupted):
            train_teacher(
                ImageSet.from_arrays(images(0)), tmp_path / "t.safetensors", LoopConfig(2), TEACHER, progress=False, callback=interrupt
            )
    with pytest.raises(TrainingError, match="task.data"):
        train_teacher(ImageSet.from_arrays(images(1)), tmp_path / "t.safetensors", LoopConfig(2), TEACHER, progress=False)


def test_a_changed_budget_is_named_alone(tmp_path):
    noisy = ImageSet.from_arrays(images(0))
    output = train_teacher(noisy, tmp_path / "t.safetensors", LoopConfig(2), TEACHER, progress=False).path
    with pytest.raises(TrainingError, match=r"of another run \(loop.steps: 2 there, 3 now\)"):
        train_teacher(noisy, output, LoopConfig(3), TEACHER, progress=False)


def test_the_header_says_what_the_weights_were_trained_on(tmp_path):
    noisy = ImageSet.from_arrays(images(0))
    output = train_teacher(noisy, tmp_path / "t.safetensors", LoopConfig(1), TEACHER, progress=False).path
    assert load_networks(output)[1]["config"]["task"]["data"] == noisy.digest


def test_a_digest_is_of_values_dtypes_shapes_and_order():
    a, b = images(0)
    sets = [[a, b], [b, a], [a], [a, b.T.copy()], [a, b.astype(np.float16)], [a, b + np.float32(1e-6)]]
    digests = [ImageSet.from_arrays(x).digest for x in sets]
    assert len(set(digests)) == len(sets) and ImageSet.from_arrays([a.copy(), b.copy()]).digest == digests[0]


def test_labels_in_memory_are_told_apart_by_images_and_teacher():
    def digest(seed: int, noisy: int) -> str:
        torch.manual_seed(seed)
        return LabelSet.compute(Predictor({"teacher": DBSN(1, 8, 1)}, device="cpu"), ImageSet.from_arrays(images(noisy))).digest

    assert len({digest(0, 0), digest(0, 1), digest(1, 0)}) == 3 and digest(0, 0) == digest(0, 0)


def test_labels_made_by_hand_are_told_apart_by_their_values():
    sets = [ImageSet.from_arrays(images(seed)) for seed in (0, 1)]
    made = [(sets[0], 0.1, sets[0]), (sets[1], 0.1, sets[0]), (sets[0], 0.2, sets[0]), (sets[0], 0.1, sets[1])]
    assert len({LabelSet(x, [s] * 2, [0.0] * 2, "gaussian", noisy=y).digest for x, s, y in made}) == 4


@pytest.mark.parametrize("other", ["clean", "init"])
def test_other_clean_images_or_another_start_is_another_run(other, tmp_path):
    noisy = ImageSet.from_arrays(images(0))
    labels = LabelSet(noisy, [0.1] * 2, [0.02] * 2, "gaussian", noisy=noisy, digest="x")
    config = StudentConfig(channels=6, depth=1, batch=1, crop=16, renoised=0.5, clean=0.5)

    def run(seed: int):
        torch.manual_seed(seed)
        clean = ImageSet.from_arrays(images(seed if other == "clean" else 0))
        init = UNet(1, 6, 1) if other == "init" else None
        distill(labels, tmp_path / "s.safetensors", LoopConfig(1), config, clean, init, progress=False)

    run(1)
    with pytest.raises(TrainingError, match="task.clean_images" if other == "clean" else "task.init"):
        run(2)


@pytest.mark.parametrize("budget", [{"steps": 0}, {"minutes": 0}, {"steps": -1}, {"steps": 1, "minutes": 1}, {}])
def test_fit_refuses_a_budget_of_nothing(budget):
    with pytest.raises(TrainingError, match="budget"):
        fit(images(0), device="cpu", progress=False, **budget)
