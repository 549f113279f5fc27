"""Tar files and object stores keep what folders keep: no label of another job, no torn or lost label, every failure in the manifest."""

from __future__ import annotations

import itertools
import json

import cv2
import fsspec
import numpy as np
import pytest

from fastbsn.errors import StorageError
from fastbsn.inference.predictor import Predictor
from fastbsn.io.storage import Folder, ObjectStore, open_storage
from fastbsn.io.tars import tar_bytes
from fastbsn.labelling import Options, generate
from tests.labelling.helpers import contents, noise, rows, teacher_file

IMAGES = 8


class Place:
    """Images in a place of a kind: "tars" (local, two images each), "memory" (an object store) or "memory tars"."""

    def __init__(self, kind: str, folder, name: str):
        root = f"memory://{name}" if "memory" in kind else str(folder)
        self.kind, self.noisy, self.root, self.teacher = kind, f"{root}/noisy", root, teacher_file(folder / "teacher.safetensors")
        rng = np.random.default_rng(5)
        self.images = {f"{i:03}.png": cv2.imencode(".png", noise(rng, *rng.integers(24, 60, 2)))[1].tobytes() for i in range(IMAGES)}
        self.write()

    def write(self) -> None:
        storage, names = open_storage(self.noisy), sorted(self.images)
        for i in range(0, IMAGES, 2):
            if "tars" in self.kind:
                storage.write(f"{i:03}.tar", tar_bytes((n, self.images[n]) for n in names[i : i + 2]))
            else:
                for n in names[i : i + 2]:
                    storage.write(n, self.images[n])

    def label(self, to: str = "labels", shard: tuple[int, int] = (0, 1), **settings) -> tuple[int, list[str]]:
        return generate(self.noisy, f"{self.root}/{to}", self.teacher, shard=shard, progress=False, **settings)

    def labels(self, to: str = "labels") -> dict[str, str]:
        return contents(f"{self.root}/{to}")


@pytest.fixture(params=["tars", "memory", "memory tars"])
def place(request, tmp_path):
    yield Place(request.param, tmp_path, request.node.name.replace(" ", "-"))
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("change", [{"teacher": 1}, {"std": True}, {"dtype": "bfloat16"}, {"content": True}, {"backend": "triton"}])
def test_labels_of_another_run_are_never_mixed_in(change, place, monkeypatch):
    place.label(dtype="float32")
    before, first = {row["label"] for row in rows(f"{place.root}/labels")}, place.labels()
    options = Options(std="std" in change)
    settings = {"dtype": change.get("dtype", "float32"), "options": options}
    if "teacher" in change:
        teacher_file(place.teacher, seed=1)
    if "content" in change:
        place.images["003.png"] = place.images["000.png"]
        place.write()
    if "backend" in change:
        prepared = Predictor.__init__

        def other(self, *args, **kwargs):
            prepared(self, *args, **kwargs)
            object.__setattr__(self.prepared, "backend", "triton")

        monkeypatch.setattr(Predictor, "__init__", other)
    written = place.label(**settings)[0]
    after = {row["label"] for row in rows(f"{place.root}/labels")}
    changed = IMAGES if "content" not in change else 2 if "tars" in place.kind else 1
    assert written == changed and len(after - before) == changed and len(after) == IMAGES
    kept = {name: data for name, data in first.items() if name != "manifest.json"}
    assert kept.items() <= place.labels().items(), "a label of the first run was overwritten"
    place.label("anew", **settings)
    assert place.labels("anew").items() <= place.labels().items()
    assert place.label(**settings)[0] == 0


@pytest.mark.parametrize("last", [0, 1])
def test_a_corrupt_input_is_in_the_failures_whichever_shard_ends_last(last, place):
    place.images["003.png"] = b"\x89PNG\r\n\x1a\n"
    place.write()
    failed = [place.label(shard=(i, 2))[1] for i in (1 - last, last)]
    manifest = json.loads(open_storage(f"{place.root}/labels").read("manifest.json"))
    assert [f["image"].rpartition("/")[2] for f in manifest["failures"]] == ["003.png"] and sum(map(len, failed)) == 1
    place.label("whole")
    assert place.labels() == place.labels("whole") and len(rows(f"{place.root}/labels")) == IMAGES - 1


@pytest.mark.parametrize("room", [1, 3])
def test_a_store_that_is_full_loses_and_tears_nothing(room, place, monkeypatch):
    place.label("whole")
    kind = ObjectStore if "memory" in place.kind else Folder
    create, number = kind.create, itertools.count()

    def limited(self, name, data):
        if next(number) >= room:
            raise StorageError(f"{name}: no space")
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "create", limited)
        with pytest.raises(StorageError, match="no space"):
            place.label()
    partly = place.labels()
    assert partly.items() <= place.labels("whole").items() and len(partly) == room and "manifest.json" not in partly
    for i in (1, 0):
        place.label(shard=(i, 2))
    assert place.labels() == place.labels("whole")
