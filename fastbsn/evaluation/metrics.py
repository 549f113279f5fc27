"""PSNR and SSIM, as the denoising papers compute them. Clip outputs to [0, 1] first; do not round them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbsn.errors import InputError


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim not in (2, 3) or not x.size:
        raise InputError(f"images have shapes {x.shape} and {y.shape}; expected one shape, [H, W] or [C, H, W], not empty")
    return x, y


def psnr(a: ArrayLike, b: ArrayLike, data_range: float = 1.0) -> float:
    """10 log10(data_range^2 / mean squared error) in dB, over all pixels and channels jointly; inf for equal images.

    Args:
        a: image [C, H, W] or [H, W].
        b: image of the same shape.
        data_range: white minus black, in the unit of the images.

    Raises:
        InputError: different or unsuitable shapes.
    """
    x, y = _pair(a, b)
    error = float(np.mean((x - y) ** 2))
    return float(10 * np.log10(data_range**2 / error)) if error else float("inf")


def ssim(a: ArrayLike, b: ArrayLike, data_range: float = 1.0) -> float:
    """Structural similarity with an 11x11 Gaussian window, sigma 1.5, no sample covariance; mean over channels.

    Wang et al., Image quality assessment, IEEE TIP 2004. Arguments as for `psnr`; H and W at least 11.

    Raises:
        InputError: different or unsuitable shapes, or an image smaller than the window.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise InputError("SSIM needs scikit-image, which is not installed: pip install scikit-image") from error
    x, y = _pair(a, b)
    if min(x.shape[-2:]) < 11:
        raise InputError(f"image has {x.shape[-2]} x {x.shape[-1]} pixels; SSIM needs at least 11 x 11")
    return float(
        structural_similarity(
            x,
            y,
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=0 if x.ndim == 3 else None,
        )
    )
