"""Pictures that have little in common with the photographs that denoisers learn from, drawn by code."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Array = np.ndarray  # [H, W, 3] float32 in [0, 1]


def fractal(size: int, rng: np.random.Generator) -> Array:
    """Texture whose amplitude falls as frequency^-1.6, a little steeper than that of natural images, its channels alike."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1.0 / size
    common, own = (np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, size, size))) / frequency**1.6, (size, size)) for n in (1, 3))
    x = (common + 0.4 * own).transpose(1, 2, 0)
    return np.asarray(np.clip(0.5 + 0.18 * (x - x.mean()) / x.std(), 0, 1), np.float32)


def smooth(size: int, rng: np.random.Generator) -> Array:
    """Large smooth areas of strong colours with sharp borders."""
    canvas = cv2.resize(rng.random((3, 3, 3), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        shape = np.zeros((size, size), np.uint8)
        cv2.fillPoly(shape, [rng.integers(0, size, (4, 2))], 255, cv2.LINE_AA)
        alpha = shape[..., None] / np.float32(255)
        colour = rng.random(3, np.float32) ** rng.choice((0.2, 1, 5), 3)  # often close to 0 or 1
        canvas = (1 - alpha) * canvas + alpha * (colour + 0.1 * (canvas - 0.5))
    return np.asarray(np.clip(canvas, 0, 1), np.float32)


def flat(size: int, rng: np.random.Generator) -> Array:
    return np.broadcast_to(rng.uniform(0.2, 0.8, 3).astype(np.float32), (size, size, 3)).copy()


def gradient(size: int, rng: np.random.Generator) -> Array:
    """From one colour to another, diagonally: where an error shows as bands."""
    t = np.add.outer(np.arange(size), np.arange(size))[..., None] / (2 * size - 2)
    a, b = rng.random((2, 3))
    return np.asarray(a + (b - a) * t, np.float32)


def text(size: int, rng: np.random.Generator) -> Array:
    """Dark letters of three sizes on light ground."""
    page = np.full((size, size, 3), 245, np.uint8)
    line, y = "The quick brown fox jumps over 0123456789", 14
    while y < size:
        scale = float(rng.choice((0.35, 0.45, 0.7)))
        ink = tuple(int(v) for v in rng.integers(0, 90, 3))
        cv2.putText(page, line[int(rng.integers(len(line) // 2)) :], (4, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
        y += int(34 * scale) + 4
    return np.asarray(page, np.float32) / 255


def lines(size: int, rng: np.random.Generator) -> Array:
    """A line drawing: thin straight and round strokes, without shades."""
    page = np.full((size, size, 3), 255, np.uint8)
    for _ in range(24):
        a, b = (tuple(int(v) for v in p) for p in rng.integers(0, size, (2, 2)))
        cv2.line(page, a, b, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.circle(page, a, int(rng.integers(4, size // 4)), (30, 30, 160), 1, cv2.LINE_AA)
    return np.asarray(page, np.float32) / 255


def night(size: int, rng: np.random.Generator) -> Array:
    """A dark sky with stars of one to three pixels."""
    sky = np.linspace(0.02, 0.10, size, dtype=np.float32)[:, None, None] * np.array([0.5, 0.6, 1.0], np.float32)
    stars = np.zeros((size, size), np.float32)
    stars[tuple(rng.integers(0, size, (2, size // 2)))] = rng.uniform(0.2, 1, size // 2)
    stars = np.maximum(stars, cv2.GaussianBlur(stars, (0, 0), 0.7))
    return np.asarray(np.clip(sky + stars[..., None], 0, 1), np.float32)


def moire(size: int, rng: np.random.Generator) -> Array:
    """Rings that grow finer outwards, up to a period of three pixels."""
    y, x = np.mgrid[:size, :size] - size / 2
    rings = 0.5 + 0.4 * np.cos((x**2 + y**2) * (np.pi / 1.5) / size)
    return np.asarray(rings[..., None] * rng.uniform(0.5, 1, 3), np.float32)


def upscaled(size: int, rng: np.random.Generator) -> Array:
    """A texture three times enlarged."""
    return np.clip(cv2.resize(fractal(-(-size // 3), rng), (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def gray(size: int, rng: np.random.Generator) -> Array:
    """A texture without colour, stored in three channels."""
    return np.repeat(fractal(size, rng)[..., :1], 3, -1)


PICTURES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    f.__name__: f for f in (fractal, smooth, flat, gradient, text, lines, night, moire, upscaled, gray)
}


def letterboxed(noisy: Array, part: float = 0.2) -> Array:
    """The picture with black bars above and below, each `part` of its height, without noise in them."""
    bar = int(part * noisy.shape[0])
    box = noisy.copy()
    box[:bar] = box[len(box) - bar :] = 0
    return box


def white_noise(shape: tuple[int, ...], sigma: float, correlation: float, rng: np.random.Generator) -> Array:
    """N(0, sigma^2 / 255^2), independent over pixels, with that correlation between channels."""
    own, common = rng.standard_normal(shape), rng.standard_normal((*shape[:2], 1))
    return np.asarray(sigma / 255 * (np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common), np.float32)


def smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Array:
    """Noise as cameras store it: correlated over neighbours (0.6 at one pixel) and channels (0.7)."""
    n = cv2.GaussianBlur(white_noise(shape, 255.0, 0.7, rng), (0, 0), 0.72, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(sigma / 255 * n / n.std(), np.float32)
