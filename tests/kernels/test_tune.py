"""`fastbsn tune` without a GPU: what it refuses, and the table that it writes from timings that are made up here."""

import json

import pytest
import torch

from fastbsn.commands import main
from fastbsn.errors import InputError
from fastbsn.kernels import tune, tuning
from fastbsn.kernels.tuning import Config


def test_without_a_gpu_it_is_refused_in_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["tune", "-o", str(tmp_path / "t.json")]) == 2
    assert "there is no CUDA device" in capsys.readouterr().err and not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(("kernels", "channels"), [(["none"], [48]), (["conv"], [47])])
def test_unknown_kernels_and_widths(kernels, channels, tmp_path):
    with pytest.raises(InputError, match="expected some of"):
        tune.write_table(tmp_path / "t.json", kernels, channels)


def test_the_table_holds_the_fastest_and_is_read_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(tune, "torch", type("T", (), {"cuda": torch.cuda, "empty": staticmethod(lambda *a, **k: None)}))
    monkeypatch.setattr(tune.runtime, "target", lambda x: type("Target", (), {"arch": "sm_90"}))
    monkeypatch.setattr(tune, "tune", lambda kernel, c, side, seconds: (Config(64, 16, 4, 3), 0.5))
    path = tmp_path / "t.json"
    assert main(["tune", "-o", str(path), "--kernels", "conv", "--channels", "48", "96"]) == 0
    assert "conv                 C= 48" in capsys.readouterr().out
    written, before = json.loads(path.read_text()), tuning.table()
    assert written["sm_90"]["measured"] == "a GPU" and written["sm_80"] == before["sm_80"]
    changed = {k for k in written["sm_90"] if written["sm_90"][k] != before["sm_90"][k]}
    assert changed <= {"measured", "conv/48/16", "conv/96/16"}
    monkeypatch.setenv("FASTBSN_TUNING", str(path))
    tuning.table.cache_clear()
    try:
        assert tuning.config("conv", "sm_90", 90, 2) == Config(64, 16, 4, 3)
    finally:
        tuning.table.cache_clear()
