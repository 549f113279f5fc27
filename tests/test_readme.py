"""The README's commands and examples are real: every command parses, every example runs, every linked file exists."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastbsn.commands.parser import parser
from fastbsn.models import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_command_parses():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("fastbsn ")]
    assert len(commands) >= 6
    for arguments in commands:
        assert callable(parser().parse_args(arguments).run)


def test_every_make_target_exists():
    targets = set(re.findall(r"^make (\w+)|`make (\w+)`", README, re.MULTILINE))
    names = {name for pair in targets for name in pair if name}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= names
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in names)


def test_python_examples_run(tmp_path, monkeypatch, noisy_folder, rng):
    monkeypatch.chdir(tmp_path)
    noisy_folder.rename(tmp_path / "my_noisy_images")
    names = {"noisy": rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), "movie": rng.random((2, 24, 24), dtype=np.float32)}
    names["movie_frames"] = iter([names["noisy"]] * 4)
    code = "\n".join(blocks("python"))
    assert "minutes=20" in code
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a gray movie through the colour model
        exec(code.replace("minutes=20", "steps=2, progress=False"), names)
    assert names["clean"].shape == (40, 50, 3) and names["clean"].dtype == np.uint8
    assert names["stack"].shape == (2, 24, 24) and names["stack"].dtype == np.float32
    assert len(names["frames"]) == 4 and all(np.array_equal(frame, names["clean"]) for frame in names["frames"])
    assert (tmp_path / "mine.safetensors").exists() and (tmp_path / "mine.onnx").exists()


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("name", ["gray-awgn", "color-awgn", "color-photo", "color-photo-fast"])
def test_bundled_models_are_small_and_denoise(name, rng):
    from fastbsn import Denoiser

    assert sum(p.stat().st_size for p in WEIGHTS.glob("*.safetensors")) <= 8_000_000
    d = Denoiser.from_pretrained(name)
    clean = np.broadcast_to(np.linspace(0.2, 0.8, 96)[:, None], (96, 96)) if d.channels == 1 else np.full((96, 96, 3), 0.5)
    for sigma, share in ((5, 1.0), (25, 0.35), (50, 0.35)):  # at weak noise: at least not worse than the input
        noisy = (clean + rng.normal(0, sigma / 255, clean.shape)).astype(np.float32)
        output = d(noisy, data_range=1.0)
        assert np.std(output - clean) < share * np.std(noisy - clean)
    assert d.header_["kind"] == "student" and d.header_["noise"] == ("camera" if "photo" in name else "gaussian")
