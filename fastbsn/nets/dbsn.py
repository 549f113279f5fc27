"""The teacher: a dilated blind-spot network. Wu et al., ECCV 2020 ("paper"); Lee et al., AP-BSN, CVPR 2022 ("light")."""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastbsn import ops
from fastbsn.errors import InputError
from fastbsn.nets.network import Conv2d, Network

DILATIONS = (2, 3)


class MaskedConv2d(nn.Module):
    """k x k convolution without its centre tap, then ReLU. `weight` is [O, C, k*k-1]: the tap does not exist."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        taps = kernel_size**2 - 1
        bound = math.sqrt(6 / (in_channels * taps))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, O, H, W]
        return ops.masked_conv2d(x, self.weight, self.bias, relu=True)


class Block(nn.Module):
    """One of the equal modules that a branch is made of."""

    reach: ClassVar[int]  # pixels per unit of dilation
    names: ClassVar[tuple[str, ...]]  # of its layers

    @property
    def layers(self) -> list[Conv2d]:
        return [getattr(self, name) for name in self.names]

    def params(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer, as `fastbsn.ops` takes them."""
        return [(layer.weight, layer.bias) for layer in self.layers]


class Residual(Block):
    """x + 1x1(ReLU(3x3 dilated(x)))."""

    reach, names = 1, ("spatial", "pointwise")

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = Conv2d(channels, channels, 3)
        self.pointwise = Conv2d(channels, channels, 1)


class MDC(Block):
    """Multiple dilated convolutions (5x5, 3x3, 1x1 paths), joined, with a skip."""

    join: Conv2d
    reach, names = 2, ("a1", "a2", "b1", "b2", "c", "join", "t1", "t2")

    def __init__(self, channels: int):
        super().__init__()
        for name in self.names:
            size = {"a2": 5, "b2": 3}.get(name, 1)
            setattr(self, name, Conv2d(3 * channels if name == "join" else channels, channels, size))


class Branch(nn.Module):
    """Masked convolution of size 2d-1, two 1x1, then modules of dilation d run densely on d*d phase images."""

    def __init__(self, channels: int, modules: int, dilation: int, variant: str):
        super().__init__()
        self.dilation, self.variant = dilation, variant
        self.masked = MaskedConv2d(channels, channels, 2 * dilation - 1)
        self.pre1 = Conv2d(channels, channels, 1)
        self.pre2 = Conv2d(channels, channels, 1)
        block: type[MDC | Residual] = MDC if variant == "paper" else Residual
        self.body = nn.ModuleList(block(channels) for _ in range(modules))
        self.post = Conv2d(channels, channels, 1)

    @property
    def blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.body))

    @property
    def radius(self) -> int:
        return self.dilation - 1 + self.dilation * sum(block.reach for block in self.blocks)

    def forward(self, x: Tensor, phases: bool) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
        x = F.relu(self.pre2(F.relu(self.pre1(self.masked(x)))))
        run = ops.mdc_modules if self.variant == "paper" else ops.residual_modules
        x = run(x, [block.params() for block in self.blocks], self.dilation, phases)
        x = self.post(x)
        return F.relu(x) if self.variant == "light" else x


