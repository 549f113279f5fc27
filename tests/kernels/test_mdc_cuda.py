"""The teacher with its modules in CUDA: the emulated kernel inside the prepared network, and when it is chosen."""

from __future__ import annotations

import ctypes
import warnings
from pathlib import Path

import pytest
import torch

from fastbsn import ops
from fastbsn.backends import reference, trial, triton
from fastbsn.errors import BackendError
from fastbsn.kernels import tuning
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.tuning import Config
from fastbsn.nets import DBSN
from fastbsn.ops import dispatch, mdc, mdc_cuda, self_check
from fastbsn.ops.modules import in_a_row
from tests.csrc.conftest import ROOT, compile_cpp
from tests.kernels import checks
from tests.kernels.interpreter import DEVICE

CPU, CUDA, HALF, BF16 = torch.device("cpu"), torch.device("cuda", 0), torch.float16, torch.bfloat16


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output: Path = tmp_path_factory.mktemp("mdc") / "mdc.so"
    return ctypes.CDLL(str(compile_cpp(output, ROOT / "tests/csrc/mdc.cpp", flags=["-O3", "-march=native", "-shared", "-fPIC"])))


def launches(emulated: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, factor: float = 1.0) -> list[int]:
    """Dilations of the launches, by the emulated kernel, whose result is then `factor` times too large."""
    launched: list[int] = []

    def emulate(x, weights, bias, inside, flat: Flat, y):
        launched.append(flat.d)
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, y, inside, weights, bias)]
        sizes = flat.n * flat.d * flat.d, flat.hp, flat.wp, flat.rows, flat.pitch
        emulated.run_mdc(int(x.dtype == HALF), *pointers, *sizes, 1, 0, ctypes.create_string_buffer(1024))
        y *= factor

    monkeypatch.setattr(mdc_cuda, "mdc_module", emulate)
    return launched


@pytest.mark.skipif(DEVICE == "cuda", reason="tests/gpu runs the kernel itself")
@pytest.mark.parametrize(("modules", "dtype", "features"), [(1, HALF, True), (2, BF16, False)])
def test_prepared_teacher_with_the_emulated_kernel(emulated, modules, dtype, features, monkeypatch):
    """Slots that hold NaN where nothing was written: what the CUDA kernel leaves out, nobody reads."""
    launched = launches(emulated, monkeypatch)
    with tuning.forced(all=Config(64, 32, 4, 2)):
        checks.check_teacher("paper", 96, modules, (1, 3, 5, 4), dtype, features, DEVICE, "cuda")
    assert launched == modules * [2] + modules * [3]


@pytest.fixture
def operation(monkeypatch):
    """The body of a branch as an operation, on a device where the CUDA kernel runs, and the same in float64."""
    monkeypatch.setattr(self_check, "_results", {})
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(mdc_cuda, "why_not", lambda device, dtype, c: None if c == 96 else "another width")
    monkeypatch.setattr(mdc, "_shapes", lambda c, shapes=mdc._shapes: [(1, c, 5, 4), *shapes(c)[1:]])
    torch.manual_seed(0)
    x, modules = torch.randn(1, 96, 5, 7), [checks.random_module(96, "mdc", "cpu") for _ in range(3)]

    def run(trained: bool = False) -> torch.Tensor:
        with tuning.forced(all=Config(128, 32, 4, 2)):
            return mdc._through_kernels(x.half().requires_grad_(trained), [[(w.half(), b.half()) for w, b in m] for m in modules], 2, None)

    def reference(dtype: torch.dtype) -> torch.Tensor:
        half = [[(w.half().to(dtype), b.half().to(dtype)) for w, b in m] for m in modules]
        return in_a_row(mdc.mdc_module_reference, x.half().to(dtype), half, 2, True)

    return run, reference


