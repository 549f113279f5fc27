"""The CUDA extension: fused blocks of the student in bfloat16. Also takes and returns uint8, uint16 and float16 frames."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastbsn.backends.capture import capture, replays
from fastbsn.backends.trial import proven
from fastbsn.errors import BackendError, InputError
from fastbsn.nets import UNet
from fastbsn.ops.dispatch import warn_once

# mma.sync; wgmma; plain CUDA cores, slow, only on request
PATHS = ("portable", "hopper", "reference")
SCALES = {
    torch.uint8: ("uint8", 1 / 255),
    torch.uint16: ("uint16", 1 / 65535),
    torch.float16: ("float16", 1.0),
    torch.float32: ("float32", 1.0),
}
GRAPH_PIXELS = 2**20  # up to this size launching the kernels one by one may take longer than running them
PLANS = 16  # image sizes remembered


def _extension() -> Any:
    return import_module("fastbsn._C")


def why_not(net: nn.Module, device: torch.device, dtype: torch.dtype, path: str = "auto") -> str | None:
    """Why this backend cannot run `net`, as a sentence, or None.

    Args:
        net: to be run.
        device: where.
        dtype: of the arithmetic; the kernels have bfloat16 only.
        path: "portable" (tensor cores, compute capability 8.0 and later), "hopper" (9.0), "reference" (plain CUDA cores, slow) or
            "auto": "hopper" where it runs and passes a check, else "portable".
    """
    path = "portable" if path == "auto" else path
    if not isinstance(net, UNet):
        return f"it runs the student (UNet) only, not {type(net).__name__}"
    try:
        extension = _extension()
    except ImportError as error:
        return f"the extension fastbsn._C is not installed ({error}); it is built on installation where nvcc is found"
    try:
        extension.device_count()
        if device.type != "cuda":
            return f"it needs a GPU, not device {device}"
        if dtype != torch.bfloat16:
            return f"its kernels compute in torch.bfloat16, not {dtype}"
        config = net.config
        return extension.why_not(config["in_channels"], config["channels"], config["depth"], path, device.index or 0) or None
    except extension.CudaError as error:
        return str(error)


def prepare(net: nn.Module, device: torch.device, dtype: torch.dtype, path: str = "auto") -> CudaUNet:
    """Pack the weights of `net` once; later changes of `net` are not seen.

    Raises:
        BackendError: with the sentence of `why_not`, or the numbers of a self-check that failed (`fastbsn.ops.self_check`).
    """
    device = torch.device("cuda", device.index or 0)
    if path == "auto":
        if why_not(net, device, dtype, "hopper") is None:
            try:
                return prepare(net, device, dtype, "hopper")
            except BackendError as error:
                warn_once(str(error))
        return prepare(net, device, dtype, "portable")
    refusal = why_not(net, device, dtype, path)
    if refusal is not None:
        raise BackendError(f"backend 'cuda': {refusal}; use backend='auto'")
    return proven(f"cuda {path}", cast(UNet, net), device, dtype, lambda n: CudaUNet(cast(UNet, n), device, path))


class CudaUNet:
    """A student on one GPU: `net(x)` denoises [N, C, H, W] and may be called from any thread, on any stream."""

    def __init__(self, net: UNet, device: torch.device, path: str):
        self.device, self.path, self.config = device, path, dict(net.config)
        self._plans: OrderedDict[tuple[Any, ...], _Plan] = OrderedDict()
        self._lock, self._done, self._graphs = threading.Lock(), torch.cuda.Event(), True
        self._arena = torch.empty(0, dtype=torch.uint8, device=device)
        smallest = self._network(1, 1, 1)
        packed = torch.empty(smallest.weight_bytes, dtype=torch.uint8)
        layers = [[t.detach().to("cpu", torch.float32).contiguous() for t in (layer.weight, layer.bias)] for layer in net.convolutions]
        smallest.pack([(weight.data_ptr(), bias.data_ptr()) for weight, bias in layers], packed.data_ptr())
        self._weights = packed.to(device)

    def _network(self, n: int, h: int, w: int) -> Any:
        return _extension().Network(**self.config, batch=n, h=h, w=w, path=self.path, device=self.device.index)

    def __call__(self, x: Tensor) -> Tensor:
        """Denoise; may be captured into a CUDA graph of the caller.

        Args:
            x: [N, in_channels, H, W], any strides, uint8 or uint16 (full range = [0, 1]), float16 or float32; moved to the GPU if
                it is elsewhere.

        Returns:
            The same shape and dtype on the GPU, contiguous; integers are rounded and clamped, floats are not.

        Raises:
            InputError: another shape or dtype.
        """
        if x.ndim != 4 or x.shape[1] != self.config["in_channels"] or x.dtype not in SCALES:
            raise InputError(
                f"got {tuple(x.shape)} of {x.dtype}; expected [N, {self.config['in_channels']}, H, W] of {', '.join(map(str, SCALES))}"
            )
        x = x.detach().to(self.device)
        if x.numel() == 0:
            return torch.empty_like(x, memory_format=torch.contiguous_format)
        with self._lock, torch.cuda.device(self.device):
            plan, stream = self._plan(x), torch.cuda.current_stream()
            if torch.cuda.is_current_stream_capturing():  # a graph of the caller gets an arena in its own memory
                return self._launch(plan.network, x, torch.empty(plan.network.arena_bytes, dtype=torch.uint8, device=self.device))
            self._grow(plan.network.arena_bytes)
            while len(self._plans) > PLANS:  # several, after captures, which evict nothing
                self._done.synchronize()  # the graph that goes may be running on another stream
                self._plans.popitem(last=False)
            stream.wait_event(self._done)  # the arena is in use until then
            y = plan.replay(x) if plan.graph is not None else self._launch(plan.network, x, self._arena)
            if self._graphs and plan.graph is None and plan.uses > 0 and x.numel() <= GRAPH_PIXELS:
                self._capture(plan, x, y)
            self._done.record(stream)
            plan.uses += 1
        return y

    def stream(self, frames: Iterable[Tensor], ahead: int = 3) -> Iterator[Tensor]:
        """Denoise frames from the CPU, in order, while the copies of their neighbours run.

        Args:
            frames: [N, in_channels, H, W] on the CPU, as for a call; sizes may differ.
            ahead: frames on their way at a time.

        Yields:
            The same shape and dtype in pinned memory.
        """
        upload, download, ready = torch.cuda.Stream(self.device), torch.cuda.Stream(self.device), deque[tuple[Tensor, torch.cuda.Event]]()
        compute = torch.cuda.current_stream(self.device)
        for frame in frames:
            with torch.cuda.stream(upload):
                x = frame.pin_memory().to(self.device, non_blocking=True)
            compute.wait_stream(upload)
            x.record_stream(compute)
            with torch.cuda.stream(compute):
                y = self(x)
            download.wait_stream(compute)
            y.record_stream(download)
            with torch.cuda.stream(download):
                result, done = torch.empty(y.shape, dtype=y.dtype, pin_memory=True), torch.cuda.Event()
                result.copy_(y, non_blocking=True)
                done.record(download)
            ready.append((result, done))
            if len(ready) >= ahead:
                yield _finished(*ready.popleft())
        while ready:
            yield _finished(*ready.popleft())

    def _plan(self, x: Tensor) -> _Plan:
        key = (*x.shape, x.dtype)
        plan = self._plans.get(key) or _Plan(self._network(x.shape[0], x.shape[2], x.shape[3]))
        self._plans[key] = plan
        self._plans.move_to_end(key)
        return plan

    def _grow(self, arena_bytes: int) -> None:
        if arena_bytes > self._arena.numel():  # also for a known size, after there was no memory for a larger one
            torch.cuda.synchronize(self.device)
            for plan in self._plans.values():
                plan.graph = None  # it points into the old arena
            self._arena = torch.empty(0, dtype=torch.uint8, device=self.device)
            self._arena = torch.empty(arena_bytes, dtype=torch.uint8, device=self.device)

    def _launch(self, network: Any, x: Tensor, arena: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.empty_like(x, memory_format=torch.contiguous_format) if y is None else y
        name, scale = SCALES[x.dtype]
        frames = [(t.data_ptr(), name, tuple(t.shape[2:]), t.stride(), scale) for t in (x, y)]
        network.launch(arena.data_ptr(), self._weights.data_ptr(), *frames, torch.cuda.current_stream().cuda_stream)
        return y

    def _capture(self, plan: _Plan, x: Tensor, y: Tensor) -> None:
        plan.x = torch.empty_like(x, memory_format=torch.contiguous_format)
        plan.y = torch.empty_like(plan.x)
        plan.graph, _ = capture(lambda: self._launch(plan.network, plan.x, self._arena, plan.y), self.device)
        plan.x.copy_(x)
        if not replays("student", plan.graph, plan.y, y):
            plan.graph, self._graphs = None, False


def _finished(result: Tensor, done: torch.cuda.Event) -> Tensor:
    done.synchronize()
    return result


class _Plan:
    """The extension's plan of one image size and, once a size recurs, its CUDA graph between two fixed buffers."""

    def __init__(self, network: Any):
        self.network, self.uses = network, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.x = self.y = torch.empty(0)

    def replay(self, x: Tensor) -> Tensor:
        assert self.graph is not None
        self.x.copy_(x)
        self.graph.replay()
        return self.y.clone()
