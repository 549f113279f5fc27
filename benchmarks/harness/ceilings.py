"""What this machine can do at most, measured in the same run as everything that is compared with it."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.harness.timing import interleave, statistics

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _seconds(run, device: torch.device, budget: float) -> float:
    for _ in range(2):
        run(None)
    return statistics(interleave({"": run}, [None], device, budget)[""])["ms"] / 1e3


def measure(device: torch.device, tiny: bool = False) -> dict[str, Any]:
    """Copy (bytes read plus written) and L2 read in GB/s, matrix product in TFLOP/s per dtype, on random data.

    float32 on a GPU is TF32, which its convolutions use by default.
    """
    gpu, budget = device.type == "cuda", 0.02 if tiny else 0.5
    x = torch.rand(2**18 if tiny else 2**30 if gpu else 2**26, device=device)
    y = torch.empty_like(x)
    found: dict[str, Any] = {"copy_gb_per_s": round(2 * x.nbytes / _seconds(lambda _: y.copy_(x), device, budget) / 1e9, 1)}
    n = 128 if tiny else 8192 if gpu else 1536
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        for name, dtype in DTYPES.items():
            if name == "float16" and not gpu:
                continue
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            rate = 2 * n**3 / _seconds(lambda _, a=a, b=b: a @ b, device, budget)
            found[f"matmul_{name}_tflop_per_s"] = round(rate / 1e12, 4)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    if not gpu:
        return found | {"l2_skipped": "needs a GPU"}
    try:
        from benchmarks.harness.l2 import reader
    except ImportError as error:
        return found | {"l2_skipped": f"needs Triton ({error})"}
    run, count = reader(device)
    return found | {"l2_read_gb_per_s": round(count / _seconds(run, device, budget) / 1e9, 1)}


def floor_seconds(ceilings: dict[str, Any], flop: float, count: float, dtype: str) -> float | None:
    """The roofline: no run is faster than its arithmetic at the matrix rate, or than its compulsory bytes at the copy rate.

    Args:
        ceilings: of `measure`.
        flop: of the reference network, two per multiply-add.
        count: bytes that must move: input, output and weights, once.
        dtype: of the arithmetic.
    """
    rate, copy = ceilings.get(f"matmul_{dtype}_tflop_per_s"), ceilings.get("copy_gb_per_s")
    if not rate or not copy:
        return None
    return max(flop / rate / 1e12, count / copy / 1e9)
