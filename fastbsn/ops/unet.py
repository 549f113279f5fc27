"""The student's U-Net through the Triton kernels, forward and backward: one operator each, behind `UNet.residual`.

Every convolution has its bias, LeakyReLU and (backward) the derivative and bias gradient in its epilogue; skip connections are a
second input of a convolution rather than a concatenated tensor. Weights and biases arrive in the order of `UNet`'s layers. `saved` is
one array that holds all activations, level by level in the layout [P, C]; it is empty where nothing is to be differentiated.
Channel counts are rounded up to a multiple of 8 with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.ops.operator import channels_last_like, define, tap_major, tap_major_transposed


def _padded(channels: int) -> int:
    return -(-channels // 8) * 8


def _pad(x: Tensor, *amounts: int) -> Tensor:
    """F.pad, which copies even where there is nothing to add."""
    return F.pad(x, amounts) if any(amounts) else x


def _layers(depth: int) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(layer, level, its inputs), in order; "pool2" and "up1" are no layers but at hand where they are named."""
    yield "enc0", 0, ("image",)
    for i in range(1, depth + 1):
        yield f"enc{i}", i - 1, ("enc0" if i == 1 else f"pool{i - 1}",)
    yield f"enc{depth + 1}", depth, (f"pool{depth}",)
    for i in range(depth - 1, -1, -1):
        yield f"dec{i}a", i, (f"up{i}", f"pool{i}" if i else "image")
        yield f"dec{i}b", i, (f"dec{i}a",)
    yield "out", 0, ("dec0b",)


class _Net:
    """Geometry, weights and activations of one pass over images [N, IN, H, W]."""

    def __init__(self, shape: Sequence[int], weights: Sequence[Tensor], slope: float, device: torch.device, dtype: torch.dtype):
        n, inputs, h, w = shape
        self.depth, self.slope, self.device, self.dtype = len(weights) // 3 - 1, slope, device, dtype
        self.flats = [Flat(n, h >> i, w >> i, 1, 1) for i in range(self.depth + 1)]
        self.order = [name for name, _, _ in _layers(self.depth)]
        self.level = {name: level for name, level, _ in _layers(self.depth)}
        self.sources = {name: sources for name, _, sources in _layers(self.depth)}
        self.weights = dict(zip(self.order, weights, strict=True))
        self.channels = {"image": inputs} | {name: w.shape[0] for name, w in self.weights.items()}
        for i in range(1, self.depth + 1):
            self.level |= {f"pool{i}": i, f"up{i - 1}": i - 1}
            self.channels |= {f"pool{i}": self.channels[f"enc{i}"], f"up{i - 1}": self.channels[self.below(i - 1)]}
        self.level["image"] = 0
        names = [name for name in self.channels if name != "out"]
        sizes = [self.flats[self.level[name]].positions * _padded(self.channels[name]) for name in names]
        self.ends = dict(zip(names, pairwise(accumulate(sizes, initial=0)), strict=True))
        self.size = sum(sizes)

    def below(self, level: int) -> str:
        """The layer whose output is upsampled to `level`."""
        return f"enc{self.depth + 1}" if level == self.depth - 1 else f"dec{level + 1}b"

    def views(self, saved: Tensor) -> dict[str, Tensor]:
        return {name: saved[slice(*ends)].view(-1, _padded(self.channels[name])) for name, ends in self.ends.items()}

    def step(self, level: int) -> tuple[int, int, int]:
        """From `level` to the next finer one, see kernels/resample.py."""
        flat = self.flats[level]
        return flat.n, flat.h, flat.w

    def new(self, name: str) -> Tensor:
        """[P, C] for a gradient, or the output, of `name`."""
        return torch.empty(self.flats[self.level[name]].positions, _padded(self.channels[name]), dtype=self.dtype, device=self.device)

    def parts(self, name: str) -> list[Tensor]:
        """The weight of a layer as [O, C, 9] by input, both padded."""
        w = self.weights[name]
        pieces = w.flatten(2).split([self.channels[s] for s in self.sources[name]], 1)
        return [_pad(p, 0, 0, 0, _padded(p.shape[1]) - p.shape[1], 0, _padded(w.shape[0]) - w.shape[0]) for p in pieces]

    def pack(self, image: Tensor, out: Tensor) -> None:
        inputs = image.shape[1]
        self.flats[0].pack(_pad(image, 0, 0, 0, 0, 0, _padded(inputs) - inputs), out=out.zero_())


def _forward(image: Tensor, weights: list[Tensor], biases: list[Tensor], slope: float, save: bool) -> tuple[Tensor, Tensor]:
    import fastbsn.kernels.resample as resample
    from fastbsn.kernels.conv import conv2d

    net = _Net(image.shape, weights, slope, image.device, image.dtype)
    saved = image.new_empty(net.size)
    a, out = net.views(saved), net.new("out")
    inside = [flat.inside(image.device) for flat in net.flats]
    net.pack(image, a["image"])
    for name, bias in zip(net.order, biases, strict=True):
        level, sources = net.level[name], net.sources[name]
        if name.endswith("a"):
            resample.upsample(a[net.below(level)], a[f"up{level}"], net.step(level + 1))
        w, y = [tap_major(p, image.dtype) for p in net.parts(name)], out if name == "out" else a[name]
        padded = _pad(bias.float().contiguous(), 0, y.shape[1] - len(bias))
        second = dict(x2=a[sources[1]], w2=w[1]) if len(w) > 1 else {}
        act = dict(act=name != "out", slope=slope)
        conv2d(a[sources[0]], w[0], padded, inside[level], y, net.flats[level].pitch, 3, **act, **second)
        if name.startswith("enc") and 0 < int(name[3:]) <= net.depth:
            resample.pool(y, a[f"pool{level + 1}"], net.step(level + 1))
    return net.flats[0].unpack(out)[:, : image.shape[1]], saved if save else saved.new_empty(0)


