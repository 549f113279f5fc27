"""Time candidate configurations on this GPU and write a tuning table: never done unless asked.

    fastbsn tune -o tuning.json [--kernels residual mdc_rest ...] [--channels 96 128] [--side 1024]

A candidate that does not compile, or needs more shared memory than there is, is passed over; one whose result differs from that of
the table is not slow but wrong, and stops the run. The printed times are medians over the launches of `--seconds` each.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from fastbsn.errors import BackendError, InputError
from fastbsn.io.atomic import write_json

from . import conv, ends, mdc, mdc_backward, residual, runtime, tuning, wgrad
from .layout import Flat
from .slots import GRADIENTS, KEPT
from .tuning import Config, width

KERNELS = ("conv", "residual", "mdc_first", "mdc_taps", "mdc_rest", "mdc_backward_first", "mdc_backward_rest", "wgrad", "head", "tail")
TOLERANCE = 0.02  # relative; candidates add in another order


def candidates(kernel: str, channels: int) -> Iterator[Config]:
    """Configurations worth timing."""
    chunks = {c for c in (16, 32, 64, 128) if c <= width(channels) and width(channels) // c <= 8}
    blocks = (32, 64, 128) if kernel == "wgrad" else (64, 128, 256)
    for block, chunk, warps, stages in itertools.product(blocks, sorted(chunks), (4, 8), (2, 3, 4, 6)):
        if kernel == "wgrad" and chunk != max(chunks):
            continue  # reads whole rows
        yield Config(block, chunk, warps, stages)


def workload(kernel: str, c: int, side: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A function that launches `kernel` on one image of side x side pixels with random data and returns what it wrote."""
    device = torch.device("cuda")
    flat, last = Flat(1, side, side, 2, 2), len(KEPT)
    p, pitch, inside = flat.positions, flat.pitch, flat.inside(device)

    def array(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).mul_(0.05).to(dtype)

    x, y, bias = flat.pack(array(1, c, side, side)), torch.empty(p, c, dtype=dtype, device=device), torch.randn(8, c, device=device)
    w5, w3, w1 = array(25 * c, c), array(9 * c, c), array(8 * c, c)

    def run_conv() -> Tensor:
        conv.conv2d(x, w3, bias[0], inside, y, pitch, 3, act=True)
        return y

    def run_residual() -> Tensor:
        residual.residual_module(x, w3, w1[:c], bias[:2], inside, y, pitch)
        return y

    def run_head() -> Tensor:
        ends.head(packed, w1[:16], w5[: 8 * c], w1[: 2 * c], bias[:3], y, (1, 3, side, side), flat.rows, pitch, 2)
        return y

    def run_tail() -> Tensor:
        geometry = (flat.rows, pitch, three.rows, three.pitch)
        ends.tail((x, x3), geometry, w1[: 7 * c], bias[:7], mu, features, light=True, folded=False)
        return mu

    def run_mdc() -> Tensor:
        mdc.mdc_body(slots, w5[None], w3[None], w1[None], bias[None], inside, pitch, keep=True)
        return slots[last]

    def run_backward() -> Tensor:
        mdc_backward.mdc_backward_module(slots, gradients, w5, w3, w1, pitch, x=0, y=last, dy=0, t2=1, dx=len(GRADIENTS) + 1)
        return gradients[-1]

    def run_wgrad() -> Tensor:
        table = residual.residual_table(device, p, pitch, 0)
        return wgrad.weight_gradients(torch.cat([x, x]), torch.cat([x, x]), table, 10, p).sum(0)

    if kernel in ("head", "tail"):
        packed, three = array(side * side, 16), Flat(1, side, side, 3, 2)
        x3, mu = three.pack(array(1, c, side, side)), torch.empty(1, 3, side, side, device=device)
        features = torch.empty(side * side, c, device=device)
    if kernel.startswith("mdc"):
        slots = torch.zeros(last + 1, p, c, dtype=dtype, device=device)
        slots[0] = x
        gradients = torch.zeros(len(GRADIENTS) + 2, p, c, dtype=dtype, device=device)
        gradients[0] = x
        run_mdc()
    return {
        "conv": run_conv,
        "residual": run_residual,
        "mdc_first": run_mdc,
        "mdc_taps": run_mdc,
        "mdc_rest": run_mdc,
        "mdc_backward_first": run_backward,
        "mdc_backward_rest": run_backward,
        "wgrad": run_wgrad,
        "head": run_head,
        "tail": run_tail,
    }[kernel]


def milliseconds(run: Callable[[], Any], seconds: float) -> float:
    """Median time of `run` on the device."""
    run()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < end:
        begin, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(begin.elapsed_time(stop))
    return statistics.median(times)


def tune(kernel: str, channels: int, side: int = 1024, seconds: float = 0.1, dtype: torch.dtype = torch.bfloat16) -> tuple[Config, float]:
    """The fastest configuration of `kernel` at `channels` on this GPU, and its time in milliseconds.

    The other kernel of a pair runs with its configuration from the table, and is in the time.

    Raises:
        AssertionError: a candidate computes something else than the configuration of the table.
    """
    run = workload(kernel, channels, side, dtype)
    expected = run().float().clone()
    arch = runtime.target(expected).arch
    best = (tuning.config(kernel, arch, channels, dtype.itemsize), milliseconds(run, seconds))
    for config in candidates(kernel, channels):
        try:
            with tuning.forced(**{kernel: config}):
                got = run().float()
                error = ((got - expected).norm() / expected.norm()).item()
                assert error < TOLERANCE, f"{kernel} with {config}: relative difference {error:.3f} to the table's configuration"
                taken = milliseconds(run, seconds)
        except (OutOfResources, PTXASError, CompilationError):
            continue
        if taken < best[1]:
            best = config, taken
    return best


def write_table(
    output: Path, kernels: Sequence[str] = KERNELS, channels: Sequence[int] = tuning.TUNED, side: int = 1024, seconds: float = 0.1
) -> None:
    """Tune `kernels` at each of `channels` and write the table after each; entries that were not tuned are those of the table in use.

    Raises:
        BackendError: there is no CUDA device. InputError: kernels or channels that have no table.
    """
    if not set(kernels) <= set(KERNELS) or not set(channels) <= set(tuning.TUNED):
        raise InputError(f"kernels {list(kernels)}, channels {list(channels)}; expected some of {list(KERNELS)} and {list(tuning.TUNED)}")
    if not torch.cuda.is_available():
        raise BackendError("there is no CUDA device; tuning times kernels on one: run it on the machine that the table is for")
    table = {arch: dict(entries) for arch, entries in tuning.table().items()}
    arch, name = runtime.target(torch.empty(0, device="cuda")).arch, torch.cuda.get_device_name()
    for kernel, c in itertools.product(kernels, channels):
        config, taken = tune(kernel, c, side, seconds)
        table[arch][f"{kernel}/{c}/16"] = [config.block, config.chunk, config.warps, config.stages]
        print(f"{kernel:20} C={c:3} {config} {taken:.4f} ms", flush=True)
        table[arch]["measured"] = name
        write_json(output, table)
