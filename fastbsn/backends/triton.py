"""The teacher on an NVIDIA GPU through the Triton kernels, prepared for inference.

Weights are packed and linear layers folded once, in float64; activations of a branch stay in the [P, C] layout of its phases from
the masked convolution to the tail. One set of buffers per image size and, once a size recurs, one CUDA graph.

The modules of "paper" have a second kernel, in CUDA for sm_90a, which is used where it passes its self-check (`fastbsn.ops.mdc_cuda`).

The kernels at the two ends keep all channels of a pixel in registers. A wider network runs as its own modules instead, one operation
after the other, without packing or a graph.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastbsn.backends.capture import capture, replays
from fastbsn.backends.trial import proven
from fastbsn.errors import BackendError, InputError
from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import place
from fastbsn.kernels.tuning import WIDEST
from fastbsn.nets import DBSN
from fastbsn.nets.dbsn import DILATIONS, Branch
from fastbsn.nets.network import Conv2d
from fastbsn.ops import dispatch, mdc_cuda
from fastbsn.ops.dispatch import warn_once
from fastbsn.ops.mdc import pointwise_matrices
from fastbsn.ops.operator import tap_major

SIZES = 4  # image sizes remembered
LIMIT = 2**31 - 2**10  # rows of an array: coordinates are 32 bits, addresses 64
MAX_IN_CHANNELS = 31


def why_not(net: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `net`, as a sentence, or None."""
    if not isinstance(net, DBSN):
        return f"it runs the teacher (DBSN) only, not {type(net).__name__}"
    if net.config["blind_spot"] != "dilated":
        return f"it runs the dilated blind spot, not blind_spot={net.config['blind_spot']!r}"
    inputs, c = net.config["in_channels"], net.config["channels"]
    if inputs > min(c, MAX_IN_CHANNELS):
        return f"the image has {inputs} channels and the network {c}; expected at most {MAX_IN_CHANNELS}, and at most those of the network"
    refusal = dispatch.why_not(device.type, device.index or 0, dtype, (c,))
    if refusal is None and dtype == torch.float32 and device.type == "cuda":
        return "float32 is for checking the kernels and slow; pass dtype='bfloat16' or 'float16', or backend='reference'"
    return refusal


def prepare(
    net: nn.Module, device: torch.device, dtype: torch.dtype, features: bool = True, modules: str = "auto"
) -> TritonDBSN | WideDBSN:
    """Pack the weights of `net` once; later changes of `net` are not seen.

    Args:
        net: DBSN.
        device: where.
        dtype: of activations and weights, float16 or bfloat16; sums are float32.
        features: return the features too; without them one more layer of "paper" is folded away.
        modules: kernel of the modules of "paper": "triton", "cuda" (compute capability 9.0), or "auto": "cuda" where it runs and passes
            its self-check, else "triton".

    Raises:
        BackendError: with the sentence of `why_not`, or the numbers of a self-check that failed (`fastbsn.ops.self_check`).
    """
    refusal = why_not(net, device, dtype)
    if refusal is None and modules == "cuda":
        refusal = why_not_cuda_modules(cast(DBSN, net), device, dtype)
    if refusal is not None:
        raise BackendError(f"backend 'triton': {refusal}; use backend='auto'")
    if modules == "auto":
        if why_not_cuda_modules(cast(DBSN, net), device, dtype) is None:
            try:
                return prepare(net, device, dtype, features, "cuda")
            except BackendError as error:
                warn_once(str(error))
        return prepare(net, device, dtype, features, "triton")
    kernels = ("triton" if features else "triton without features") + (" with CUDA modules" if modules == "cuda" else "")
    return proven(kernels, cast(DBSN, net), device, dtype, lambda n: plan(cast(DBSN, n), device, dtype, features, modules))


