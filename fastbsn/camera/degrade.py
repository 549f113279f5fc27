"""Synthetic noise and what happens to a picture on its way into a file. Images are [H, W, 3] float32, values in [0, 1] units.

Every function takes a numpy generator, whose state alone decides what comes out.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray
BORDER = cv2.BORDER_REFLECT_101
BAYER = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))  # row, column, channel of an RGGB cell
GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
SAMPLINGS = (0x411111, 0x221111, 0x211111)  # of OpenCV: chroma at a quarter (4:1:1), a quarter (4:2:0) and half (4:2:2) the pixels


def white_noise(shape: tuple[int, ...], correlation: float, rng: np.random.Generator) -> Array:
    """Noise of variance 1 [H, W, 3], white over pixels, with that correlation between any two channels."""
    own = rng.standard_normal(shape, np.float32)
    if correlation <= 0:
        return own
    common = rng.standard_normal((*shape[:2], 1), np.float32)
    return np.asarray(np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common, np.float32)


def blurred_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Gaussian noise of variance 1, blurred with sigma up to 2 pixels, turned a little more one way, mixed over the channels."""
    n: Array = rng.standard_normal(shape, np.float32)
    k = rng.uniform(0.25, 1.2) if rng.random() < 0.9 else rng.uniform(1.2, 2.0)
    n = cv2.GaussianBlur(n, (0, 0), k, sigmaY=k * rng.uniform(0.8, 1.25), borderType=BORDER)
    if rng.random() < 0.3:  # scanned film and resized pictures have a coarse and a fine part
        n = n / n.std() + rng.uniform(0.2, 1) * rng.standard_normal(shape, np.float32)
    mix = np.eye(3) + rng.uniform() * rng.normal(0, 0.6, (3, 3))
    n = n @ np.asarray(mix.T, np.float32)
    return np.asarray(n / n.std(), np.float32)


def raw_noise(x: Array, rng: np.random.Generator) -> Array:
    """`x` with shot and read noise of a sensor: added in linear light, on a mosaic, white-balanced, demosaicked, through a tone curve.

    Only the noise is demosaicked (bilinear), so that the image keeps its detail.
    """
    h, w, _ = x.shape
    gamma = rng.uniform(1.8, 2.4)
    linear = np.clip(x, 0, 1) ** gamma
    balance = np.array([rng.uniform(1.2, 2.4), 1.0, rng.uniform(1.2, 2.2)], np.float32)
    row, column = rng.integers(2, size=2)
    mask = np.zeros((h, w, 3), np.float32)
    for a, b, c in BAYER:
        mask[(a + row) % 2 :: 2, (b + column) % 2 :: 2, c] = 1
    mosaic = (linear / balance * mask).sum(-1)
    shot, read = np.exp(rng.uniform(np.log(1e-5), np.log(8e-3))), np.exp(rng.uniform(np.log(1e-5), np.log(1.5e-2)))
    n = rng.standard_normal((h, w), np.float32) * np.sqrt(shot * mosaic + read**2)
    kernels = (RED_BLUE, GREEN, RED_BLUE)
    n = np.stack([cv2.filter2D(n * mask[..., c], -1, kernels[c], borderType=BORDER) for c in range(3)], -1)
    return np.asarray(np.clip(linear + n * balance, 0, 1) ** (1 / gamma), np.float32)


def jpeg(y: Array, quality: int, sampling: int = SAMPLINGS[1]) -> Array:
    """The image after 8-bit JPEG of that quality; it is clipped to [0, 1]."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = cv2.imencode(".jpg", to_bytes(y)[..., ::-1], options)[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], np.float32) / 255


def to_bytes(y: Array) -> Array:
    """Clipped, rounded 8-bit image."""
    return np.asarray(np.clip(y * 255, 0, 255).round(), np.uint8)


def constant_area(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Mask [H, W], True where a picture has no content: bars, a frame, a rectangle, or a ragged cut-out."""
    h, w = shape
    mask, kind = np.zeros((h, w), bool), rng.integers(5)
    a, b = (int(v) for v in rng.integers(1, max(2, min(h, w) // 2), 2))
    if kind == 0:
        mask[:a] = True
        mask[h - b * int(rng.integers(2)) :] = True
    elif kind == 1:
        mask[:, :a] = True
        mask[:, w - b * int(rng.integers(2)) :] = True
    elif kind == 2:
        mask[:] = True
        mask[a // 2 : h - a // 2, b // 2 : w - b // 2] = False
    elif kind == 3:
        i, j = int(rng.integers(h - a)), int(rng.integers(w - b))
        mask[i : i + a, j : j + b] = True
    else:
        blob = cv2.GaussianBlur(rng.standard_normal((h, w), np.float32), (0, 0), rng.uniform(3, 15), borderType=BORDER)
        mask = blob > np.quantile(blob, rng.uniform(0.4, 0.8))
    return mask
