"""Denoisers that need no training, told sigma: float [H, W] or [H, W, 3] in [0, 1] units -> the same.

Optional packages; a method whose package is missing says so. bm3d's licence forbids commercial use.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.measure import Unavailable

Image = NDArray[np.floating]


def _channel_axis(noisy: Image) -> int | None:
    return -1 if noisy.ndim == 3 else None


def bm3d(noisy: Image, sigma: float) -> Image:
    try:
        import bm3d as package
    except ImportError as error:
        raise Unavailable("the package bm3d is not installed") from error
    return (package.bm3d_rgb if noisy.ndim == 3 else package.bm3d)(noisy, sigma)


def opencv_nl_means(noisy: Image, sigma: float) -> Image:
    import cv2

    # On colour, h = sigma over three channels gives 2 to 3 dB more than fastNlMeansDenoisingColored at any h.
    image = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return cv2.fastNlMeansDenoising(image, None, 255 * sigma, 7, 21) / 255


def skimage_nl_means(noisy: Image, sigma: float) -> Image:
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return denoise_nl_means(noisy, h=0.6 * sigma, sigma=sigma, channel_axis=_channel_axis(noisy), **options)


def skimage_wavelet(noisy: Image, sigma: float) -> Image:
    try:
        import pywt  # noqa: F401
    except ImportError as error:
        raise Unavailable("the package PyWavelets is not installed") from error
    from skimage.restoration import denoise_wavelet

    axis = _channel_axis(noisy)
    return denoise_wavelet(noisy, sigma=sigma, channel_axis=axis, convert2ycbcr=axis is not None, rescale_sigma=True)


METHODS: dict[str, Callable[[Image, float], Image]] = {
    "BM3D": bm3d,
    "OpenCV fastNlMeans": opencv_nl_means,
    "scikit-image nl_means": skimage_nl_means,
    "scikit-image wavelet": skimage_wavelet,
}
