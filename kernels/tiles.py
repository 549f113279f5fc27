"""Pieces shared by all kernels: blocks of a [rows, columns] array, bias rows, ReLU and the sum over the taps of a convolution.

Layout: an image (or each of its d*d phase images) is stored as rows of `pitch` positions, width + r, and height + r rows, all
images one after the other, as one array [P, C]. The r zero columns at the end of a row are also the left padding of the next row, and the
r zero rows below an image the top padding of the next image, so a tap is a row offset and a block of [P, C] is a plain 2-D tile.
P is rounded up to a multiple of every block size. Kernels write every position, zero where there is no pixel.
"""

import triton
import triton.language as tl


@triton.jit
def blocks(x, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """x as blocks that read zero outside [rows, columns]: a descriptor made on the host (TMA), or made here from a pointer."""
    if isinstance(x, tl.tensor_descriptor):
        return x
    else:
        return tl.make_tensor_descriptor(x, [rows, columns], [columns, 1], [ROWS, COLUMNS])


@triton.jit
def relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def leaky(x, SLOPE: tl.constexpr):
    """LeakyReLU; a NaN stays one."""
    return relu(x) if SLOPE == 0 else tl.where(x <= 0, SLOPE * x, x)


@triton.jit
def bias_row(b_ptr, first, C, N: tl.constexpr):
    """[1, N] of b_ptr[first:], zero from column C on."""
    n = tl.arange(0, N)
    return tl.load(b_ptr + first + n, mask=n < C, other=0.0)[None, :]


@triton.jit
def bias_block(b_ptr, first, C, BLOCK: tl.constexpr, N: tl.constexpr):
    """[BLOCK, N]: the bias in every row, to start a sum with."""
    return tl.zeros([BLOCK, N], tl.float32) + bias_row(b_ptr, first, C, N)


@triton.jit
def is_inside(inside_ptr, p, BLOCK: tl.constexpr):
    """[BLOCK, 1]: true where a position holds a pixel, false in the zero padding."""
    return (tl.load(inside_ptr + p + tl.arange(0, BLOCK)) != 0)[:, None]


@triton.jit
def tap_of(i, K: tl.constexpr, MASKED: tl.constexpr):
    """Position in the K x K window of the i-th tap; a masked window has no centre."""
    return i + i // (K * K // 2) if MASKED else i


@triton.jit
def tap_offset(tap, pitch, K: tl.constexpr):
    return (tap // K - K // 2) * pitch + tap % K - K // 2


@triton.jit
def sum_taps(
    acc,  # [BLOCK, N] fp32
    x,  # blocks [BLOCK, CHUNK] of [P, C]
    w,  # blocks [CHUNK, N] of [taps * C, CO], tap-major
    row,
    pitch,
    first,  # row of w at which the taps begin
    C: tl.constexpr,
    K: tl.constexpr,
    MASKED: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    column=0,  # of w
):
    """acc + sum over taps of x[row + offset] @ w[tap]: the main loop of every convolution."""
    chunks: tl.constexpr = (C + CHUNK - 1) // CHUNK
    taps: tl.constexpr = K * K - 1 if MASKED else K * K
    for i in tl.range(0, taps * chunks, num_stages=STAGES):
        k = (i % chunks) * CHUNK  # where CHUNK does not divide C, columns beyond C read as zero
        offset = tap_offset(tap_of(i // chunks, K, MASKED), pitch, K)
        a = x.load([row + offset, k])
        acc = tl.dot(a, w.load([first + i // chunks * C + k, column]), acc, input_precision=PRECISION)
    return acc
