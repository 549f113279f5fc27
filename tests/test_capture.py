"""CUDA graphs without a GPU: a torch.cuda that records on which device, stream and thread captures happen, and runs them eagerly."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from fastbsn.backends import capture, cuda, triton
from fastbsn.nets import DBSN, UNet
from fastbsn.training.ranks import Ranks
from fastbsn.training.step import WARM_UP, GraphedStep

CPU = torch.device("cpu")
records: list[dict[str, Any]] = []


class Stream:
    cuda_stream = 0

    def __init__(self, device: torch.device | None = None):
        self.device = device

    def wait_stream(self, other: Stream) -> None: ...
    def wait_event(self, event: Event) -> None: ...


class Event:
    def record(self, stream: Stream | None = None) -> None: ...
    def synchronize(self) -> None: ...


class Graph:
    """Replays what was captured, which `capture_and_remember` tells it; an empty one does nothing."""

    def __init__(self) -> None:
        self.work: Callable[[], object] | None = None

    def replay(self) -> None:
        if self.work is not None:
            self.work()


@contextmanager
def graph(graph: Graph, stream: Stream | None = None, capture_error_mode: str = "global") -> Iterator[None]:
    records.append({"stream": stream and stream.device, "mode": capture_error_mode, "begin": time.monotonic()})
    mine = records[-1]
    time.sleep(0.02)
    yield
    mine["end"] = time.monotonic()


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    records.clear()
    fakes = {"Stream": Stream, "Event": Event, "CUDAGraph": Graph, "graph": graph, "device": nullcontext, "stream": nullcontext}
    fakes |= {"current_stream": lambda *_: Stream(), "is_current_stream_capturing": lambda: False, "synchronize": lambda *_: None}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)


@pytest.fixture(params=["right", "empty"])
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether graphs replay what was captured, or nothing, as one does that was captured on another GPU's stream."""

    def capture_and_remember(work: Callable[[], Any], device: torch.device) -> tuple[Graph, Any]:
        captured, result = capture.capture(work, device)
        if request.param == "right":
            captured.work = lambda: result.copy_(work()) if isinstance(result, Tensor) else work()
        return captured, result

    for module in (cuda, triton, sys.modules["fastbsn.training.step"]):
        monkeypatch.setattr(module, "capture", capture_and_remember)
    return request.param


def expecting(graphs: str) -> Any:
    return pytest.warns(RuntimeWarning, match="differs from eager execution") if graphs == "empty" else nullcontext()


def test_every_capture_has_a_stream_of_its_device() -> None:
    for index in (0, 1):
        capture.capture(lambda: None, torch.device("cuda", index))
    assert [(r["stream"], r["mode"]) for r in records] == [(torch.device("cuda", i), "thread_local") for i in (0, 1)]


def test_captures_of_two_threads_take_turns() -> None:
    threads = [threading.Thread(target=capture.capture, args=(lambda: None, CPU)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [t for r in sorted(records, key=lambda r: r["begin"]) for t in (r["begin"], r["end"])]
    assert len(times) == 8 and times == sorted(times)


def copying_extension() -> types.ModuleType:
    """fastbsn._C whose network returns the image."""

    class Network:
        arena_bytes = weight_bytes = 16

        def __init__(self, **sizes: object): ...
        def pack(self, layers: object, destination: int) -> None: ...

        def launch(self, arena: int, weights: int, image: tuple, result: tuple, stream: int) -> None:
            ctypes.memmove(result[0], image[0], 4 * image[3][0])

    module = types.ModuleType("fastbsn._C")
    module.Network = Network  # type: ignore[attr-defined]
    return module


def test_student(graphs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastbsn._C", copying_extension())
    run = cuda.CudaUNet(UNet(1, 6, 1), CPU, "portable")
    with expecting(graphs):
        for i in range(4):
            x = torch.rand(1, 1, 4, 6)
            assert torch.equal(run(x), x) and len(records) == min(i, 1)
    run(torch.rand(1, 1, 4, 4)), run(torch.rand(1, 1, 4, 4))
    assert len(records) == (2 if graphs == "right" else 1)  # one that failed is not tried again


def launch_twice_the_image(size: triton._Size) -> None:
    size.mu.copy_(2 * size.image)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> triton.TritonDBSN:
    pytest.importorskip("triton")
    monkeypatch.setattr(triton._Size, "_launch", launch_twice_the_image)
    net = triton.plan(DBSN(1, 8, 1), CPU, torch.float16, False)
    assert isinstance(net, triton.TritonDBSN)
    return net


def test_teacher(graphs: str, teacher: triton.TritonDBSN, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[int] = []
    monkeypatch.setattr(triton._Size, "_launch", lambda size: (launches.append(1), launch_twice_the_image(size)))
    teacher.graphs = True
    with expecting(graphs):
        for i in range(4):
            x = torch.rand(1, 1, 4, 6)
            teacher._size(x.shape).done = Event()  # as on a GPU
            assert torch.equal(teacher(x)[0], 2 * x) and len(records) == min(i, 1)
            assert len(launches) == 1 or i  # a size that is used once is computed once


def test_training(graphs: str) -> None:
    weight = torch.nn.Parameter(torch.ones((), dtype=torch.double))
    step = GraphedStep(lambda phase, x: (weight * x).square().mean(), torch.optim.SGD([weight], 1e-6), Ranks())
    with expecting(graphs):
        for i in range(WARM_UP + 3):
            x, before = torch.rand(5), weight.item()
            loss = step("mu", (x,))
            assert float(loss) == pytest.approx(before**2 * float(x.square().mean()), rel=1e-4)  # the fake runs a step while it captures
            assert weight.item() < before and len(records) == (i >= WARM_UP)


def test_a_size_goes_before_the_next_takes_memory(teacher: triton.TritonDBSN, monkeypatch: pytest.MonkeyPatch) -> None:
    most, original = [0], triton._Size.__init__

    def build(size: triton._Size, *arguments: Any) -> None:
        most[0] = max(most[0], 1 + len(teacher._sizes))
        original(size, *arguments)

    monkeypatch.setattr(triton._Size, "__init__", build)
    for width in range(3, 12):
        x = torch.rand(1, 1, 4, width)
        assert torch.equal(teacher(x)[0], 2 * x)
    assert most[0] == triton.SIZES


@pytest.mark.parametrize("where", ["__init__", "_launch"])
def test_out_of_memory_drops_other_sizes(teacher: triton.TritonDBSN, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A GPU that has memory for two small sizes, or for a large one."""
    original = getattr(triton._Size, where)

    def limited(size: triton._Size, *arguments: Any) -> None:
        shapes = {*teacher._sizes, arguments[1] if arguments else size.shape}
        if sum(shape[-1] for shape in shapes) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(size, *arguments)

    monkeypatch.setattr(triton._Size, where, limited)
    for width in (6, 7, 18, 8):
        x = torch.rand(1, 1, 4, width)
        assert torch.equal(teacher(x)[0], 2 * x)
    assert [shape[-1] for shape in teacher._sizes] == [8]
    with pytest.raises(torch.OutOfMemoryError):
        teacher(torch.rand(1, 1, 4, 21))
    assert not teacher._sizes
