"""The student's U-Net: every convolution with its bias, LeakyReLU, pooling and upsampling, forward and backward, as one operation.

In Triton every convolution has its bias, LeakyReLU and (backward) the derivative and bias gradient in its epilogue; skip connections are
a second input of a convolution rather than a concatenated tensor. `saved` is one array that holds all activations, one after the other in
the layout [P, C]; it is empty where nothing is to be differentiated. Channel counts are rounded up to a multiple of 8 with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.ops.dispatch import TRIALS, Trial, compute_dtype, use_triton
from fastbsn.ops.operator import channels_last_like, define, tap_major, tap_major_transposed
from fastbsn.ops.topology import SLOPE, Layer, last_readers, layers


class Convolution(NamedTuple):
    """3x3, zero padding: what a layer's module is to the operation."""

    weight: Tensor  # [O, C, 3, 3]
    bias: Tensor  # [O]

    def __call__(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, O, H, W]
        return F.conv2d(x, self.weight, self.bias, padding=1)


def estimated_noise_reference(
    image: Tensor,  # [N, IN, H, W], H and W multiples of 2**depth
    net: Sequence[Layer],
    convolutions: Sequence[Callable[[Tensor], Tensor]],  # of each layer; modules are called, so that their hooks are
) -> Tensor:  # [N, IN, H, W]
    at, last = {"image": image}, last_readers(net)
    for layer, convolution in zip(net, convolutions, strict=True):
        x = torch.cat([at.pop(name) if last[name] == layer.name else at[name] for name in layer.inputs], 1)
        x = convolution(x)
        x = F.leaky_relu(x, SLOPE) if layer.activated else x
        x = F.max_pool2d(x, 2) if layer.pooled else F.interpolate(x, scale_factor=2, mode="nearest") if layer.upsampled else x
        at[layer.result] = x
    return x


