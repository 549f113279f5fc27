"""Plain PyTorch, prepared for inference: runs everywhere, and is what the other backends are judged against.

On a CPU the student runs channels_last in one dtype, the subtraction y - f(y) in float32. Nearest upsampling + 3x3 convolution is
one transposed 4x4 convolution of stride 2 with pre-summed weights (4/9 of the multiplications), and the two layers of
level 0 on each side run in strips of rows that stay in cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbsn import ops
from fastbsn.nets import DBSN, UNet, pad_to_multiple
from fastbsn.nets.unet import SLOPE

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
            return _denoise(net, _Residual(net, dtype))
        student = _copy(net, device, dtype).to(memory_format=torch.channels_last)
        return _denoise(net, lambda y: student.residual(y.to(dtype, memory_format=torch.channels_last)))
    teacher = _copy(net, device, dtype)

    @torch.inference_mode()
    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        with ops.backend("reference"):  # on a GPU the operations would choose Triton by themselves
            mu, features = teacher(x.to(dtype))
        return mu.float(), features.float()

    return predict


def _copy(net: nn.Module, device: torch.device, dtype: torch.dtype) -> Any:
    return copy.deepcopy(net).eval().requires_grad_(False).to(device=device, dtype=dtype)


def _denoise(net: UNet, residual: Callable[[Tensor], Tensor]) -> Prepared:
    @torch.inference_mode()
    def denoise(y: Tensor) -> Tensor:
        h, w = y.shape[-2:]
        return y - residual(pad_to_multiple(y, net.multiple))[..., :h, :w]

    return denoise


def upsample_weight(weight: Tensor) -> Tensor:
    """Weight [C, O, 4, 4] of the transposed convolution (stride 2, padding 1) that equals nearest x2 and a 3x3 convolution [O, C, 3, 3].

    Every output pixel sees 2x2 low-resolution pixels, whose weights are sums of up to four taps.
    """
    o, c = weight.shape[:2]
    taps = weight.double().transpose(0, 1).reshape(c * o, 1, 3, 3).flip(2, 3)
    return F.conv2d(taps, torch.ones(1, 1, 2, 2, dtype=torch.float64, device=weight.device), padding=1).reshape(c, o, 4, 4)


class _Residual:
    """f(y) of a UNet on a CPU, float32 [N, C, H, W] -> the same, without building upsampled or joined tensors.

    In bfloat16 the image is the sum of two: rounding it to one would add noise that shows at low noise levels.
    """

    def __init__(self, net: UNet, dtype: torch.dtype):
        self.dtype, self.depth, c = dtype, net.depth, net.config["channels"]

        def pack(weight: Tensor) -> Tensor:
            layout = torch.channels_last if weight.ndim == 4 else torch.preserve_format
            return weight.detach().to("cpu", dtype, memory_format=layout, copy=True)

        def of_image(weight: Tensor) -> Tensor:
            return weight if dtype == torch.float32 else torch.cat([weight, weight], 1)

        layers: dict[str, Any] = dict(net.named_children())
        self.convs = {name: (pack(layer.weight), pack(layer.bias)) for name, layer in layers.items()}
        self.convs["enc0"] = pack(of_image(layers["enc0"].weight)), pack(layers["enc0"].bias)
        self.ups = []
        for level in range(net.depth):
            layer = layers[f"dec{level}a"]
            below = layer.in_channels - (c if level else net.config["in_channels"])
            low, high = layer.weight.detach().split([below, layer.in_channels - below], 1)
            self.ups.append((pack(upsample_weight(low)), pack(high if level else of_image(high)), pack(layer.bias)))

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.convs[name]
        return F.leaky_relu_(F.conv2d(x, weight, bias, padding=1), SLOPE)

    def up(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        low, high, bias = self.ups[level]
        u = F.conv2d(skip, high, bias, padding=1)
        u += F.conv_transpose2d(x, low, stride=2, padding=1)
        return self.conv(f"dec{level}b", F.leaky_relu_(u, SLOPE))

    def first(self, y: Tensor) -> Tensor:
        return F.max_pool2d(self.conv("enc1", self.conv("enc0", y)), 2)

    def last(self, x: Tensor, y: Tensor) -> Tensor:
        weight, bias = self.convs["out"]
        return F.conv2d(self.up(0, x, y), weight, bias, padding=1)

    def __call__(self, image: Tensor) -> Tensor:
        y = image.to(self.dtype)
        if self.dtype != torch.float32:
            y = torch.cat([y, (image - y).to(self.dtype)], 1)
        y = y.contiguous(memory_format=torch.channels_last)
        # Zero padding at the seams of a strip spoils 2 rows on the way down and 3 on the way up.
        strips = [(top, slice(max(0, top - 4), top + STRIP + 4)) for top in range(0, y.shape[2], STRIP)]
        x = torch.cat([self.first(y[:, :, rows])[:, :, (top - rows.start) // 2 :][:, :, : STRIP // 2] for top, rows in strips], 2)
        skips = [x]
        for i in range(2, self.depth + 1):
            x = F.max_pool2d(self.conv(f"enc{i}", x), 2)
            skips.append(x)
        x = self.conv(f"enc{self.depth + 1}", skips.pop())
        for level in range(self.depth - 1, 0, -1):
            x = self.up(level, x, skips.pop())
        out = torch.empty_like(image)
        for top, rows in strips:
            low = x[:, :, rows.start // 2 : rows.stop // 2]
            out[:, :, top : top + STRIP] = self.last(low, y[:, :, rows])[:, :, top - rows.start :][:, :, :STRIP]
        return out
