"""The extension as setup.py builds it: what the compiler reports, import without a driver, and installation without nvcc."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import setuptools
import torch

from fastbsn.backends import cuda, reference, trial
from fastbsn.errors import BackendError
from fastbsn.nets import DBSN, UNet
from fastbsn.ops import dispatch, mdc_cuda, self_check

from .conftest import ROOT

ARCHS = os.environ.get("FASTBSN_ARCHS", "80;86;89;90a;100;120").split(";")  # fewer make the build shorter
KERNEL = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\w+)'\n.*?\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".*?Used (\d+) registers"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The extension, and what the compiler said."""
    if not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").is_file() or "CUDA_HOME" in os.environ):
        pytest.skip("no nvcc: the package installs without the extension, so there is nothing to compile")
    folder = tmp_path_factory.mktemp("extension")
    flags = {"FASTBSN_CUDA": "1", "FASTBSN_ARCHS": ";".join(ARCHS), "NVCC_APPEND_FLAGS": "-Xptxas=-v"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **flags}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert f"fastbsn: with the CUDA extension for sm_{', sm_'.join(ARCHS)}" in done.stdout
    return next((folder / "lib/fastbsn").glob("_C*")), done.stdout + done.stderr


@pytest.fixture
def extension(build: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fastbsn._C", build[0])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "fastbsn._C", module)
    return module


def test_no_kernel_spills_on_any_architecture(build: tuple[Path, str]) -> None:
    report = build[1]
    kernels = KERNEL.findall(report)
    per_arch = Counter(arch for _, arch, *_ in kernels)
    assert set(per_arch) == set(ARCHS) and report.count("Compiling entry function") == len(kernels)
    for name, arch, stack, stores, loads, registers in kernels:
        assert (stack, stores, loads) == ("0", "0", "0"), (
            f"{name} for sm_{arch} uses {stack} bytes of stack, spills {stores} + {loads} bytes"
        )
        assert int(registers) <= 255
    for warning in ("C75", "warning"):  # C75..: wgmma serialised, or registers of it moved
        assert warning not in report, report[max(0, report.find(warning) - 500) :][:1000]


def test_later_gpus_find_ptx(build: tuple[Path, str]) -> None:
    """Of every plain architecture; that of 90a runs on no other GPU, so it would be of no use."""
    triton = pytest.importorskip("triton", reason="cuobjdump comes with triton")
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    listing = subprocess.run([tool, "--list-ptx", build[0]], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\.sm_(\w+)\.ptx", listing)) == {arch for arch in ARCHS if arch.isdigit()}


def test_import_needs_neither_torch_nor_driver(build: tuple[Path, str]) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import _C\n"
        "assert 'torch' not in sys.modules\n"
        "print('archs:', _C.archs)\n"
        "try: print('GPUs:', _C.device_count())\n"
        "except _C.CudaError as error: assert isinstance(error, RuntimeError); print('refused:', error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(build[0].parent)], capture_output=True, text=True, check=True)
    assert f"archs: {','.join(ARCHS)}" in done.stdout
    if not torch.cuda.is_available():
        assert re.search(r"refused: counting GPUs: .*(driver|device).* \(CUDA error \d+\)", done.stdout), done.stdout
    libraries = subprocess.run(["ldd", str(build[0])], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in libraries and "torch" not in libraries


def test_refusals_of_the_backend(extension: ModuleType) -> None:
    cpu, bf16 = torch.device("cpu"), torch.bfloat16
    assert "UNet" in (cuda.why_not(DBSN(channels=8, modules=1), cpu, bf16) or "")
    reason = cuda.why_not(UNet(), cpu, bf16)
    assert reason and ("CUDA error" in reason or "needs a GPU" in reason)
    with pytest.raises(BackendError, match="use backend='auto'"):
        cuda.prepare(UNet(), cpu, bf16)


def test_refusals_of_the_teachers_module(extension: ModuleType) -> None:
    reason = mdc_cuda.why_not(torch.device("cuda", 9), torch.float16, 96)
    assert reason and re.search(r"CUDA error \d+|there are|needs 9.0", reason)
    right = dict(x=16, y=32, inside=1, weights=64, bias=4, images=1, h=4, w=4, rows=20, pitch=6)
    for wrong, message in (
        ({"y": 34}, "aligned to 16"),
        ({"h": 0}, "below 1"),
        ({"pitch": 3}, "pitch below"),
        ({"images": 2**31 - 1, "h": 17}, "2.31 tiles"),
    ):
        with pytest.raises(ValueError, match=message):
            extension.mdc_launch(half=True, **{**right, **wrong}, device=0, stream=0)


def test_missing_extension_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastbsn._C", None)
    reason = cuda.why_not(UNet(), torch.device("cuda"), torch.bfloat16)
    assert reason and reason.startswith("the extension fastbsn._C is not installed")


def run_setup(monkeypatch: pytest.MonkeyPatch, wish: str) -> dict[str, Any]:
    """The arguments that setup.py gives to setuptools on a machine without nvcc."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    monkeypatch.setenv("FASTBSN_CUDA", wish)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return given


@pytest.mark.parametrize("wish, why", [("auto", "no nvcc"), ("0", "FASTBSN_CUDA=0")])
def test_without_nvcc_the_package_installs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wish: str, why: str
) -> None:
    given = run_setup(monkeypatch, wish)
    assert given["ext_modules"] == [] and "fastbsn" in given["packages"] and given["package_dir"] == {"fastbsn.kernels": "kernels"}
    assert capsys.readouterr().out == f"fastbsn: without the CUDA extension ({why})\n"


def test_demanded_without_nvcc_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no nvcc in CUDA_HOME"):
        run_setup(monkeypatch, "1")


@pytest.mark.parametrize("factor, path", [(1.0, "hopper"), (1.05, "portable")])
def test_hopper_is_the_default_where_it_passes_its_self_check(monkeypatch: pytest.MonkeyPatch, factor: float, path: str) -> None:
    """`factor`: of the noise that the Hopper kernels subtract, as if wgmma read something else than was asked for."""

    class Run:
        def __init__(self, net: UNet, device: torch.device, path: str):
            self.path, self.run = path, reference.prepare(net, torch.device("cpu"), torch.float32)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x - (factor if self.path == "hopper" else 1.0) * (x - self.run(x))

    original = trial._runs
    monkeypatch.setattr(trial, "_runs", lambda net, device, *rest: original(net, torch.device("cpu"), *rest))
    monkeypatch.setattr(self_check, "_results", {})
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(cuda, "CudaUNet", Run)
    monkeypatch.setattr(cuda, "why_not", lambda *arguments: None)
    arguments = UNet(), torch.device("cuda"), torch.bfloat16
    with nullcontext() if path == "hopper" else pytest.warns(RuntimeWarning, match="error 0.05, allowed 0.0") as caught:
        assert cuda.prepare(*arguments).path == path
        assert cuda.prepare(*arguments).path == path
    assert caught is None or len(caught) == 1
    assert cuda.prepare(*arguments, "portable").path == "portable"
    if path == "portable":
        with pytest.raises(BackendError, match="error 0.05, allowed 0.0"):
            cuda.prepare(*arguments, "hopper")
    monkeypatch.setattr(cuda, "why_not", lambda *arguments: "compute capability 8.0" if "hopper" in arguments else None)
    assert cuda.prepare(*arguments).path == "portable"
