"""The module of the paper D-BSN (multiple dilated convolutions), and any number of them in a row: the body of a branch.

Reference, then the operator `mdc_body` that runs a whole body through the kernels, Triton or CUDA: w5 [M, C, C, 5, 5], w3 [M, C, C, 3, 3],
w1 [M, 8, C, C] and bias [M, 8, C] in the order of kernels/slots.py. Its `saved` [9 M + 1, P, C] holds what `slots.KEPT` names of every
module, then y; it is empty where nothing is to be differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.kernels.layout import Flat
from fastbsn.kernels.slots import BIASES, GRADIENTS, KEPT, PRODUCTS, TAPS, place
from fastbsn.ops import mdc_cuda, self_check
from fastbsn.ops.dispatch import TRIALS, Trial, automatic, compute_dtype, trial_values, use_triton, warn_once
from fastbsn.ops.modules import Params, convolution, differentiated, in_a_row
from fastbsn.ops.operator import channels_last_like, define, enter, tap_major, tap_major_transposed


def mdc_module_reference(
    x: Tensor,  # [N, C, H, W]
    params: Params,  # a1 1x1, a2 5x5, b1 1x1, b2 3x3, c 1x1, join 1x1 3C->C, t1 1x1, t2 1x1
    dilation: int,
    outside: Tensor | None = None,
) -> Tensor:  # [N, C, H, W]
    a1, a2, b1, b2, c, join, t1, t2 = params
    a = F.relu(convolution(F.relu(convolution(x, a1)), a2, dilation, outside))
    b = F.relu(convolution(F.relu(convolution(x, b1)), b2, dilation, outside))
    branches = (a, b, F.relu(convolution(x, c)))
    u = F.relu(convolution(torch.cat(branches, 1), join)) + x
    return F.relu(convolution(F.relu(convolution(u, t1)), t2))


def _flat(x: Tensor, dilation: int) -> Flat:
    return Flat(x.shape[0], x.shape[2], x.shape[3], dilation, 2)


def _matrices(w5: Tensor, w3: Tensor, w1: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """[M, 25 * C, C], [M, 9 * C, C] and [M, 8 * C, C], as the kernels take them."""
    return tap_major(w5.flatten(3), dtype), tap_major(w3.flatten(3), dtype), tap_major(w1[..., None], dtype).flatten(1, 2)


def _through_cuda(x: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """The body by `mdc_cuda`; arguments of the operator, the result of its forward pass."""
    flat = _flat(x, dilation)
    s = torch.empty(2, flat.positions, x.shape[1], dtype=x.dtype, device=x.device)
    enter(flat, x, outside, s[0])
    inside, at = flat.inside(x.device, outside), 0
    for m5, m3, m1, b in zip(*_matrices(w5, w3, w1, x.dtype), bias.float().contiguous(), strict=True):
        mdc_cuda.mdc_module(s[at], mdc_cuda.pack(m5, m3, m1), b, inside, flat, s[1 - at])
        at = 1 - at
    return flat.unpack(s[at])


def _cuda_runs(device: torch.device, dtype: torch.dtype, c: int) -> self_check.Runs:
    values = trial_values(_shapes(c))

    def tensors(precision: torch.dtype) -> tuple[Tensor, list[Params]]:
        x, *rest = (v.to(device, dtype).to(precision) for v in values)
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        return x, [pairs[:8], pairs[8:]]

    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        x, modules = tensors(dtype)
        own, exact = ([in_a_row(mdc_module_reference, *tensors(p), 2, True)] for p in (dtype, torch.float64))
        return [_through_cuda(x, None, *_stacked(modules), 2)], own, exact


def _cuda_modules(x: Tensor) -> bool:
    """Whether the CUDA kernel takes the body of x: as in a prepared teacher, where it runs and has passed its self-check.

    A check waits for the device, which a capture of a graph does not allow: one that comes first gets the Triton kernels.
    """
    if not automatic() or mdc_cuda.why_not(x.device, x.dtype, x.shape[1]) is not None:
        return False
    about = ("cuda mdc_modules", x.device, x.dtype, (x.shape[1],))
    if not self_check.known(*about) and x.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    result = self_check.check(*about, lambda: _cuda_runs(x.device, x.dtype, x.shape[1]))
    if not result.passed:
        warn_once(f"the CUDA kernel of mdc_modules is not used on {x.device}: {result}")
    return result.passed


def _forward(
    x: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool
) -> tuple[Tensor, Tensor]:
    import fastbsn.kernels.mdc as kernels

    if not save and _cuda_modules(x):
        return _through_cuda(x, outside, w5, w3, w1, bias, dilation), x.new_empty(0)
    modules, flat = w5.shape[0], _flat(x, dilation)
    s = torch.empty(len(KEPT) * modules + 1 if save else 4, flat.positions, x.shape[1], dtype=x.dtype, device=x.device)
    enter(flat, x, outside, s[place(0, modules, save).x])
    inside, bias = flat.inside(x.device, outside), bias.float().contiguous()
    kernels.mdc_body(s, *_matrices(w5, w3, w1, x.dtype), bias, inside, flat.pitch, save)
    return flat.unpack(s[-1]), s if save else s.new_empty(0)


def _forward_fake(
    x: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, bias: Tensor, dilation: int, save: bool
) -> tuple[Tensor, Tensor]:
    c = x.shape[1]
    return channels_last_like(x, c), x.new_empty((len(KEPT) * w5.shape[0] + 1, _flat(x, dilation).positions, c) if save else 0)


def _backward(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fastbsn.kernels.mdc_backward import mdc_backward_module, mdc_table
    from fastbsn.kernels.wgrad import weight_gradients

    (modules, c), flat = w5.shape[:2], _flat(grad, dilation)
    g = saved.new_empty(len(GRADIENTS) + 2, flat.positions, c)  # dy, nine of the module, dx; dy and dx change places
    enter(flat, grad, outside, g[0])
    t5, t3 = tap_major_transposed(w5.flatten(3), saved.dtype), tap_major_transposed(w3.flatten(3), saved.dtype)
    t1 = tap_major_transposed(w1[..., None], saved.dtype).flatten(1, 2)
    dw, db = torch.empty(modules, PRODUCTS, c, c, device=grad.device), torch.empty(modules, len(BIASES), c, device=grad.device)
    table, z = mdc_table(g.device, flat.positions, flat.pitch), g.flatten(0, 1)
    at, last = 0, len(GRADIENTS) + 1
    for m in reversed(range(modules)):
        x = len(KEPT) * m
        sums = mdc_backward_module(saved, g, t5[m], t3[m], t1[m], flat.pitch, x=x, y=x + len(KEPT), dy=at, t2=1, dx=last - at)
        torch.sum(sums, 0, out=db[m])
        torch.sum(weight_gradients(saved[x : x + len(KEPT)].flatten(0, 1), z, table, PRODUCTS, flat.positions), 0, out=dw[m])
        at = last - at
    d5, d3, d1 = dw.transpose(2, 3).split(list(TAPS.values()), 1)  # entries are [C in, C out]
    d5, d3 = (d.permute(0, 2, 3, 1).reshape(w.shape) for d, w in ((d5, w5), (d3, w3)))
    return flat.unpack(g[at]), d5, d3, d1.contiguous(), db


def _backward_fake(
    grad: Tensor, saved: Tensor, outside: Tensor | None, w5: Tensor, w3: Tensor, w1: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    new = lambda *shape: torch.empty(shape, device=grad.device)  # noqa: E731
    m, c = w5.shape[:2]
    return channels_last_like(grad.to(saved.dtype), c), new(*w5.shape), new(*w3.shape), new(*w1.shape), new(m, len(BIASES), c)


mdc_body = define(
    "mdc_body",
    "(Tensor x, Tensor? outside, Tensor w5, Tensor w3, Tensor w1, Tensor bias, int dilation, bool save) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_mdc_body_backward = define(
    "mdc_body_backward",
    "(Tensor grad, Tensor saved, Tensor? outside, Tensor w5, Tensor w3, Tensor w1, int dilation)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, outside, w5, w3, w1, bias, ctx.dilation, _ = inputs
    ctx.bias_dtype = bias.dtype
    ctx.save_for_backward(output[1], outside, w5, w3, w1)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    saved, outside, w5, w3, w1 = ctx.saved_tensors
    dx, d5, d3, d1, db = _mdc_body_backward(grad, saved, outside, w5, w3, w1, ctx.dilation)
    return dx, None, d5.to(w5.dtype), d3.to(w3.dtype), d1.to(w1.dtype), db.to(ctx.bias_dtype), None, None


torch.library.register_autograd("fastbsn::mdc_body", _gradient, setup_context=_setup)


def _stacked(modules: Sequence[Params]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of all modules, as the operator takes them."""
    w5 = torch.stack([a2[0] for _, a2, *_ in modules])
    w3 = torch.stack([b2[0] for _, _, _, b2, *_ in modules])
    w1 = torch.stack([torch.stack(pointwise_matrices(params)) for params in modules])
    bias = torch.stack([torch.stack([b for _, b in params]) for params in modules])
    return w5, w3, w1, bias


