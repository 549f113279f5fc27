"""Labels: one per image, dtype kept, resumable at any instant, byte-identical however often they were interrupted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fastbsn.denoiser import Denoiser
from fastbsn.errors import FileFormatError, InputError, WeightsError
from fastbsn.io.weights import load_tensors, save_networks
from fastbsn.labelling import generate
from fastbsn.nets import NoiseModel, UNet, noise_level
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet, load_teacher
from tests.labelling.helpers import contents, rows, teacher_file


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return teacher_file(tmp_path / "teacher.safetensors")


def test_one_label_per_image_with_manifest(noisy_folder, teacher, tmp_path):
    out = tmp_path / "labels"
    assert generate(noisy_folder, out, teacher, std=True, progress=False) == (6, [])
    assert [row["image"] for row in rows(out)] == [f"{i}.png" for i in range(6)]
    d = Denoiser.from_pretrained(teacher)
    for row in rows(out):
        tensors, header = load_tensors(out / row["label"])
        y = cv2.imread(str(noisy_folder / row["image"]), cv2.IMREAD_UNCHANGED)
        expected, std = d(y, return_sigma="posterior")
        assert tensors["label"].dtype == torch.uint8 and np.array_equal(tensors["label"][0].numpy(), expected)
        assert tensors["std"].dtype == torch.float16 and np.allclose(tensors["std"][0].numpy(), std / 255, atol=1e-3)
        assert header == row and row["shape"] == [1, *y.shape] and row["dtype"] == "uint8"
        assert row["sigma"] == [pytest.approx(noise_level(torch.from_numpy(y)[None] / 255), rel=1e-5)]
    assert generate(noisy_folder, out, teacher, std=True, progress=False) == (0, [])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_dtype_is_kept(dtype, tmp_path, rng):
    folder = tmp_path / "noisy"
    folder.mkdir()
    x = rng.random((20, 24))
    np.save(folder / "a.npy", (x * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else x.astype(dtype))
    generate(folder, tmp_path / "labels", teacher_file(tmp_path / "t.safetensors"), progress=False)
    label = LabelSet.open(tmp_path / "labels").images.images[0]
    assert label.dtype == torch.from_numpy(np.zeros(1, dtype)).dtype and label.shape == (1, 20, 24)


@pytest.mark.parametrize("noise", ["gaussian", "heteroscedastic", "multivariate", "correlated"])
def test_every_kind_of_noise_makes_labels_and_opens(noise, tmp_path, rng):
    folder = tmp_path / "noisy"
    folder.mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (21, 19, 3), dtype=np.uint8))
    generate(folder, tmp_path / "labels", teacher_file(tmp_path / "t.safetensors", 3, noise), progress=False)
    labels = LabelSet.open(tmp_path / "labels")
    assert labels.noise == noise and labels.can_sample_noise == (noise != "correlated")
    assert labels.weights().shape == (2,) and labels.load_noisy().images[0].shape == (3, 21, 19)
    if labels.can_sample_noise:
        fresh = labels.sample_noise(torch.rand(2, 3, 8, 8), [1, 0], torch.Generator().manual_seed(0))
        assert fresh.shape == (2, 3, 8, 8) and fresh.std() > 0


def test_shards_share_the_work(noisy_folder, teacher, tmp_path):
    out = tmp_path / "labels"
    assert generate(noisy_folder, out, teacher, shard=(0, 2), progress=False)[0] == 3
    assert not (out / "manifest.json").exists()
    with pytest.raises(FileFormatError, match="fastbsn label"):
        LabelSet.open(out)
    assert generate(noisy_folder, out, teacher, shard=(1, 2), progress=False)[0] == 3
    generate(noisy_folder, tmp_path / "whole", teacher, progress=False)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_bad_image_is_reported_and_the_rest_is_labelled(noisy_folder, teacher, tmp_path):
    (noisy_folder / "3.png").write_bytes((noisy_folder / "3.png").read_bytes()[:100])
    written, failures = generate(noisy_folder, tmp_path / "labels", teacher, progress=False)
    assert written == 5 and len(failures) == 1 and "3.png" in failures[0]
    assert len(LabelSet.open(tmp_path / "labels").images.images) == 5


def test_cleaner_labels_weigh_more(noisy_folder, teacher, tmp_path):
    generate(noisy_folder, tmp_path / "labels", teacher, progress=False)
    labels = LabelSet.open(tmp_path / "labels")
    labels.stds[:] = [0.001, 0.01, 0.02, 0.03, 0.04, 0.05]
    weights = labels.weights()
    assert (weights[:-1] > weights[1:]).all() and weights[0] / weights[-1] < 1000


def test_errors_say_what_to_do(noisy_folder, teacher, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        generate(tmp_path / "empty", tmp_path / "labels", teacher, progress=False)
    save_networks(tmp_path / "n.safetensors", {"noise_model": NoiseModel("gaussian", 1, 8)}, {})
    with pytest.raises(WeightsError, match="expected 'student'"):
        generate(noisy_folder, tmp_path / "labels", tmp_path / "n.safetensors", progress=False)
    with pytest.raises(InputError, match="inside"):
        generate(noisy_folder, noisy_folder / "labels", teacher, progress=False)
    colour = teacher_file(tmp_path / "c.safetensors", 3)
    assert len(generate(noisy_folder, tmp_path / "labels", colour, progress=False)[1]) == 6


def test_a_student_labels_too_and_strength_names_its_labels(noisy_folder, tmp_path):
    save_networks(tmp_path / "s.safetensors", {"student": UNet(1, 6, 1)}, {"noise": "gaussian"})
    for strength in (1.0, 2.0):
        assert generate(noisy_folder, tmp_path / "labels", tmp_path / "s.safetensors", progress=False, strength=strength) == (6, [])
    assert len(list((tmp_path / "labels").glob("*.safetensors"))) == 12
    labels = LabelSet.open(tmp_path / "labels")
    assert labels.can_sample_noise and min(labels.sigmas) > 0


def test_joined_sets_have_the_shares_that_were_asked(rng):
    def made(n: int, size: int) -> LabelSet:
        images = ImageSet([torch.rand(3, size, size) for _ in range(n)], [f"{n}-{i}" for i in range(n)])
        return LabelSet(images, [0.1] * n, [0.0] * n, "gaussian", noisy=images, digest=str(n))

    joined = LabelSet.join([made(2, 40), made(5, 90)])
    weights = joined.weights()
    assert len(joined.images.images) == 7 and weights[:2].sum() == pytest.approx(float(weights[2:].sum()))
    quarter = LabelSet.join([made(2, 40), made(5, 90)], [1, 3])
    weights = quarter.weights()
    assert float(weights[:2].sum() / weights.sum()) == pytest.approx(0.25) and quarter.digest != joined.digest
    with pytest.raises(InputError, match="one positive number for each"):
        LabelSet.join([made(2, 40), made(5, 90)], [1.0])
    assert joined.noise == "gaussian" and joined.digest != LabelSet.join([made(5, 90), made(2, 40)]).digest
    assert torch.equal(joined.noisy_image(3), joined.images.images[3])


def test_gray_labels_of_colour_images(rng, tmp_path):
    from fastbsn.training import LoopConfig, StudentConfig, distill

    images = [rng.random((24, 32, 3)).astype(np.float32) for _ in range(2)]
    colour = LabelSet.compute(load_teacher(teacher_file(tmp_path / "t.safetensors", 3)), ImageSet.from_arrays(images))
    gray = colour.gray()
    for label, noisy, source, y in zip(gray.images.images, gray.load_noisy().images, colour.images.images, images, strict=True):
        luma = np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(label[0].numpy(), np.einsum("chw,c->hw", source.numpy(), luma), atol=1e-3)
        np.testing.assert_allclose(noisy[0].numpy(), y @ luma, atol=1e-6)
    assert gray.sigmas == pytest.approx([s * np.linalg.norm(luma) for s in colour.sigmas])  # independent noise of the channels, weighted
    tiny = {"channels": 6, "depth": 2, "batch": 2, "crop": 16}
    with pytest.raises(InputError, match="give sigma"):
        distill(gray, tmp_path / "s.safetensors", LoopConfig(steps=1), StudentConfig(**tiny), progress=False)
    student = distill(gray, tmp_path / "s.safetensors", LoopConfig(steps=2), StudentConfig(sigma=(0, 55), **tiny), progress=False)
    assert Denoiser.from_pretrained(student.path).channels == 1
    with pytest.raises(InputError, match="1 channels"):
        gray.gray()
