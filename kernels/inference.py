"""Launching the two ends of a network at inference; the modules between them are in launch.py."""

from __future__ import annotations

from torch import Tensor

from fastbsn.kernels import ends
from fastbsn.kernels.launch import launch, target


def packed_width(in_channels: int) -> int:
    return ends.packed_width(in_channels)


def pack(image: Tensor, packed: Tensor) -> None:
    """[N, IN, H, W] float32, contiguous -> [N * H * W, KX], written."""
    n, channels, h, w = image.shape
    config = target(image).config("pack", packed)
    grid = (-(-packed.shape[0] // config.block),)
    launch(ends.pack_call(config, channels), grid, False, image_ptr=image, packed_ptr=packed, pixels=n * h * w, plane=h * w)


def head(
    packed: Tensor,  # [N * H * W, KX]
    wh: Tensor,  # [KX, C]
    wm: Tensor,  # [taps * C, C]
    w1: Tensor,  # [2 * C, C]
    bias: Tensor,  # [3, C] float32
    y: Tensor,  # [P, C], written
    shape: tuple[int, int, int, int],  # of the image
    rows: int,
    pitch: int,
    d: int,
) -> None:
    t, (n, in_channels, h, w) = target(y), shape
    config = t.config("head", y)
    call = ends.head_call(config, y.shape[1], d, in_channels, t.precision)
    sizes = dict(images=n, height=h, width=w, rows=rows, pitch=pitch)
    launch(call, (y.shape[0] // config.block,), t.tma, packed_ptr=packed, wh=wh, wm=wm, w1=w1, b_ptr=bias, y=y, **sizes)


def tail(
    branches: tuple[Tensor, Tensor],  # [P, C] of dilation 2 and 3
    geometry: tuple[int, int, int, int],  # rows, pitch of either
    w: Tensor,  # [7 * C, C]
    bias: Tensor,  # [7, C] float32
    mu: Tensor,  # [N, IN, H, W] float32, written
    features: Tensor | None,  # [N * H * W, C] float32, written if given
    light: bool,
    folded: bool,
) -> None:
    (s2, s3), (n, in_channels, height, width) = branches, mu.shape
    t, c = target(s2), s2.shape[1]
    config = t.config("tail", s2)
    sizes = dict(zip(("rows2", "pitch2", "rows3", "pitch3"), geometry, strict=True))
    sizes |= dict(pixels=n * height * width, height=height, width=width)
    call = ends.tail_call(config, c, in_channels, light, folded, t.precision)
    arguments = dict(s2_ptr=s2, s3_ptr=s3, w=w, wp=w, wc=w, wn=w, wo=w, b_ptr=bias, mu_ptr=mu, features=features)
    launch(call, (-(-n * height * width // config.block),), t.tma, **arguments, **sizes)
