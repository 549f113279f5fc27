"""The operators in the eyes of PyTorch: opcheck, torch.compile, torch.export, dispatch."""

from __future__ import annotations

import sys
import threading
import warnings

import pytest
import torch
from torch import Tensor

from fastbsn import ops
from fastbsn.errors import BackendError
from fastbsn.nets import DBSN
from fastbsn.ops import dispatch, masked_conv, mdc, residual
from tests.kernels import checks
from tests.kernels.interpreter import DEVICE

TRIAL = ("residual_modules", (8,))


def leaf(*shape: int) -> Tensor:
    return (torch.randn(shape, device=DEVICE) * 0.2).requires_grad_()


CASES = {
    "masked_conv2d": lambda: (
        masked_conv._masked_conv2d,
        (leaf(1, 8, 4, 3), leaf(16, 8, 8), leaf(16), 3, True),
    ),
    "residual_body": lambda: (
        residual.residual_body,
        (leaf(1, 8, 3, 4), None, leaf(1, 8, 8, 3, 3), leaf(1, 8, 8), leaf(1, 2, 8), 2, True),
    ),
    "mdc_body": lambda: (
        mdc.mdc_body,
        (leaf(1, 8, 3, 4), None, leaf(1, 8, 8, 5, 5), leaf(1, 8, 8, 3, 3), leaf(1, 8, 8, 8), leaf(1, 8, 8), 2, True),
    ),
}


@pytest.mark.parametrize("name", ["masked_conv2d", "residual_body"])
def test_opcheck(name):
    torch.library.opcheck(*CASES[name]())


def test_opcheck_without_tracing_the_backward_pass():
    """Which takes long for this one; `test_loss_curve` and `test_mdc_modules` run it."""
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(*CASES["mdc_body"](), test_utils=utilities)


@pytest.mark.parametrize("variant", ["light", "paper"])
def test_compiled_network_is_one_graph(variant):
    net, x = checks.random_teacher(variant, 8, 1).to(DEVICE), torch.rand(1, 3, 5, 4, device=DEVICE)
    with ops.backend("triton"), torch.no_grad():
        expected = net(x)[0]
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        assert checks.error(compiled(x)[0], expected) < 1e-6


def test_exported_network_names_the_operators():
    net, x = DBSN(3, 8, 1, "light").to(DEVICE).eval(), torch.rand(1, 3, 6, 6, device=DEVICE)
    with ops.backend("triton"), torch.no_grad():
        program = torch.export.export(net, (x,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"fastbsn.masked_conv2d.default", "fastbsn.residual_body.default"} <= called


def test_asked_for_by_name_it_raises_with_the_reason():
    x = torch.rand(1, 20, 4, 4, device=DEVICE)
    weight = torch.rand(20, 20, 8, device=DEVICE)
    with ops.backend("triton"), pytest.raises(BackendError, match="20 channels; expected a multiple of 8"):
        ops.masked_conv2d(x, weight)
    with pytest.raises(BackendError, match="'fast'"), ops.backend("fast"):
        pass


def test_chosen_automatically_it_falls_back_with_one_warning(monkeypatch):
    class OnGpu(Tensor):
        is_cuda = True

    x = torch.rand(1, 8, 4, 4).half().as_subclass(OnGpu)
    assert not dispatch.use_triton(x.float(), 8, trial=TRIAL)  # no warning: a choice, not a fallback
    monkeypatch.setattr(dispatch, "why_not", lambda *_: "no reason")
    monkeypatch.setattr(dispatch, "_warned", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not dispatch.use_triton(x, 8, trial=TRIAL) and not dispatch.use_triton(x, 8, trial=TRIAL)
    assert [str(w.message) for w in caught] == ["fastbsn operations run as plain PyTorch: no reason"]


def test_reasons(monkeypatch):
    why = dispatch.why_not
    assert "float64" in why(DEVICE, 0, torch.float64, (8,))
    assert "132 channels; expected a multiple of 8" in why(DEVICE, 0, torch.float32, (132,))
    assert "0 channels" in why(DEVICE, 0, torch.float32, (8, 0))
    assert why(DEVICE, 0, torch.float32, (1024, 8)) is None
    monkeypatch.setattr(dispatch.metadata, "version", lambda _: "3.5.1")
    assert "triton 3.5.1 is installed; expected 3.6 or later" in why(DEVICE, 0, torch.float32, (8,))


def test_triton_of_another_distribution(monkeypatch):
    """triton-windows, for example: the module is the same."""

    def version(name):
        raise dispatch.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(dispatch.metadata, "version", version)
    assert dispatch.why_not(DEVICE, 0, torch.float32, (8,)) is None
    monkeypatch.setattr(sys.modules["triton"], "__version__", "3.5.1.post2")
    assert "triton 3.5.1.post2 is installed; expected 3.6 or later" in dispatch.why_not(DEVICE, 0, torch.float32, (8,))
    monkeypatch.setitem(sys.modules, "triton", None)
    assert dispatch.why_not(DEVICE, 0, torch.float32, (8,)) == "triton is not installed"


def test_reason_without_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "the tensors are on cpu" in dispatch.why_not("cpu", 0, torch.float32, (8,))


def test_reference_is_the_default_on_a_cpu():
    assert not dispatch.use_triton(torch.rand(1, 8, 4, 4), 8, trial=TRIAL)


def test_the_choice_is_that_of_a_thread():
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with ops.backend("triton"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with ops.backend("reference"):
        thread.start()
        entered.wait()
    x = torch.rand(1, 8, 4, 4)
    assert not dispatch.use_triton(x, 8, trial=TRIAL)  # neither that of the other thread, nor what it found when it began
    leave.set()
    thread.join()
    assert not dispatch.use_triton(x, 8, trial=TRIAL)