def why_not_cuda_modules(net: DBSN, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the CUDA kernel cannot run the modules of `net`, as a sentence, or None."""
    if net.variant != "paper":
        return f"the CUDA kernel runs the modules of 'paper', not of {net.variant!r}"
    return mdc_cuda.why_not(device, dtype, net.config["channels"])


def plan(net: DBSN, device: torch.device, dtype: torch.dtype, features: bool, modules: str = "triton") -> TritonDBSN | WideDBSN:
    """`prepare` without its refusals."""
    if net.config["channels"] > WIDEST:
        return WideDBSN(net, device, dtype, features)
    return TritonDBSN(net, device, dtype, features, modules)


def _check(x: Tensor, inputs: int) -> None:
    if x.ndim != 4 or x.shape[1] != inputs or min(x.shape) < 1:
        raise InputError(f"teacher: got an image of shape {tuple(x.shape)}; expected [N, {inputs}, H, W], not empty")


class WideDBSN:
    """TritonDBSN for more than WIDEST channels: a copy of the network, in `dtype`, through the operations of fastbsn.ops."""

    def __init__(self, net: DBSN, device: torch.device, dtype: torch.dtype, features: bool):
        self.net = copy.deepcopy(net).eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.device, self.dtype, self.features = device, dtype, features

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        _check(x, self.net.config["in_channels"])
        with torch.inference_mode(), dispatch.backend("triton"):
            mu, features = self.net(x.to(self.device, self.dtype, memory_format=torch.channels_last))
            return mu.float().contiguous(), features.float() if self.features else None


class TritonDBSN:
    """net(x): float32 [N, C, H, W] -> (mu, features), float32; features is None if it was prepared without."""

    def __init__(self, net: DBSN, device: torch.device, dtype: torch.dtype, features: bool, modules: str = "triton"):
        self.modules = modules
        self.config, self.light, self.features = dict(net.config), net.variant == "light", features
        self.device, self.dtype, self.folded = device, dtype, net.variant == "paper" and not features
        branches = cast("list[Branch]", list(net.branches))
        self.head, self.pointwise, self.tail = self._pack_ends(net, branches)
        self.branches = [self._pack_branch(branch) for branch in branches]
        self._sizes: OrderedDict[tuple[int, ...], _Size] = OrderedDict()
        self._lock, self.graphs = threading.Lock(), device.type == "cuda"

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        _check(x, self.config["in_channels"])
        with self._lock, torch.inference_mode():
            while True:
                try:
                    return self._size(x.shape).run(x)
                except torch.OutOfMemoryError:
                    self._sizes.pop(x.shape, None)
                    if not self._sizes:
                        raise
                    self._evict()

    def _size(self, shape: torch.Size) -> _Size:
        if shape not in self._sizes:
            if len(self._sizes) == SIZES:  # before the new one takes memory
                self._evict()
            self._sizes[shape] = _Size(self, shape)
        self._sizes.move_to_end(shape)
        return self._sizes[shape]

    def _evict(self) -> None:
        self._sizes.popitem(last=False)[1].finish()

    def _to(self, x: Tensor) -> Tensor:
        return x.detach().to(self.device, self.dtype).contiguous()

    def _bias(self, *rows: Tensor) -> Tensor:
        c = self.config["channels"]
        return torch.stack([nn.functional.pad(r, (0, c - r.numel())) for r in rows]).detach().to(self.device, torch.float32)

    def _pack_branch(self, branch: Branch) -> dict[str, Any]:
        masked, pre1, pre2 = branch.masked, branch.pre1, branch.pre2
        packed: dict[str, Any] = {
            "masked": self._to(tap_major(masked.weight, torch.float64)),
            "pre": self._to(torch.cat([pre1.weight.flatten(1).T, pre2.weight.flatten(1).T])),
            "bias": self._bias(masked.bias, pre1.bias, pre2.bias),
            "modules": [],
        }
        for block in branch.blocks:
            layers = block.params()
            bias = self._bias(*(b for _, b in layers))
            spatial = [self._to(tap_major(w.flatten(2), torch.float64)) for w, _ in layers if w.shape[-1] > 1]
            matrices = [layers[1][0].flatten(1)] if self.light else pointwise_matrices(layers)
            weights = (*spatial, self._to(torch.cat([m.T for m in matrices])))
            packed["modules"].append((*((mdc_cuda.pack(*weights),) if self.modules == "cuda" else weights), bias))
        if not self.light and self.modules == "triton":  # arrays of all modules, as one call takes them
            packed["modules"] = [torch.stack(arrays) for arrays in zip(*packed["modules"], strict=True)]
        return packed

    def _pack_ends(self, net: DBSN, branches: list[Branch]) -> tuple[Tensor, Tensor, Tensor]:
        """Head [KX, C]; seven matrices [7 * C, C] and biases [7, C] of the tail, see kernels/ends.py."""
        c, width = self.config["channels"], import_module("fastbsn.kernels.ends").packed_width(self.config["in_channels"])
        bias = net.head.bias.detach().double()
        high = bias.to(self.dtype).double()
        rows = [net.head.weight.flatten(1).T.double()] * 2 + [high[None], (bias - high)[None]]
        head = nn.functional.pad(torch.cat([r.to(rows[0].device) for r in rows]), (0, 0, 0, width - 2 * self.config["in_channels"] - 2))

        def linear(layer: Conv2d) -> tuple[Tensor, Tensor]:
            return layer.weight.detach().flatten(1).double(), layer.bias.detach().double()

        (post2, bias2), (post3, bias3) = (linear(branch.post) for branch in branches)
        join, bias_join = linear(net.join)
        (t1, b1), (t2, b2), (t3, b3) = (linear(layer) for layer in (net.tail1, net.tail2, net.tail3))
        join2, join3 = join.chunk(2, 1)
        if not self.light:
            bias_join = bias_join + join2 @ bias2 + join3 @ bias3
            post2, post3 = join2 @ post2, join3 @ post3
        if self.folded:
            post2, post3, bias_join = t1 @ post2, t1 @ post3, t1 @ bias_join + b1
        matrices = [nn.functional.pad(m.T, (0, c - m.shape[0], 0, c - m.shape[1])) for m in (post2, post3, join2, join3, t1, t2, t3)]
        return self._to(head), self._to(torch.cat(matrices)), self._bias(bias2, bias3, bias_join, bias_join, b1, b2, b3)


class _Size:
    """Buffers and, on a GPU from the second use on, the CUDA graph, for images of one shape."""

    def __init__(self, net: TritonDBSN, shape: torch.Size):
        self.net, self.shape = net, shape
        (n, inputs, h, w), c, device = shape, net.config["channels"], net.device
        self.ends = import_module("fastbsn.kernels.ends")
        self.residual, self.mdc = import_module("fastbsn.kernels.residual"), import_module("fastbsn.kernels.mdc")
        self.flats = [Flat(n, h, w, d, 1 if net.light else 2) for d in DILATIONS]
        slots = 2 if net.light or net.modules == "cuda" else 4  # of Triton for "paper": a1 and b1
        p2, p3 = (flat.positions for flat in self.flats)
        if max(n * h * w, slots * max(p2, p3)) > LIMIT:
            raise InputError(f"teacher: an image of shape {tuple(shape)} has too many pixels for 32-bit rows; run it in tiles")
        # The result of the first branch stays in its last slot, at the end; the second branch reuses the rest.
        buffer = torch.empty(max(slots * p2, p2 + slots * p3), c, dtype=net.dtype, device=device)
        self.slots = [buffer[-slots * p2 :].view(slots, p2, c), buffer[: slots * p3].view(slots, p3, c)]
        self.inside = [flat.inside(device) for flat in self.flats]
        self.image = torch.empty(shape, device=device)
        self.packed = torch.empty(n * h * w, self.ends.packed_width(inputs), dtype=net.dtype, device=device)
        self.mu = torch.empty(shape, device=device)
        self.features = torch.empty(n * h * w, c, device=device) if net.features else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.used, self.done = False, torch.cuda.Event() if device.type == "cuda" else None

    def _launch(self) -> None:
        net = self.net
        self.ends.pack(self.image, self.packed)
        for weights, flat, slots, inside, d in zip(net.branches, self.flats, self.slots, self.inside, DILATIONS, strict=True):
            modules, last = weights["modules"], len(slots) - 1
            stacked = not net.light and net.modules == "triton"
            at = place(0, len(modules[0]), False).x if stacked else last - len(modules) % 2  # so that the result is in the last slot
            packed = (net.head, weights["masked"], weights["pre"], weights["bias"])
            self.ends.head(self.packed, *packed, slots[at], self.shape, flat.rows, flat.pitch, d)
            if stacked:
                self.mdc.mdc_body(slots, *modules, inside, flat.pitch, keep=False)
                continue
            for module in modules:
                to = 2 * last - 1 - at
                if net.light:
                    self.residual.residual_module(slots[at], *module, inside, slots[to], flat.pitch)
                else:
                    matrices, bias = module
                    mdc_cuda.mdc_module(slots[at], matrices, bias, inside, flat, slots[to])
                at = to
        first, second = self.flats
        geometry = (first.rows, first.pitch, second.rows, second.pitch)
        ends = (self.slots[0][-1], self.slots[1][-1])
        self.ends.tail(ends, geometry, net.pointwise, net.tail, self.mu, self.features, net.light, net.folded)

    def run(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.done is None:
            self.image.copy_(x)
            self._launch()
            return self._results()
        with torch.cuda.device(self.net.device):
            torch.cuda.current_stream().wait_event(self.done)  # the previous call may have come on another stream
            self.image.copy_(x)
            self._launch() if self.graph is None else self.graph.replay()
            results = self._results()
            if self.net.graphs and self.used and self.graph is None:
                self._capture(results[0])
            self.used = True
            self.done.record()
        return results

    def _capture(self, mu: Tensor) -> None:
        self.graph, _ = capture(self._launch, self.net.device)
        if not replays("teacher", self.graph, self.mu, mu):
            self.graph, self.net.graphs = None, False

    def finish(self) -> None:
        """Wait until the buffers are no longer in use, on whatever stream."""
        if self.done is not None:
            self.done.synchronize()

    def _results(self) -> tuple[Tensor, Tensor | None]:
        (n, _, h, w), features = self.shape, self.features
        return self.mu.clone(), None if features is None else features.clone().view(n, h, w, -1).permute(0, 3, 1, 2)
