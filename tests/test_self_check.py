"""Kernels are used once they have passed a self-check: the rule, with backends that are right and wrong."""

from __future__ import annotations

import sys
import threading
import types
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastbsn import info
from fastbsn.backends import reference, select, trial
from fastbsn.errors import BackendError
from fastbsn.nets import DBSN, Network, UNet
from fastbsn.ops import dispatch, self_check
from tests.tiny import tiny_unet

CPU, BF16 = torch.device("cpu"), torch.bfloat16


@pytest.fixture(autouse=True)
def first_use(monkeypatch):
    monkeypatch.setattr(self_check, "_results", {})
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(trial, "SHAPES", ((1, 9, 14),))


def backend(monkeypatch, name: str, factor: float) -> list[Network]:
    """Install a backend whose student subtracts `factor` times the noise; returns the networks that it is asked to run."""
    made: list[Network] = []

    def make(net: Network) -> Callable[[Tensor], Tensor]:
        made.append(net)
        run = reference.prepare(net, CPU, BF16)
        return lambda x: x - factor * (x - run(x))

    module = types.ModuleType(name)
    vars(module).update(
        why_not=lambda *_: None, prepare=lambda net, device, dtype: trial.proven(f"{name} of a test", net, device, dtype, make)
    )
    monkeypatch.setitem(sys.modules, f"fastbsn.backends.{name}", module)
    return made


def test_right_kernels_are_used_and_checked_once(monkeypatch):
    made, net = backend(monkeypatch, "cuda", 1.0), tiny_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select(net, "cpu", dtype="bfloat16").backend == select(net, "cpu", dtype="bfloat16").backend == "cuda"
    assert len(made) == 3 and made[1] is net and made[2] is net  # the small one, then what was asked for
    ((kernels, result),) = self_check.report().items()
    assert kernels.startswith("cuda of a test on cpu in bfloat16, in_channels=") and result.startswith("self-check passed: error ")


def test_wrong_kernels_are_passed_over_and_their_numbers_recorded(monkeypatch):
    backend(monkeypatch, "cuda", 1.1), backend(monkeypatch, "triton", 1.0)
    found = select(tiny_unet(), "cpu", dtype="bfloat16")
    assert found.backend == "triton"
    assert "'cuda of a test' are not used on cpu: self-check failed: error 0.1, allowed 0.0" in found.reasons[2]


def test_on_a_gpu_there_is_one_warning_with_the_numbers(monkeypatch):
    """Fake modules, since there is no GPU: what they raise is what `proven` raises."""
    failed = self_check.Result(0.25, 0.01)

    def fails(net, device, dtype):
        raise BackendError(f"the kernels 'cuda portable' are not used on {device}: {failed}")

    for name, prepare in {"cuda": fails, "triton": fails, "reference": lambda *_: torch.neg}.items():
        module = types.ModuleType(name)
        vars(module).update(why_not=lambda *_: None, prepare=prepare)
        monkeypatch.setitem(sys.modules, f"fastbsn.backends.{name}", module)
    monkeypatch.setattr("fastbsn.backends.selection.resolve_device", lambda device: (torch.device("cuda", 0), "asked for"))
    with pytest.warns(RuntimeWarning, match="uses the reference backend: .*error 0.25, allowed 0.01") as caught:
        assert select(tiny_unet(), dtype="bfloat16").backend == select(tiny_unet(), dtype="bfloat16").backend == "reference"
    assert len(caught) == 1


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_asked_for_by_name_wrong_kernels_raise_their_numbers(monkeypatch, factor):
    backend(monkeypatch, "triton", factor)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"self-check failed: error (0\.1|nan), allowed 0\.0"):
            select(tiny_unet(), "cpu", "triton", "bfloat16")


def test_kernels_that_cannot_be_built_or_launched_are_passed_over():
    def run():
        raise OSError("no C compiler")

    result = self_check.check("k", CPU, BF16, "", run)
    assert not result.passed and str(result) == "self-check failed: OSError: no C compiler"


def test_memory_that_is_taken_says_nothing_about_the_kernels():
    def run():
        raise torch.OutOfMemoryError("taken")

    with pytest.raises(torch.OutOfMemoryError):
        self_check.check("k", CPU, BF16, "", run)
    assert not self_check.report()