def _padded(channels: int) -> int:
    return -(-channels // 8) * 8


def _pad(x: Tensor, *amounts: int) -> Tensor:
    """F.pad, which copies even where there is nothing to add."""
    return F.pad(x, amounts) if any(amounts) else x


class _Net:
    """Geometry, weights and activations of one pass over images [N, IN, H, W]."""

    def __init__(self, shape: Sequence[int], weights: Sequence[Tensor], slope: float, device: torch.device, dtype: torch.dtype):
        (n, inputs, h, w), depth = shape, len(weights) // 3 - 1
        self.layers = layers(inputs, weights[0].shape[0], depth)
        self.slope, self.device, self.dtype = slope, device, dtype
        self.flats = [Flat(n, h >> i, w >> i, 1, 1) for i in range(depth + 1)]
        self.weights = {layer.name: weight for layer, weight in zip(self.layers, weights, strict=True)}
        self.level, self.channels = {"image": 0}, {"image": inputs}
        for layer in self.layers:
            self.level |= {layer.name: layer.level, layer.result: layer.level + bool(layer.pooled) - bool(layer.upsampled)}
            self.channels |= {layer.name: layer.out_channels, layer.result: layer.out_channels}
        names = [name for name in self.channels if name != "out"]
        sizes = [self.flats[self.level[name]].positions * _padded(self.channels[name]) for name in names]
        self.ends = dict(zip(names, pairwise(accumulate(sizes, initial=0)), strict=True))
        self.size = sum(sizes)

    def views(self, saved: Tensor) -> dict[str, Tensor]:
        return {name: saved[slice(*ends)].view(-1, _padded(self.channels[name])) for name, ends in self.ends.items()}

    def step(self, level: int) -> tuple[int, int, int]:
        """From `level` to the next finer one, see kernels/resample.py."""
        flat = self.flats[level]
        return flat.n, flat.h, flat.w

    def new(self, name: str) -> Tensor:
        """[P, C] for a gradient, or the output, of `name`."""
        return torch.empty(self.flats[self.level[name]].positions, _padded(self.channels[name]), dtype=self.dtype, device=self.device)

    def parts(self, layer: Layer) -> list[Tensor]:
        """The weight of a layer as [O, C, 9] by input, both padded."""
        w = self.weights[layer.name]
        pieces = w.flatten(2).split(layer.in_channels, 1)
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
    for layer, bias in zip(net.layers, biases, strict=True):
        name, level = layer.name, layer.level
        w, y = [tap_major(p, image.dtype) for p in net.parts(layer)], a[name] if layer.activated else out
        padded = _pad(bias.float().contiguous(), 0, y.shape[1] - len(bias))
        second = dict(x2=a[layer.inputs[1]], w2=w[1]) if len(w) > 1 else {}
        act = dict(act=layer.activated, slope=slope)
        conv2d(a[layer.inputs[0]], w[0], padded, inside[level], y, net.flats[level].pitch, 3, **act, **second)
        if layer.pooled:
            resample.pool(y, a[layer.pooled], net.step(level + 1))
        elif layer.upsampled:
            resample.upsample(y, a[layer.upsampled], net.step(level))
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
    dw: list[Tensor] = []  # last layer first
    db: list[Tensor] = []
    d: dict[str, Tensor] = {"out": net.new("out")}  # gradients: of a layer before its activation, pooled and upsampled as they are
    net.pack(grad, d["out"])
    sums = {"out": d["out"].sum(0, dtype=torch.float32)[None]}  # of d over all positions: gradients of biases

    def weight(layer: Layer) -> Tensor:
        flat, found = net.flats[layer.level], []
        for source, channels in zip(layer.inputs, layer.in_channels, strict=True):
            table = taps_table(saved.device, flat.pitch, 3, False)
            taps = weight_gradients(a[source], d[layer.name], table, 9, flat.positions).sum(0)
            found.append(taps[:, :channels, : layer.out_channels].permute(2, 1, 0))
        return torch.cat(found, 1).reshape(net.weights[layer.name].shape)

    for layer in reversed(net.layers):
        name, flat = layer.name, net.flats[layer.level]
        if layer.pooled:
            d[name] = net.new(name)
            sums[name] = resample.pool_backward(a[name], a[layer.pooled], d[layer.pooled], d[name], net.step(layer.level + 1), slope)
        elif layer.upsampled:
            d[name] = net.new(name)
            sums[name] = resample.upsample_backward(a[name], d[layer.upsampled], d[name], net.step(layer.level), slope)
        dw.append(weight(layer))
        db.append(sums[name][:, : layer.out_channels].sum(0))
        for source, part in zip(layer.inputs, net.parts(layer), strict=True):
            if source == "image" and not to_image:
                continue
            other, d[source], w = d.get(source), net.new(source), tap_major_transposed(part, saved.dtype)
            gate = a[source] if source in net.weights else None  # a layer's own result: through its activation at once
            found = conv2d(
                d[name], w, None, inside[layer.level], d[source], flat.pitch, 3, slope=slope, sums=gate is not None, gate=gate, skip=other
            )
            if found is not None:
                sums[source] = found
    dx = net.flats[0].unpack(d["image"])[:, : grad.shape[1]] if to_image else grad.new_empty(0)
    return dx, dw[::-1], db[::-1]


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


def estimated_noise(image: Tensor, net: Sequence[Layer], convolutions: Sequence[Any]) -> Tensor:
    """What the student subtracts from the image.

    Args:
        image: [N, IN, H, W], H and W multiples of 2**depth.
        net: the layers, see `topology.layers`.
        convolutions: of each layer, modules or `Convolution`: weight [O, C, 3, 3], its inputs side by side, and bias [O].

    Returns:
        [N, IN, H, W].
    """
    sizes = image.shape[1], convolutions[0].weight.shape[0], min(len(net) // 3 - 1, 3)  # further levels are like the third
    if use_triton(image, trial=("unet", sizes), automatic=False):
        weights, biases = [c.weight for c in convolutions], [c.bias for c in convolutions]
        return unet_body(image.to(compute_dtype(image)), weights, biases, SLOPE, torch.is_grad_enabled())[0]
    return estimated_noise_reference(image, net, convolutions)


def _trial(in_channels: int, channels: int, depth: int) -> Trial:
    net = layers(in_channels, channels, depth)
    shapes: list[tuple[int, ...]] = [(2, in_channels, 3 * 2**depth, 5 * 2**depth)]
    for layer in net:
        shapes += (layer.out_channels, sum(layer.in_channels), 3, 3), (layer.out_channels,)

    def run(image: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        return (estimated_noise(image, net, [Convolution(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]),)

    return run, shapes


TRIALS["unet"] = _trial
