"""What backends, denoisers and weights files know of a network: all that a new one must say about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network on images [N, C, H, W].

    Attributes:
        kind: "student" (noisy image -> clean image) or "teacher" (noisy image -> blind-spot prediction and features).
        config: keyword arguments that build the same network again, as they are stored with the weights.
    """

    kind: ClassVar[str]
    config: dict[str, Any]

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return int(self.config["in_channels"])

    @property
    @abstractmethod
    def radius(self) -> int:
        """Halo in pixels, a multiple of `multiple`, that makes a tile equal to the same part of the whole image."""

    @property
    def multiple(self) -> int:
        """Tiles start at multiples of this many pixels."""
        return 1


class Conv2d(nn.Conv2d):
    """A convolution that has a bias."""

    bias: Tensor