def counting(calls: list[None]) -> Callable[[], self_check.Runs]:
    def run() -> self_check.Runs:
        calls.append(None)
        return ([torch.ones(3)],) * 3

    return run


def test_two_threads_check_once():
    calls: list[None] = []
    inside, go = threading.Event(), threading.Event()

    def slow() -> self_check.Runs:
        inside.set()
        go.wait()
        return counting(calls)()

    results: list[self_check.Result] = []
    threads = [threading.Thread(target=lambda: results.append(self_check.check("k", CPU, BF16, "", slow))) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    assert not results  # the second one waits
    go.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(results) == 2 and all(r.passed for r in results)


def test_devices_dtypes_and_networks_are_checked_each():
    calls: list[None] = []
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        for dtype in (BF16, torch.float16):
            for channels in (48, 96):
                self_check.check("k", torch.device(device), dtype, channels, counting(calls))
    assert len(calls) == 8


def test_zeros_are_right_where_nothing_else_is_expected():
    zero, one = [torch.zeros(3)], [torch.ones(3)]
    assert self_check.judge(zero, zero, zero, BF16).passed
    assert not self_check.judge(one, zero, zero, BF16).passed


def test_a_wrong_shape_is_a_reason():
    result = self_check.judge([torch.ones(2)], [torch.ones(3)], [torch.ones(3)], BF16)
    assert not result.passed and "shape (2,); expected (3,)" in str(result)


@pytest.mark.parametrize("net", [UNet(3, 48, 5), UNet(1, 6, 1), DBSN(1, 8, 8, "paper"), DBSN(3, 8, 9, "light")])
def test_the_small_network_is_of_the_same_kind_and_draws_nothing_from_the_process(net):
    before = torch.get_rng_state()
    small = trial.sample(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(small) is type(net) and small.channels == net.channels and small.config["channels"] == net.config["channels"]
    assert small.config.get("modules", 0) % 2 == net.config.get("modules", 0) % 2
    assert all(p.abs().max() > 0 and p.isfinite().all() for p in small.parameters())
    with torch.no_grad():
        y = small(torch.rand(1, net.channels, 9, 14))
    assert all(0.01 < float(t.std()) < 100 for t in (y if isinstance(y, tuple) else (y,)))


def test_info_says_of_every_network_which_kernels_passed_on_a_gpu(monkeypatch):
    """A fake GPU with a backend of right kernels for students and "light", and wrong ones for "paper"."""
    right, wrong = (([torch.full((2,), v)], [torch.ones(2)], [torch.ones(2)]) for v in (1.0, 1.5))
    gpu = torch.device("cuda", 0)

    def prepare(net: Network, device: torch.device, dtype: torch.dtype) -> None:
        kind = getattr(net, "variant", net.kind)
        if not self_check.check("triton", device, dtype, kind, lambda: wrong if kind == "paper" else right).passed:
            raise BackendError("wrong")

    for name in ("cuda", "triton"):
        module = types.ModuleType(name)
        vars(module).update(why_not=lambda *_, name=name: None if name == "triton" else "not here", prepare=prepare)
        monkeypatch.setitem(sys.modules, f"fastbsn.backends.{name}", module)
    monkeypatch.setattr("fastbsn.backends.selection.resolve_device", lambda device: (gpu, "fake"))
    monkeypatch.setattr("fastbsn.backends.selection.slow_bf16", lambda device: None)
    text = info.render(info.environment())
    assert "  triton on cuda:0 in bfloat16, student: self-check passed: error 0" in text
    assert "  triton on cuda:0 in float16, light: self-check passed: error 0" in text
    assert "  triton on cuda:0 in float16, paper: self-check failed: error 0.5, allowed" in text


def test_info_says_where_there_is_nothing_to_check():
    assert "  nothing to check: no kernels run on this device" in info.render(
        {**info.environment(), "self_check": {"rule": "r", "results": {}}}
    )


def test_info_states_the_rule_and_the_results():
    self_check.check("cuda portable", torch.device("cuda", 0), BF16, "depth=3", counting([]))
    text = info.render(info.environment())
    assert f"self-check: {self_check.RULE}" in text
    assert "  cuda portable on cuda:0 in bfloat16, depth=3: self-check passed: error 0, allowed 0.0078" in text
