"""Inputs of every kind: nested folders, stacks, tar files, object stores; all give the same labels."""

from __future__ import annotations

import tarfile

import fsspec
import pytest
import tifffile
import torch

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.storage import open_storage
from fastbsn.io.tars import TarFile, tar_bytes
from fastbsn.io.weights import parse_tensors
from fastbsn.labelling import generate
from fastbsn.training.imageset import to_tensor
from fastbsn.training.labels import LabelSet, label_image, load_teacher
from tests.labelling.helpers import contents, mixed_images, noise, rows, teacher_file


@pytest.fixture
def teacher(tmp_path):
    return teacher_file(tmp_path / "teacher.safetensors")


@pytest.fixture
def memory(request):
    """A place in memory of its own."""
    name = f"memory://{request.node.name}"
    yield name
    fsspec.filesystem("memory").store.clear()


def test_folders_in_folders_with_equal_names(tmp_path, rng, teacher):
    noisy = mixed_images(tmp_path / "noisy", 6, rng)
    assert generate(noisy, tmp_path / "labels", teacher, progress=False) == (6, [])
    names = ["000.png", "000c.png", "003.png", "003c.png", "sub/000.png", "sub/003.png"]
    assert [row["image"] for row in rows(tmp_path / "labels")] == names
    labels = LabelSet.open(tmp_path / "labels")
    assert [x.shape for x in labels.images.images] == [x.shape for x in labels.load_noisy().images]


def test_stacks_have_a_label_per_frame(tmp_path, rng, teacher):
    (tmp_path / "noisy").mkdir()
    stack = noise(rng, 3, 40, 32)
    tifffile.imwrite(tmp_path / "noisy" / "a.tif", stack, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "noisy" / "b.tif", stack[0])
    generate(tmp_path / "noisy", tmp_path / "labels", teacher, std=True, progress=False)
    labels, engine = LabelSet.open(tmp_path / "labels"), load_teacher(teacher)
    assert labels.images.names == ["a.tif"] * 3 + ["b.tif"] and [len(row["sigma"]) for row in rows(tmp_path / "labels")] == [3, 1]
    for i, frame in enumerate([*stack, stack[0]]):
        expected = label_image(engine, to_tensor(frame))
        assert torch.equal(labels.images.images[i], expected.label) and torch.equal(labels.noisy_image(i), to_tensor(frame))
        assert labels.sigmas[i] == expected.sigma and labels.stds[i] == expected.error


def tar_of(folder, names) -> bytes:
    return tar_bytes((name.replace("/", "_"), (folder / name).read_bytes()) for name in names)


def test_tar_files_give_tar_files_of_the_same_labels(tmp_path, rng, teacher):
    noisy = mixed_images(tmp_path / "noisy", 6, rng, nested=False)
    names, shards = open_storage(noisy).names(), tmp_path / "shards"
    shards.mkdir()
    for i in range(2):
        (shards / f"{i:05}.tar").write_bytes(tar_of(noisy, names[3 * i : 3 * i + 3]))
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    assert generate(shards, tmp_path / "tars", teacher, progress=False) == (6, [])
    assert generate(shards, tmp_path / "tars", teacher, progress=False) == (0, [])
    flat, tars = LabelSet.open(tmp_path / "labels"), LabelSet.open(tmp_path / "tars")
    assert tars.images.names == [f"{i // 3:05}.tar/{name}" for i, name in enumerate(names)]
    assert all(map(torch.equal, flat.images.images, tars.images.images)) and flat.sigmas == tars.sigmas
    assert all(map(torch.equal, flat.load_noisy().images, tars.load_noisy().images))
    written = sorted((tmp_path / "tars").glob("*.tar"))
    assert [p.name[:9] for p in written] == ["00000.tar", "00001.tar"]
    with tarfile.open(written[0]) as tar:
        assert tar.getnames() == [f"{name}.safetensors" for name in names[:3]]


def test_an_object_store_holds_the_same_bytes(tmp_path, rng, teacher, memory):
    noisy = mixed_images(tmp_path / "noisy", 5, rng)
    source = open_storage(f"{memory}/noisy")
    for name in open_storage(noisy).names():
        source.write(name, (noisy / name).read_bytes())
    source.write("sub/shard.tar", tar_of(noisy, ["003.png", "sub/000.png"]))
    (noisy / "sub" / "shard.tar").write_bytes(tar_of(noisy, ["003.png", "sub/000.png"]))
    for shard in ((1, 2), (0, 2)):
        generate(f"{memory}/noisy", f"{memory}/labels", teacher, shard=shard, progress=False)
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    assert contents(f"{memory}/labels") == contents(tmp_path / "labels")
    there, here = LabelSet.open(f"{memory}/labels"), LabelSet.open(tmp_path / "labels")
    assert all(map(torch.equal, there.images.images, here.images.images)) and len(here.images.images) == 7
    assert all(map(torch.equal, there.load_noisy().images, here.load_noisy().images))


def test_a_label_that_is_there_is_left_as_it_is(memory):
    storage = open_storage(memory)
    storage.create("a/b", b"first")
    storage.create("a/b", b"second")
    assert storage.read("a/b") == b"first" and storage.names() == ["a/b"] and storage.read("a/b", 2) == b"fi"
    with pytest.raises(InputError, match="a/c"):
        storage.read("a/c")


def test_what_a_tar_file_cannot_give_is_a_failure(tmp_path, rng, teacher):
    good = mixed_images(tmp_path / "images", 2, rng, nested=False)
    members = [(p.name, p.read_bytes()) for p in sorted(good.iterdir())]
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    (noisy / "a.tar").write_bytes(tar_bytes([*members, ("bad.png", b"\x89PNG\r\n\x1a\n"), ("note.txt", b"x")]))
    (noisy / "b.tar").write_bytes(tar_bytes(members)[:700])
    (noisy / "c.tar").write_bytes(tar_bytes([("../x.png", b"x")]))
    (noisy / "d.tar").write_bytes(tar_bytes([("x.txt", b"x")]))
    for _ in range(2):
        failures = generate(noisy, tmp_path / "labels", teacher, progress=False)[1]
        assert [f.partition(": ")[0] for f in failures] == ["a.tar/bad.png", "b.tar", "c.tar", "d.tar"]
    assert len(LabelSet.open(tmp_path / "labels").images.images) == 2


def test_tar_files_are_refused_as_sentences(tmp_path):
    for data, message in (
        (tar_bytes([("a", b"1"), ("a", b"2")]), "called 'a'"),
        (b"x" * 2000, "damaged"),
        (tar_bytes([("/a", b"")]), "'/a'"),
    ):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            TarFile(tmp_path / "x.tar")


def test_labels_are_plain_safetensors(tmp_path, rng, teacher):
    noisy = mixed_images(tmp_path / "noisy", 1, rng)
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    row = rows(tmp_path / "labels")[0]
    tensors, header = parse_tensors((tmp_path / "labels" / row["label"]).read_bytes(), "label")
    assert header == row and tensors["label"].dtype == torch.uint8 and list(tensors["label"].shape) == row["shape"]
