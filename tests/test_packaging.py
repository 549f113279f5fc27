"""An sdist, a wheel without the extension made of it, and three lines of Python that denoise a photograph where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import photograph

ROOT = Path(__file__).resolve().parents[1]
THREE_LINES = """
import cv2, fastbsn
denoise = fastbsn.Denoiser.from_pretrained("color-awgn", device="cpu")
cv2.imwrite("clean.png", denoise(cv2.imread("noisy.png")))
"""
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "FASTBSN_CUDA": "0"}


def build(hook: str, source: Path, target: Path) -> Path:
    """The file that a hook of PEP 517 makes, such as "build_wheel"."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    result = subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target / result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Made of the sdist, which is made of the files under version control."""
    folder = tmp_path_factory.mktemp("dist")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    with tarfile.open(build("build_sdist", folder / "tree", folder)) as pack:
        pack.extractall(folder / "sdist", filter="data")
    return build("build_wheel", next((folder / "sdist").iterdir()), folder)


def test_wheel_is_pure_python_and_complete(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [p.relative_to(ROOT) for p in (ROOT / "fastbsn").rglob("*") if p.suffix in (".py", ".typed", ".safetensors", ".html")]
    tracked += [Path("fastbsn", p.relative_to(ROOT)) for p in (ROOT / "kernels").iterdir() if p.suffix in (".py", ".json")]
    assert len(tracked) > 80 and {p.as_posix() for p in tracked} <= names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"fastbsn"}


def test_three_lines_denoise_a_photograph_where_it_is_installed(wheel, tmp_path, rng):
    venv.create(tmp_path / "venv")
    scheme = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, env=ENVIRONMENT, check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # `make wheel-test` installs them instead
    clean = photograph(rng, 120, 160, 3)
    noisy = np.rint(np.clip(clean + rng.normal(0, 25 / 255, clean.shape), 0, 1) * 255)
    cv2.imwrite(str(tmp_path / "noisy.png"), noisy.astype(np.uint8))
    code = THREE_LINES + "\nprint(fastbsn.__file__)"
    result = subprocess.run([str(python), "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.splitlines()[-1]).is_relative_to(site)
    error = {name: np.std(image / 255 - clean) for name, image in (("noisy", noisy), ("clean", cv2.imread(str(tmp_path / "clean.png"))))}
    assert error["clean"] < 0.5 * error["noisy"]