def _through_kernels(x: Tensor, modules: Sequence[Params], dilation: int, outside: Tensor | None) -> Tensor:
    return mdc_body(x.to(compute_dtype(x)), outside, *_stacked(modules), dilation, differentiated(x, modules))[0]


def pointwise_matrices(params: Params) -> list[Tensor]:
    """[C, C] matrices of an MDC module in the order of the kernels: a1, b1, c, join of a, join of b, join of c, t1, t2."""
    a1, _, b1, _, c, join, t1, t2 = (weight.flatten(1) for weight, _ in params)
    return [a1, b1, c, *join.chunk(3, 1), t1, t2]


def mdc_module(x: Tensor, params: Params, dilation: int = 1, outside: Tensor | None = None) -> Tensor:
    """Multiple dilated convolutions: 5x5, 3x3 and 1x1 paths, joined, plus two 1x1 (Wu et al., ECCV 2020, section 3.2).

    a = ReLU(5x5(ReLU(1x1 x))); b = ReLU(3x3(ReLU(1x1 x))); c = ReLU(1x1 x); u = ReLU(1x1 [a, b, c]) + x;
    result ReLU(1x1(ReLU(1x1 u))). Zero padding is of the activation: the halo of a 5x5 is 0, not ReLU(bias).

    Args:
        x: [N, C, H, W].
        params: eight (weight, bias) pairs in the order a1, a2, b1, b2, c, join, t1, t2.
        dilation: of the 5x5 and the 3x3, in pixels.
        outside: bool [N, 1, H, W], true where activations must read as zero, or None.

    Returns:
        [N, C, H, W].
    """
    if use_triton(x, x.shape[1], trial=("mdc_modules", (x.shape[1],))):
        return _through_kernels(x, [params], dilation, outside)
    return mdc_module_reference(x, params, dilation, outside)


def mdc_modules(x: Tensor, modules: Sequence[Params], dilation: int, phases: bool = True) -> Tensor:
    """Any number of `mdc_module` in a row, the body of a paper branch; arguments as in `residual_modules`."""
    if use_triton(x, x.shape[1], trial=("mdc_modules", (x.shape[1],))):
        return _through_kernels(x, modules, dilation, None)
    return in_a_row(mdc_module_reference, x, modules, dilation, phases)


def _shapes(c: int) -> list[tuple[int, ...]]:
    """Of the arguments of a trial: an image, and two modules at dilation 2, which divides neither of its sides."""
    weights = ((c, c, 1, 1), (c, c, 5, 5), (c, c, 1, 1), (c, c, 3, 3), (c, c, 1, 1), (c, 3 * c, 1, 1), (c, c, 1, 1), (c, c, 1, 1))
    return [(2, c, 13, 19), *(shape for weight in 2 * weights for shape in (weight, (c,)))]


def _trial(c: int) -> Trial:

    def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
        return (mdc_modules(x, [pairs[:8], pairs[8:]], 2),)

    return run, _shapes(c)


TRIALS["mdc_modules"] = _trial
