"""What runs on a Ray cluster, without one: actors, the end of a run, and the refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastbsn.commands import main
from fastbsn.errors import InputError
from fastbsn.io.storage import open_storage
from fastbsn.labelling import generate
from fastbsn.scale.ray import LabelActor, _finish, _pool, label
from tests.labelling.helpers import contents, mixed_images, teacher_file


def test_actors_make_the_labels_of_one_process_and_repeat_what_another_one_had_in_hand(tmp_path, rng):
    noisy, teacher = mixed_images(tmp_path / "noisy", 7, rng), teacher_file(tmp_path / "teacher.safetensors")
    (noisy / "003.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = {"teacher": str(teacher), "device": "cpu", "backend": "auto", "dtype": "auto", "options": None}
    places = str(noisy), str(tmp_path / "labels")
    units = np.array(open_storage(noisy).names())
    first, second = LabelActor(*places, settings), LabelActor(*places, settings)
    first({"unit": units[:3]})  # killed before its rows came back
    made = [second({"unit": units[:4]}), second({"unit": units[4:]})]
    assert [int(batch["written"].sum()) for batch in made] == [1, 3]  # 000.png and 000c.png are there, 003.png fails
    assert len({job for batch in made for job in batch["job"]}) == 1
    rows = [str(row) for batch in made for row in batch["row"]]
    _finish(*places, settings, rows)
    generate(noisy, tmp_path / "whole", teacher, progress=False)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole") and len(rows) == 7


def test_refusals(tmp_path, monkeypatch, capsys):
    assert _pool(None, 4) == (1, 4) and _pool(3, 8) == (3, 3) and _pool((1, 2), 8) == (1, 2)
    with pytest.raises(InputError, match="actors=0"):
        _pool(0, 4)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"install fastbsn\[ray\]"):
        label(tmp_path, tmp_path / "labels", "gray-awgn")
    arguments = ["label", str(tmp_path), "-o", str(tmp_path / "labels"), "--teacher", "gray-awgn", "--ray", "--shard", "0/2"]
    assert main(arguments) == 2 and "give one of the two" in capsys.readouterr().err
