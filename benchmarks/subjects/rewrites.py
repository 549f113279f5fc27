"""The networks in plain PyTorch, rewritten: what a fast kernel has to beat is the best of these, not the slowest.

Each is exact up to rounding, and passes the same gate as our kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbsn import ops
from fastbsn.nets.unet import SLOPE, UNet

LARGEST = 2**31  # elements; above it cuDNN falls back to slow kernels
RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
PHASE_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))  # rows of a 3x3 kernel summed into each row of the 2x2 kernel of an output phase


def on_ops(name: str, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`run` with the operations of fastbsn from one backend, whatever is usable here."""

    def wrapped(x: Tensor) -> Tensor:
        with ops.backend(name):
            return run(x)

    return wrapped


def phase_weights(weight: Tensor) -> Tensor:
    """3x3 weights [O, C, 3, 3] behind a nearest x2 upsampling -> four 2x2 kernels [4, O, C, 2, 2], phases in row-major order."""
    rows = [torch.stack([weight[:, :, list(taps)].sum(2) for taps in phase], 2) for phase in PHASE_TAPS]
    both = [torch.stack([r[..., list(taps)].sum(3) for taps in phase], 3) for r in rows for phase in PHASE_TAPS]
    return torch.stack(both)


class PhaseUNet(UNet):
    """The student without upsampled or concatenated tensors: conv([up(x), skip]) = four 2x2 convolutions of x + conv(skip)."""

    def __init__(self, net: UNet):
        super().__init__(**net.config)
        self.load_state_dict(net.state_dict())
        self.to(next(net.parameters()).device).eval().requires_grad_(False)
        for level in range(self.depth):
            layer = self.get_submodule(f"dec{level}a")
            skip = self.config["in_channels"] if level == 0 else self.config["channels"]
            low, high = layer.weight.split([layer.in_channels - skip, skip], 1)
            for i, kernel in enumerate(phase_weights(low.double()).to(low.dtype)):
                self.register_buffer(f"phase{level}{i}", kernel.clone())
            self.register_buffer(f"skip{level}", high.clone())

    def _up(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        (n, _, h, w), padded = x.shape, F.pad(x, (1, 1, 1, 1))
        windows = [padded[:, :, i // 2 : h + 1 + i // 2, i % 2 : w + 1 + i % 2] for i in range(4)]
        parts = [F.conv2d(window, getattr(self, f"phase{level}{i}")) for i, window in enumerate(windows)]
        up = torch.stack(parts, -1).view(n, -1, h, w, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, -1, 2 * h, 2 * w)
        return F.leaky_relu(up + F.conv2d(skip, getattr(self, f"skip{level}"), getattr(self, f"dec{level}a").bias, padding=1), SLOPE)

    def estimated_noise(self, y: Tensor) -> Tensor:
        def conv(name: str, x: Tensor) -> Tensor:
            return F.leaky_relu(getattr(self, name)(x), SLOPE)

        x, skips = conv("enc0", y), [y]
        for i in range(1, self.depth + 1):
            x = F.max_pool2d(conv(f"enc{i}", x), 2)
            skips.append(x)
        x = conv(f"enc{self.depth + 1}", skips.pop())
        for level in range(self.depth - 1, -1, -1):
            x = conv(f"dec{level}b", self._up(level, x, skips.pop()))
        return self.out(x)


def fuse_conv_relu(net: nn.Module, x: Tensor, fused: Callable[..., Tensor] | None = None) -> Callable[[Tensor], Tensor]:
    """`net` for inputs like `x`, every convolution followed by a ReLU replaced by one call.

    Args:
        net: returns a tensor.
        x: an example input; shapes are fixed to its own.
        fused: (x, weight, bias, stride, padding, dilation, groups) -> tensor; default cuDNN's fused kernel.
    """
    graph_module = torch.export.export(net, (x,)).module()
    graph, count = graph_module.graph, 0
    for node in list(graph.nodes):
        conv = node.args[0] if node.op == "call_function" and node.target in RELUS else None
        if getattr(conv, "target", None) is not torch.ops.aten.conv2d.default or len(conv.users) > 1:
            continue
        defaults = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
        arguments = conv.args + defaults[len(conv.args) :]
        if arguments[2] is None:
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_function(fused or torch.cudnn_convolution_relu, arguments))
        graph.erase_node(node)
        graph.erase_node(conv)
        count += 1
    graph_module.recompile()
    graph_module.fused_calls = count
    return graph_module


def in_strips(run: Callable[[Tensor], Tensor], radius: int, widest: int) -> Callable[[Tensor], Tensor]:
    """`run` in horizontal strips with exact halos wherever a tensor of `widest` channels would pass 2**31 elements."""

    def wrapped(x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        strips = -(-n * widest * h * w // LARGEST)
        if strips == 1:
            return run(x)
        rows = -(-h // strips)
        parts = []
        for top in range(0, h, rows):
            first = max(0, top - radius)
            parts.append(run(x[:, :, first : top + rows + radius])[:, :, top - first :][:, :, :rows])
        return torch.cat(parts, 2)

    return wrapped
