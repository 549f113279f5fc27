"""Rate at which the multiprocessors read from L2: every program reads the same resident buffer over and over."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK, ROUNDS, PROGRAMS_PER_SM = 4096, 4, 4


@triton.jit
def _read_kernel(x_ptr, y_ptr, n_blocks, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # x: [n_blocks * BLOCK], y: [programs * BLOCK] fp32
    i_block, lane = tl.program_id(0), tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(n_blocks * ROUNDS):
        total += tl.load(x_ptr + (i + 7 * i_block) % n_blocks * BLOCK + lane, cache_modifier=".cg")
    tl.store(y_ptr + i_block * BLOCK + lane, total)


def reader(device: torch.device, mib: int = 20):
    """A call that reads from L2, and the bytes it reads. `mib` must fit in the cache."""
    x = torch.rand(mib * 2**18, device=device)
    programs = torch.cuda.get_device_properties(device).multi_processor_count * PROGRAMS_PER_SM
    y = torch.empty(programs * BLOCK, device=device)

    def run(_=None):
        _read_kernel[(programs,)](x, y, x.numel() // BLOCK, ROUNDS=ROUNDS, BLOCK=BLOCK, num_warps=8)

    return run, programs * ROUNDS * x.nbytes
