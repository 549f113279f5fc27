"""Ways to run a network: CUDA and Triton kernels, plain PyTorch; `select` chooses one."""

from fastbsn.backends.device import resolve_device, slow_bf16
from fastbsn.backends.selection import Prepared, resolve_dtype, select, status, why_not

__all__ = ["Prepared", "resolve_device", "resolve_dtype", "select", "slow_bf16", "status", "why_not"]
