"""The recipes run: snippets where their library is installed, commands with small budgets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fastbsn.commands import main
from tests.conftest import photograph

PAGE = (Path(__file__).resolve().parents[1] / "RECIPES.md").read_text()
SECTIONS = {title: text for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)}


def snippet(title: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", SECTIONS[title], re.DOTALL)
    return code


def noisy(rng: np.random.Generator, channels: int = 3, h: int = 96, w: int = 128, grain: bool = False) -> np.ndarray:
    x = photograph(rng, h, w, channels) * 0.7 + 0.15
    noise = rng.normal(0, 1, x.shape)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.8) if grain else noise
    return np.rint(np.clip(x + noise / noise.std() * 15 / 255, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("title", ["A folder of phone photos", "A microscope movie", "A scanned film"])
def test_commands(title, tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("DCIM", "SCANS"):
        Path(folder).mkdir()
        for i in range(2):
            Image.fromarray(noisy(rng, 3, 256, 320, grain=True)).save(
                Path(folder) / (f"{i}.jpg" if folder == "DCIM" else f"{i}.tif"), quality=95
            )
    movie = np.stack([noisy(rng, 1) for _ in range(4)]).reshape(2, 2, 96, 128).astype(np.uint16) * 257
    tifffile.imwrite("movie.ome.tif", movie, photometric="minisblack", metadata={"axes": "TCYX", "PhysicalSizeX": 0.1})
    lines = re.findall(r"^fastbsn .*", SECTIONS[title], re.MULTILINE)
    assert lines
    for line in lines:
        arguments = shlex.split(re.sub(r"--minutes \d+", "--steps 2", line), comments=True)[1:]
        assert main([*arguments, "--device", "cpu"]) == 0, line
    if "movie" in title:
        assert tifffile.imread("OUT/movie.ome.tif").shape == movie.shape and Path("OUT-own/movie.ome.tif").exists()


def test_a_video(tmp_path, rng, monkeypatch):
    import av

    monkeypatch.chdir(tmp_path)
    with av.open("noisy.mp4", "w") as made:
        stream = made.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(3):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(noisy(rng), format="rgb24")))
        made.mux(stream.encode())
    exec(snippet("A video through PyAV"), {})
    with av.open("clean.mp4") as done:
        frames = [f.to_ndarray(format="rgb24") for f in done.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (96, 128, 3)


def test_a_dask_array(rng):
    names = {"recording": np.stack([noisy(rng, 1) for _ in range(3)]).astype(np.uint16) * 16}
    exec(snippet("A dask array"), names)
    whole = names["d"](names["recording"], axes="TYX", data_range=4095)
    assert names["result"].dtype == np.uint16 and np.array_equal(names["result"], whole)


def test_a_torch_pipeline(rng):
    names = {"images": [torch.from_numpy(noisy(rng)).permute(2, 0, 1) for _ in range(2)]}
    exec(snippet("A torch pipeline"), names)
    assert names["shape"] == names["batch"].shape == (2, 3, 96, 128) and names["batch"].dtype == torch.uint8


def test_every_recipe_is_tested():
    assert set(SECTIONS) == {
        "A folder of phone photos",
        "A microscope movie",
        "A scanned film",
        "A video through PyAV",
        "A dask array",
        "A torch pipeline",
    }
