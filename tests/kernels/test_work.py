"""What a program of the teacher's kernels loads and stores is what the model of times takes it to be; slots of a body never clash."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from benchmarks.modules import WORK, Work
from fastbsn.kernels import mdc, mdc_backward, runtime, tuning
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import GRADIENTS, KEPT, place
from fastbsn.kernels.tuning import Config
from tests.kernels.interpreter import DEVICE, interpreter

C, BLOCK = 32, 256
pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="counted in the interpreter")


class Counted:
    """By number of launch, from 1 on: (slot, rows of the block) of every load and store; slots are those of one array, or beyond it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: torch.Tensor):
        p, start = slots.shape[1], slots.data_ptr()
        self.loads, self.stores, self.names = defaultdict(list), defaultdict(list), []
        builder, launch = interpreter.InterpreterBuilder, runtime.launch
        load, store = builder.create_descriptor_load, builder.create_descriptor_store

        def at(desc, indices) -> tuple[int, int]:
            row = int(indices[0].data.item())
            return round((int(desc.base.data.item()) - start) / (2 * C * p) + row / p), desc.block_shape[
                0
            ]  # a tap reaches less than half a slot

        def counting_load(self_, desc, indices, *rest):
            self.loads[len(self.names)].append(at(desc, indices))
            return load(self_, desc, indices, *rest)

        def counting_store(self_, desc, value, indices):
            self.stores[len(self.names)].append(at(desc, indices))
            return store(self_, desc, value, indices)

        def counting_launch(call, grid, *rest, **arguments):
            assert grid[0] == 1
            self.names.append(call.kernel.__name__)
            launch(call, grid, *rest, **arguments)

        monkeypatch.setattr(builder, "create_descriptor_load", counting_load)
        monkeypatch.setattr(builder, "create_descriptor_store", counting_store)
        monkeypatch.setattr(runtime, "launch", counting_launch)

    def work(self, i: int) -> tuple[str, Work]:
        loads, matrices = ([x for x in self.loads[i + 1] if (x[1] == BLOCK) is block] for block in (True, False))
        return self.names[i], Work(len(loads), len(set(loads)), len(self.stores[i + 1]), len(matrices))


@pytest.fixture
def sizes():
    flat = Flat(1, 11, 12, 2, 2)
    assert flat.positions == BLOCK
    with tuning.forced(all=Config(BLOCK, C, 4, 2)):
        yield flat


def weights(modules: int) -> list[torch.Tensor]:
    return [torch.randn(modules, k * C, C).half() for k in (25, 9, 8)]


@pytest.mark.parametrize("keep", [False, True])
def test_forward(sizes, keep, monkeypatch):
    flat, p = sizes, sizes.positions
    s = torch.zeros(4 if not keep else 2 * len(KEPT) + 1, p, C).half()
    counted = Counted(monkeypatch, s)
    mdc.mdc_body(s, *weights(2), torch.randn(2, 8, C), flat.inside(torch.device("cpu")), flat.pitch, keep)
    first, taps, rest, taps_of_last, last = (counted.work(i) for i in range(5))
    training = ", training" if keep else ""
    assert first == ("mdc_first_kernel", WORK["mdc first"])
    assert taps == taps_of_last == ("conv_kernel", WORK["mdc 5x5"])
    assert rest == ("mdc_rest_kernel", WORK["mdc rest" + training])
    assert last == ("mdc_rest_kernel", WORK["mdc rest" + training + ", last"])


@pytest.mark.parametrize("keep", [False, True])
def test_first_layers_of_the_next_module_by_themselves(sizes, keep, monkeypatch):
    """As on the architectures that `tuning.FUSES_NEXT` leaves out: the same bits."""
    flat, arrays, bias = sizes, weights(3), torch.randn(3, 8, C)

    def run() -> torch.Tensor:
        s = torch.zeros(4 if not keep else 3 * len(KEPT) + 1, flat.positions, C).half()
        s[place(0, 3, keep).x] = flat.pack(image, dtype=torch.float16)
        mdc.mdc_body(s, *(0.2 * w for w in arrays), bias, flat.inside(torch.device("cpu")), flat.pitch, keep)
        return s if keep else s[-1]

    image = torch.randn(1, C, 11, 12)
    fused = run()
    monkeypatch.setattr(tuning, "FUSES_NEXT", ())
    assert fused[-1].isfinite().all() and torch.equal(run(), fused)


def test_backward(sizes, monkeypatch):
    flat, p = sizes, sizes.positions
    s, g = torch.zeros(len(KEPT) + len(GRADIENTS) + 3, p, C).half().split([len(KEPT) + 1, len(GRADIENTS) + 2])
    counted = Counted(monkeypatch, s)
    w5, w3, w1 = (w[0] for w in weights(1))
    mdc_backward.mdc_backward_module(s, g, w5, w3, w1, flat.pitch, x=0, y=len(KEPT), dy=0, t2=1, dx=len(GRADIENTS) + 1)
    assert counted.work(0) == ("mdc_backward_first_kernel", WORK["mdc backward first"])
    assert counted.work(1) == ("mdc_backward_rest_kernel", WORK["mdc backward rest"])


@pytest.mark.parametrize("modules", range(1, 10))
@pytest.mark.parametrize("keep", [False, True])
def test_slots_of_a_body(modules, keep):
    """The result is last; a module finds what the one before wrote, which overwrote nothing that its launch reads with a halo."""
    slots = len(KEPT) * modules + 1 if keep else 4
    places = [place(m, modules, keep) for m in range(modules)]
    assert places[-1].y == slots - 1
    for now, after in zip(places, places[1:], strict=False):
        assert after.x == now.y
        assert len({now.y, after.a1, after.b1, now.b1}) == 4, "b1 is read with a halo while the others are written"
    for at in places:
        assert max(at.x, at.a1, at.b1, at.y) < slots and len({at.x, at.a1, at.b1, at.y}) == 4
