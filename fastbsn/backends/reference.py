"""Plain PyTorch, prepared for inference: runs everywhere, and is what the other backends are judged against.

On a CPU the student runs channels_last in one dtype, the subtraction y - f(y) in float32. Nearest upsampling + 3x3 convolution is
one transposed 4x4 convolution of stride 2 with pre-summed weights (4/9 of the multiplications), and the two layers of
level 0 on each side run in strips of rows that stay in cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbsn import ops
from fastbsn.nets import DBSN, UNet, pad_to_multiple
from fastbsn.nets.unet import upsample_weight
from fastbsn.ops.topology import SLOPE, Layer, last_readers

Prepared = Callable[[Tensor], Any]
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
STRIP = 128  # rows of level 0 at a time


def why_not(net: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `net`, or None."""
    if not isinstance(net, UNet | DBSN):
        return f"{type(net).__name__} is not a network of fastbsn.nets (UNet, DBSN)"
    if device.type not in DTYPES:
        return f"device {device} is not supported; expected cpu or cuda"
    if dtype not in DTYPES[device.type]:
        return f"{dtype} is not supported on {device.type}; expected one of {', '.join(map(str, DTYPES[device.type]))}"
    return None


def prepare(net: nn.Module, device: torch.device, dtype: torch.dtype) -> Prepared:
    """Copy weights once; later changes of `net` are not seen.

    Returns:
        For a UNet: float32 [N, C, H, W] -> float32 [N, C, H, W]. For a DBSN: -> (mu, features), float32.
    """
    if isinstance(net, UNet):
        if device.type == "cpu":
            return _denoise(net, _Noise(net, dtype))
        student = _copy(net, device, dtype).to(memory_format=torch.channels_last)
        return _denoise(net, lambda y: student.estimated_noise(y.to(dtype, memory_format=torch.channels_last)))
    teacher = _copy(net, device, dtype)

    @torch.inference_mode()
    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        with ops.backend("reference"):  # on a GPU the operations would choose Triton by themselves
            mu, features = teacher(x.to(dtype))
        return mu.float(), features.float()

    return predict


def _copy(net: nn.Module, device: torch.device, dtype: torch.dtype) -> Any:
    return copy.deepcopy(net).eval().requires_grad_(False).to(device=device, dtype=dtype)


def _denoise(net: UNet, estimated_noise: Callable[[Tensor], Tensor]) -> Prepared:
    @torch.inference_mode()
    def denoise(y: Tensor) -> Tensor:
        h, w = y.shape[-2:]
        return y - estimated_noise(pad_to_multiple(y, net.multiple))[..., :h, :w]

    return denoise


class _Noise:
    """f(y) of a UNet on a CPU, float32 [N, C, H, W] -> the same, without building upsampled or joined tensors.

    In bfloat16 the image is the sum of two: rounding it to one would add noise that shows at low noise levels.
    """

    def __init__(self, net: UNet, dtype: torch.dtype):
        self.dtype, self.layers, self.last = dtype, net.layers, last_readers(net.layers)
        upsampled = {layer.upsampled for layer in net.layers}

        def pack(weight: Tensor) -> Tensor:
            layout = torch.channels_last if weight.ndim == 4 else torch.preserve_format
            return weight.detach().to("cpu", dtype, memory_format=layout, copy=True)

        def part(source: str, weight: Tensor) -> Tensor:
            if source == "image" and dtype != torch.float32:
                weight = torch.cat([weight, weight], 1)
            return pack(upsample_weight(weight) if source in upsampled else weight)

        self.parameters: dict[str, tuple[list[Tensor], Tensor]] = {}
        for layer, conv in zip(net.layers, net.convolutions, strict=True):
            parts = conv.weight.detach().split(layer.in_channels, 1)
            self.parameters[layer.name] = [part(*p) for p in zip(layer.inputs, parts, strict=True)], pack(conv.bias)

    def run(self, layers: Sequence[Layer], at: dict[str, Tensor]) -> Tensor:
        """The result of the last of `layers`.

        Args:
            layers: some of the network's, in order.
            at: what they read, in low resolution where it is upsampled; what nothing reads any more is dropped.
        """
        for layer in layers:
            weights, bias = self.parameters[layer.name]
            inputs = [at.pop(name) if self.last[name] == layer.name else at[name] for name in layer.inputs]
            x = F.conv2d(inputs[-1], weights[-1], bias, padding=1)
            if len(inputs) == 2:  # the other one is upsampled
                x += F.conv_transpose2d(inputs[0], weights[0], stride=2, padding=1)
            x = F.leaky_relu_(x, SLOPE) if layer.activated else x
            at[layer.result] = x = F.max_pool2d(x, 2) if layer.pooled else x
        return x

    def __call__(self, image: Tensor) -> Tensor:
        y = image.to(self.dtype)
        if self.dtype != torch.float32:
            y = torch.cat([y, (image - y).to(self.dtype)], 1)
        y = y.contiguous(memory_format=torch.channels_last)
        first, middle, last = self.layers[:2], self.layers[2:-3], self.layers[-3:]  # level 0 on both sides
        # Zero padding at the seams of a strip spoils 2 rows on the way down and 3 on the way up.
        strips = [(top, slice(max(0, top - 4), top + STRIP + 4)) for top in range(0, y.shape[2], STRIP)]
        pooled = [self.run(first, {"image": y[:, :, rows]})[:, :, (top - rows.start) // 2 :][:, :, : STRIP // 2] for top, rows in strips]
        x = self.run(middle, {first[-1].result: torch.cat(pooled, 2)})
        out = torch.empty_like(image)
        for top, rows in strips:
            at = {"image": y[:, :, rows], middle[-1].result: x[:, :, rows.start // 2 : rows.stop // 2]}
            out[:, :, top : top + STRIP] = self.run(last, at)[:, :, top - rows.start :][:, :, :STRIP]
        return out
