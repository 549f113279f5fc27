"""The student's U-Net as a list of layers: what every implementation of it, and everything that describes it, is made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SLOPE = 0.1  # of LeakyReLU


class Layer(NamedTuple):
    """A 3x3 convolution with bias and, but for the last one, LeakyReLU; then perhaps a change of resolution.

    Attributes:
        name: of the module that holds weight and bias.
        level: of resolution: images of H / 2**level x W / 2**level pixels.
        inputs: what it reads, side by side: "image", or `result` of earlier layers.
        in_channels: of each input.
        out_channels: of the result.
        pooled: name of the maximum over 2x2 pixels, which is all that is read of this layer, or "".
        upsampled: name of the nearest x2 upsampling, which is all that is read of this layer, or "".
        activated: whether LeakyReLU follows.
    """

    name: str
    level: int
    inputs: tuple[str, ...]
    in_channels: tuple[int, ...]
    out_channels: int
    pooled: str = ""
    upsampled: str = ""
    activated: bool = True

    @property
    def result(self) -> str:
        """The name under which later layers read it."""
        return self.pooled or self.upsampled or self.name


def layers(in_channels: int, channels: int, depth: int) -> tuple[Layer, ...]:
    """The layers in the order of execution, which is that of the modules of `fastbsn.nets.UNet`; arguments as there."""
    c, up = channels, f"up{depth - 1}"
    found = [Layer("enc0", 0, ("image",), (in_channels,), c), Layer("enc1", 0, ("enc0",), (c,), c, pooled="pool1")]
    found += [Layer(f"enc{i}", i - 1, (f"pool{i - 1}",), (c,), c, pooled=f"pool{i}") for i in range(2, depth + 1)]
    found.append(Layer(f"enc{depth + 1}", depth, (f"pool{depth}",), (c,), c, upsampled=up))
    for level in range(depth - 1, 0, -1):
        below = found[-1].out_channels
        found.append(Layer(f"dec{level}a", level, (up, f"pool{level}"), (below, c), 2 * c))
        up = f"up{level - 1}"
        found.append(Layer(f"dec{level}b", level, (f"dec{level}a",), (2 * c,), 2 * c, upsampled=up))
    below, wide, narrow = found[-1].out_channels, c * 4 // 3, c * 2 // 3
    return (
        *found,
        Layer("dec0a", 0, ("up0", "image"), (below, in_channels), wide),
        Layer("dec0b", 0, ("dec0a",), (wide,), narrow),
        Layer("out", 0, ("dec0b",), (narrow,), in_channels, activated=False),
    )


def last_readers(net: Iterable[Layer]) -> dict[str, str]:
    """{what is read: the name of the layer after which nothing reads it}."""
    return {name: layer.name for layer in net for name in layer.inputs}


def radius(net: tuple[Layer, ...]) -> int:
    """Pixels around an aligned tile that its result depends on, rounded up to the coarsest pixel.

    Aligned: the tile consists of whole pixels of the coarsest level, so that pooling and upsampling add nothing at its border.
    """
    reach = {layer.result: 0 for layer in net} | {"image": 0}
    for layer in reversed(net):
        r = reach[layer.result]
        r = (2 * r if layer.pooled else -(-r // 2) if layer.upsampled else r) + 1
        reach |= {name: max(reach[name], r) for name in layer.inputs}
    coarsest = 2 ** max(layer.level for layer in net)
    return -(-reach["image"] // coarsest) * coarsest
