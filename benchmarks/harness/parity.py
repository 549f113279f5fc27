"""The gate in front of every speed: a version whose output is not that of the fp32 network has no speed.

Two bounds: PSNR on real images differs from fp32 by at most 0.01 dB, and the relative error is at most twice that of eager
PyTorch in the same dtype. Both are checked before the timing and, on another input, after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PSNR_BOUND = 0.01  # dB
FLOOR = {torch.uint8: 1e-3}  # relative error allowed to any version; a value on the edge rounds either way in uint8
DEFAULT_FLOOR = 1e-5


@dataclass(frozen=True)
class Parity:
    """Result of one comparison; `reason` is None where the gate is passed."""

    error: float  # ||output - reference|| / ||reference||
    bound: float
    psnr: float | None  # dB, of the output; None where there is no clean image
    psnr_difference: float | None  # dB, output minus reference
    reason: str | None

    def row(self) -> dict[str, float | None]:
        psnr = {"psnr": self.psnr, "psnr_difference": self.psnr_difference}
        return {key: None if v is None else round(v, 4) for key, v in psnr.items()} | {
            "error": float(f"{self.error:.3g}"),
            "error_bound": float(f"{self.bound:.3g}"),
        }


def _unit(x: Tensor) -> Tensor:
    return x.double() / 255 if x.dtype == torch.uint8 else x.double()


def _psnr(x: Tensor, clean: Tensor) -> float:
    error = (_unit(x).clamp(0, 1) - _unit(clean)).square().mean()
    return float(-10 * error.clamp_min(1e-20).log10())


def check(output: Tensor, reference: Tensor, clean: Tensor | None, own_error: float | None) -> Parity:
    """Compare a version's output with the fp32 network's.

    Args:
        output: of the version.
        reference: of eager fp32 on the same input, same shape and dtype.
        clean: the image behind the input, or None.
        own_error: relative error of eager PyTorch in the version's dtype; None if this version is that yardstick.
    """
    if output.shape != reference.shape or output.dtype != reference.dtype:
        expected = f"{tuple(reference.shape)} {reference.dtype}"
        return Parity(float("inf"), 0, None, None, f"output is {tuple(output.shape)} {output.dtype}; expected {expected}")
    output = output.to(reference.device)
    a, b = _unit(output), _unit(reference)
    error = float((a - b).norm() / b.norm().clamp_min(1e-12))
    floor = FLOOR.get(reference.dtype, DEFAULT_FLOOR)
    bound = (2 * own_error if own_error is not None else error) + floor
    psnr = difference = None
    if clean is not None:
        psnr = _psnr(output, clean)
        difference = psnr - _psnr(reference, clean)
    reason = None
    if not bool(torch.isfinite(a).all()):
        reason = f"{int((~torch.isfinite(a)).sum())} non-finite values in the output"
    elif error > bound:
        reason = f"relative error {error:.2g}, allowed {bound:.2g}"
    elif difference is not None and not abs(difference) <= PSNR_BOUND:
        reason = f"PSNR differs by {difference:+.3f} dB from fp32, allowed {PSNR_BOUND}"
    return Parity(error, bound, psnr, difference, reason)