def _forward_fake(image: Tensor, weights: list[Tensor], biases: list[Tensor], slope: float, save: bool) -> tuple[Tensor, Tensor]:
    net = _Net(image.shape, weights, slope, image.device, image.dtype)
    padded = channels_last_like(image, _padded(image.shape[1]))
    return padded[:, : image.shape[1]], image.new_empty(net.size if save else 0)


def _backward(
    grad: Tensor, saved: Tensor, weights: list[Tensor], slope: float, to_image: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    import fastbsn.kernels.resample as resample
    from fastbsn.kernels.conv import conv2d
    from fastbsn.kernels.wgrad import taps_table, weight_gradients

    net = _Net(grad.shape, weights, slope, saved.device, saved.dtype)
    a, inside = net.views(saved), [flat.inside(saved.device) for flat in net.flats]
    dw: dict[str, Tensor] = {}
    db: dict[str, Tensor] = {}
    d: dict[str, Tensor] = {}  # gradients: of a layer before its activation, of "pool" and "up" as they are

    def weight(name: str, sums: Tensor) -> None:
        level, w = net.level[name], net.weights[name]
        flat, found = net.flats[level], []
        for source in net.sources[name]:
            table = taps_table(saved.device, flat.pitch, 3, False)
            taps = weight_gradients(a[source], d[name], table, 9, flat.positions).sum(0)
            found.append(taps[:, : net.channels[source], : w.shape[0]].permute(2, 1, 0))
        dw[name], db[name] = torch.cat(found, 1).reshape(w.shape), sums[:, : w.shape[0]].sum(0)

    def data(name: str, source: str, sums: bool = False, **epilogue: Any) -> Tensor | None:
        """Through layer `name` to one of its inputs."""
        level, i = net.level[name], net.sources[name].index(source)
        d[source], w = net.new(source), tap_major_transposed(net.parts(name)[i], saved.dtype)
        return conv2d(d[name], w, None, inside[level], d[source], net.flats[level].pitch, 3, slope=slope, sums=sums, **epilogue)

    def through(name: str, below: str) -> None:
        """Through layer `name` and the activation of layer `below`, its only input."""
        sums = data(name, below, gate=a[below], sums=True)
        assert sums is not None
        weight(below, sums)

    d["out"] = net.new("out")
    net.pack(grad, d["out"])
    weight("out", d["out"].sum(0, dtype=torch.float32)[None])
    through("out", "dec0b")
    for level in range(net.depth):
        name, below = f"dec{level}a", net.below(level)
        through(f"dec{level}b", name)
        data(name, f"up{level}")
        if level or to_image:
            data(name, net.sources[name][1])
        d[below] = net.new(below)
        weight(below, resample.upsample_backward(a[below], d[f"up{level}"], d[below], net.step(level + 1), slope))
    for i in range(net.depth, 0, -1):
        name, pool = f"enc{i}", f"pool{i}"
        data(f"enc{i + 1}", pool, skip=d.get(pool))
        d[name] = net.new(name)
        weight(name, resample.pool_backward(a[name], a[pool], d[pool], d[name], net.step(i), slope))
    through("enc1", "enc0")
    if to_image:
        data("enc0", "image", skip=d["image"])
        dx = net.flats[0].unpack(d["image"])[:, : grad.shape[1]]
    else:
        dx = grad.new_empty(0)
    return dx, [dw[name] for name in net.order], [db[name] for name in net.order]


def _backward_fake(
    grad: Tensor, saved: Tensor, weights: list[Tensor], slope: float, to_image: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    padded = channels_last_like(grad.to(saved.dtype), _padded(grad.shape[1]))
    new = [torch.empty(w.shape, device=grad.device) for w in weights]
    return padded[:, : grad.shape[1]] if to_image else grad.new_empty(0), new, [w.new_empty(w.shape[0]) for w in new]


unet_body = define(
    "unet", "(Tensor image, Tensor[] weights, Tensor[] biases, float slope, bool save) -> (Tensor, Tensor)", _forward, _forward_fake
)
_unet_backward = define(
    "unet_backward",
    "(Tensor grad, Tensor saved, Tensor[] weights, float slope, bool to_image) -> (Tensor, Tensor[], Tensor[])",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, weights, biases, ctx.slope, _ = inputs
    ctx.dtypes = [b.dtype for b in biases]
    ctx.save_for_backward(output[1], *weights)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    saved, *weights = ctx.saved_tensors
    to_image = ctx.needs_input_grad[0]
    dx, dw, db = _unet_backward(grad, saved, weights, ctx.slope, to_image)
    dw, db = [g.to(w.dtype) for g, w in zip(dw, weights, strict=True)], [g.to(t) for g, t in zip(db, ctx.dtypes, strict=True)]
    return dx if to_image else None, dw, db, None, None


torch.library.register_autograd("fastbsn::unet", _gradient, setup_context=_setup)