class PlainBranch(nn.Module):
    """The ablation: one masked 5x5 convolution, then 1x1 layers only, sized to a given number of parameters."""

    radius = 2

    def __init__(self, channels: int, parameters: int):
        super().__init__()
        self.masked = MaskedConv2d(channels, channels, 5)
        left = parameters - sum(p.numel() for p in self.masked.parameters())
        self.body = nn.ModuleList(Conv2d(channels, channels, 1) for _ in range(max(1, left // (channels**2 + channels))))

    @property
    def layers(self) -> list[Conv2d]:
        return cast("list[Conv2d]", list(self.body))

    def forward(self, x: Tensor, phases: bool) -> Tensor:  # [N, C, H, W] -> [N, C, H, W]
        x = self.masked(x)
        for layer in self.layers:
            x = x + F.relu(layer(x))
        return x


class DBSN(Network):
    """Dilated blind-spot network: the output at pixel p does not depend on the input at p.

    Args:
        in_channels: of the image, 1 or more.
        channels: width C, even; default 96 ("paper") or 128 ("light"). Small teachers for a CPU use 32 to 64.
        modules: per branch; default 8 ("paper") or 9 ("light").
        variant: "paper" (MDC modules) or "light" (residual modules).
        blind_spot: "dilated", or "plain" for the ablation (no dilated layers, about the same number of parameters).

    Raises:
        InputError: an unknown variant or blind_spot, or a size below 1.
    """

    kind = "teacher"

    def __init__(
        self,
        in_channels: int = 3,
        channels: int | None = None,
        modules: int | None = None,
        variant: str = "paper",
        blind_spot: str = "dilated",
    ):
        super().__init__()
        if variant not in ("paper", "light"):
            raise InputError(f"DBSN: variant={variant!r}; expected 'paper' or 'light'")
        if blind_spot not in ("dilated", "plain"):
            raise InputError(f"DBSN: blind_spot={blind_spot!r}; expected 'dilated' or 'plain'")
        channels = {"paper": 96, "light": 128}[variant] if channels is None else channels
        modules = {"paper": 8, "light": 9}[variant] if modules is None else modules
        if min(in_channels, channels, modules) < 1 or channels % 2:
            raise InputError(
                f"DBSN: in_channels={in_channels}, channels={channels}, modules={modules}; expected at least 1 and even channels"
            )
        self.config = dict(in_channels=in_channels, channels=channels, modules=modules, variant=variant, blind_spot=blind_spot)
        self.variant, self.feature_channels = variant, channels
        self.head = Conv2d(in_channels, channels, 1)
        branches = [Branch(channels, modules, d, variant) for d in DILATIONS]
        sizes = [sum(p.numel() for p in branch.parameters()) for branch in branches]
        self.branches = nn.ModuleList(branches if blind_spot == "dilated" else [PlainBranch(channels, size) for size in sizes])
        self.join = Conv2d(2 * channels, channels, 1)
        half = channels if variant == "paper" else channels // 2
        self.tail1 = Conv2d(channels, half, 1)
        self.tail2 = Conv2d(half, half, 1)
        self.tail3 = Conv2d(half, in_channels, 1)
        self._initialize()

    def _initialize(self) -> None:
        """He initialization, so that the signal keeps its size through many ReLUs and skips.

        Residual modules start as the identity. An MDC module cannot (a ReLU behind zero weights never learns): its join starts small.
        With He's size, eight modules of 32 channels began at 20 times the input and were 1.4 dB behind after 300 steps.
        """
        for module in self.modules():
            if isinstance(module, Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module in (self.join, self.tail3) else "relu")
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.pointwise.weight)
            elif isinstance(module, MDC):
                module.join.weight.detach().div_(self.config["modules"])
            elif isinstance(module, PlainBranch):
                for layer in module.layers:  # some 50 skips in a row would double the signal at each
                    layer.weight.detach().div_(len(module.body))

    @property
    def radius(self) -> int:
        return max(cast("Branch | PlainBranch", branch).radius for branch in self.branches)

    def forward(self, x: Tensor, phases: bool | None = None) -> tuple[Tensor, Tensor]:
        """Predict every pixel from its neighbours.

        Args:
            x: [N, in_channels, H, W], floating point, [0, 1] by convention.
            phases: run the branches space-to-batch (same result, dense convolutions); default: on a GPU, where it is faster.

        Returns:
            mu [N, in_channels, H, W] and features [N, channels, H, W] (for the noise model).
        """
        phases = x.is_cuda if phases is None else phases
        x = F.relu(self.head(x))
        features = self.join(torch.cat([branch(x, phases) for branch in self.branches], 1))
        y = features if self.variant == "paper" else F.relu(features)
        y = F.relu(self.tail2(F.relu(self.tail1(y))))
        return self.tail3(y), features
