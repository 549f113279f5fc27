"""The repeated modules layer by layer, for more channels than the registers of one program hold (`tuning.WIDEST`).

The fused kernels keep every column of a block from one layer to the next. Where the columns do not fit, nothing can be kept, and each
layer is a launch of its own: the convolution kernel, which takes 128 columns at a time, for 1x1 as well as for k x k, because its bias,
ReLU, gate, skip, zero padding and column sums cost no further pass over memory. Three matrices that add up (the join, the way back to
x) lie one behind the other in the weights and are one product over 3 C channels. Arguments, slots and rounding are those of the fused
kernels, with two differences: j is rounded before u = j + x, and column sums are of gradients before they are rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .conv import conv2d
from .slots import BIASES, GRADIENTS, KEPT, MATRICES, Place


def residual_module(
    x: Tensor,  # [P, C]
    w: Tensor,  # [9 * C, C]
    w1: Tensor,  # [C, C]
    bias: Tensor,  # [2, C] float32
    inside: Tensor,  # [P] uint8
    y: Tensor,  # [P, C], written
    pitch: int,
    h: Tensor | None,  # [P, C], written if given
) -> None:
    h = torch.empty_like(x) if h is None else h
    conv2d(x, w, bias[0], inside, h, pitch, 3, act=True)
    conv2d(h, w1, bias[1], inside, y, pitch, 1, skip=x)


def mdc_module(
    s: Tensor,  # [slots, P, C], read and written
    w5: Tensor,  # [25 * C, C]
    w3: Tensor,  # [9 * C, C]
    w1: Tensor,  # [8 * C, C]
    bias: Tensor,  # [8, C] float32
    inside: Tensor,  # [P] uint8
    pitch: int,
    at: Place,
) -> None:
    x, a1, b1, y, keep = at
    c, join = s.shape[2], list(MATRICES).index("join of a")
    to_a1, to_b1, to_c, *_, to_t1, to_t2 = w1.view(-1, c, c)

    def layer(name: str, source: Tensor, w: Tensor, out: Tensor, k: int = 1) -> None:
        conv2d(source, w, bias[BIASES.index(name)], inside, out, pitch, k, act=True)

    if keep is None:  # the two slots of a1 and b1 are free once a and b are there
        kept = (*s.new_empty(3, *s.shape[1:]), s[a1], s[b1], s[a1])
    else:
        kept = tuple(s[keep : keep + 6])
    a, b, c1, j, u, v = kept
    layer("a1", s[x], to_a1, s[a1])
    layer("b1", s[x], to_b1, s[b1])
    layer("a2", s[a1], w5, a, 5)
    layer("b2", s[b1], w3, b, 3)
    layer("c", s[x], to_c, c1)
    layer("join", torch.cat((a, b, c1), 1), w1[join * c : (join + 3) * c], j)
    torch.add(j, s[x], out=u)
    layer("t1", u, to_t1, v)
    layer("t2", v, to_t2, s[y])


def mdc_backward_module(
    s: Tensor,  # [slots, P, C] of the forward pass
    g: Tensor,  # [slots, P, C] of gradients, read and written
    w5t: Tensor,  # [25 * C, C]
    w3t: Tensor,  # [9 * C, C]
    w1t: Tensor,  # [8 * C, C]
    pitch: int,
    x: int,
    y: int,
    dy: int,
    t2: int,
    dx: int,
) -> Tensor:  # bias gradients, [1, 8, C] float32
    (_, p, c), (_, a1, b1, a, b, c1, j, _, v) = s.shape, s[x : x + len(KEPT)]
    d_t2, d_t1, d_u, d_join, d_a, d_b, d_c, d_a1, d_b1 = g[t2 : t2 + len(GRADIENTS)]
    *_, from_a, from_b, from_c, from_t1, from_t2 = w1t.view(-1, c, c)
    # Nothing is to be set to zero outside the image: dy, a1 and b1, the gates of what has a halo, are zero there.
    sums, everywhere = torch.empty(1, len(BIASES), c, device=s.device), torch.ones(p, dtype=torch.uint8, device=s.device)

    def add_up(bias: str, partial: Tensor) -> None:
        torch.sum(partial, 0, dtype=torch.float32, out=sums[0, BIASES.index(bias)])

    def layer(bias: str, dz: Tensor, w: Tensor, out: Tensor, gate: Tensor, k: int = 1) -> None:
        partial = conv2d(dz, w, None, everywhere, out, pitch, k, gate=gate, sums=True)
        assert partial is not None
        add_up(bias, partial)

    d_t2.copy_(g[dy]).masked_fill_(s[y] <= 0, 0)
    add_up("t2", d_t2)
    layer("t1", d_t2, from_t2, d_t1, v)
    conv2d(d_t1, from_t1, None, everywhere, d_u, pitch, 1)
    d_join.copy_(d_u).masked_fill_(j <= 0, 0)
    add_up("join", d_join)
    layer("a2", d_join, from_a, d_a, a)
    layer("b2", d_join, from_b, d_b, b)
    layer("c", d_join, from_c, d_c, c1)
    layer("a1", d_a, w5t, d_a1, a1, 5)
    layer("b1", d_b, w3t, d_b1, b1, 3)
    conv2d(torch.cat((d_a1, d_b1, d_c), 1), w1t[: 3 * c], None, everywhere, g[dx], pitch, 1, skip=d_u)
    return sums