@pytest.mark.skipif(DEVICE == "cuda", reason="tests/gpu runs the kernel itself")
def test_operation_takes_the_kernel_once_it_has_passed(emulated, operation, monkeypatch):
    run, reference = operation
    launched = launches(emulated, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got, _ = run(), run()
    assert launched == (2 + 3 + 3) * [2]  # two modules of the check, once
    checks.assert_as_good(got, reference(HALF), reference(torch.float64))
    assert any(name.startswith("cuda mdc_modules on cpu in float16, (96,)") for name in self_check.report())
    launched.clear()
    with ops.backend("triton"):
        run()
    assert not launched, "Triton was asked for by name"
    run(trained=True)
    assert not launched, "a gradient needs activations that the kernel does not keep"


@pytest.mark.skipif(DEVICE == "cuda", reason="tests/gpu runs the kernel itself")
def test_operation_goes_on_with_triton_where_the_kernel_is_wrong(emulated, operation, monkeypatch):
    run, reference = operation
    launched = launches(emulated, monkeypatch, 1.05)
    with pytest.warns(RuntimeWarning, match=r"CUDA kernel of mdc_modules is not used on cpu: self-check failed: error 0\.") as caught:
        got, _ = run(), run()
    assert len(caught) == 1 and launched == 2 * [2]
    checks.assert_as_good(got, reference(HALF), reference(torch.float64))


class Run:
    """A teacher that answers as the reference, times `factor` where its modules are in CUDA."""

    factor = 1.0

    def __init__(self, net: DBSN, device: torch.device, dtype: torch.dtype, features: bool, modules: str = "triton"):
        self.modules, self.run = modules, reference.prepare(net, CPU, torch.float32)

    def __call__(self, x):
        mu, features = self.run(x)
        return mu * (self.factor if self.modules == "cuda" else 1.0), features


@pytest.fixture
def hopper(monkeypatch):
    """As if there were a GPU that has everything."""
    original = trial._runs
    monkeypatch.setattr(trial, "_runs", lambda net, device, *rest: original(net, CPU, *rest))
    monkeypatch.setattr(trial, "SHAPES", ((1, 9, 14),))
    monkeypatch.setattr(self_check, "_results", {})
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(triton, "TritonDBSN", Run)
    monkeypatch.setattr(triton, "why_not", lambda *arguments: None)
    monkeypatch.setattr(mdc_cuda, "why_not", lambda *arguments: None)


def test_right_modules_are_used(hopper):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert triton.prepare(DBSN(channels=96, modules=1), CUDA, BF16).modules == "cuda"
        assert triton.prepare(DBSN(channels=96, modules=1), CUDA, BF16, modules="triton").modules == "triton"
        assert triton.prepare(DBSN(channels=96, modules=1, variant="light"), CUDA, BF16).modules == "triton"
    assert any(name.startswith("triton with CUDA modules on cuda:0 in bfloat16") for name in self_check.report())


def test_wrong_modules_give_way_to_triton_with_their_numbers(hopper, monkeypatch):
    monkeypatch.setattr(Run, "factor", 1.05)
    net = DBSN(channels=96, modules=1)
    with pytest.warns(RuntimeWarning, match="triton with CUDA modules.*error 0.05, allowed 0.0") as caught:
        assert triton.prepare(net, CUDA, BF16).modules == triton.prepare(net, CUDA, BF16).modules == "triton"
    assert len(caught) == 1
    with pytest.raises(BackendError, match="error 0.05, allowed 0.0"):
        triton.prepare(net, CUDA, BF16, modules="cuda")


def test_refused_where_it_cannot_run(hopper, monkeypatch):
    monkeypatch.setattr(mdc_cuda, "why_not", lambda *arguments: "compute capability 8.0")
    assert triton.prepare(DBSN(channels=96, modules=1), CUDA, BF16).modules == "triton"
    with pytest.raises(BackendError, match="compute capability 8.0; use backend='auto'"):
        triton.prepare(DBSN(channels=96, modules=1), CUDA, BF16, modules="cuda")


@pytest.mark.parametrize(
    ("device", "dtype", "channels", "reason"),
    [
        (CUDA, HALF, 64, "96 channels, not 64"),
        (CUDA, torch.float32, 96, "not torch.float32"),
        (CPU, HALF, 96, "needs a GPU, not device cpu"),
        (CUDA, HALF, 96, "fastbsn._C is not installed"),
    ],
)
def test_refusals(device, dtype, channels, reason, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fastbsn._C", None)
    assert reason in (mdc_cuda.why_not(device, dtype, channels) or "")
