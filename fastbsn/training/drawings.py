"""Pictures drawn at random: what photographs hold little of, and a denoiser meets all the same.

Gratings, lines, dots, letters, areas and gradients. None of the pictures of `fastbsn.evaluation.drawn`, for tests, comes from here.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Array = np.ndarray  # [size, size, 3] float32
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:()[]{}<>=+-*/&%$#@!?"


def picture(size: int, rng: np.random.Generator) -> Array:
    """One picture [size, size, 3] float32 in [0, 1]: a ground, and one to three kinds of things on it; one in four without colour."""
    x = _ground(size, rng)
    for index in rng.choice(len(THINGS), int(rng.integers(0, 4)), replace=False):
        x = THINGS[index](x, rng)
    if rng.random() < 0.2:  # as if enlarged
        part = x[: size // 2 + 1, : size // 2 + 1]
        x = cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.25:
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1)
    return np.asarray(np.clip(x, 0, 1), np.float32)


def _colour(rng: np.random.Generator) -> Array:
    """[3] float32, often black, white or close to a corner of the cube."""
    kind = rng.random()
    if kind < 0.3:
        return np.full(3, rng.choice([0.0, 1.0]), np.float32)
    return np.asarray(rng.random(3) ** rng.choice((0.2, 1.0, 5.0), 3), np.float32)


def _ground(size: int, rng: np.random.Generator) -> Array:
    """One colour, or a gradient between two."""
    a, b = _colour(rng), _colour(rng)
    if rng.random() < 0.4:
        return np.broadcast_to(a, (size, size, 3)).astype(np.float32)
    direction = rng.standard_normal(2)
    y, x = np.mgrid[:size, :size] / size
    t = y * direction[0] + x * direction[1]
    t = (t - t.min()) / np.ptp(t)
    return np.asarray(a + rng.uniform(0.02, 1) * (b - a) * t[..., None] ** rng.uniform(0.5, 2), np.float32)


def _inked(x: Array, mask: Array, colour: Array) -> Array:
    alpha = mask[..., None].astype(np.float32) / 255
    return np.asarray((1 - alpha) * x + alpha * colour, np.float32)


def _grating(x: Array, rng: np.random.Generator) -> Array:
    """Waves whose period, down to 2.2 pixels, is the same or changes over the picture; smooth or as stripes."""
    size = len(x)
    v, u = np.mgrid[:size, :size] - rng.uniform(-0.5, 1.5, (2, 1, 1)) * size
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2.2), np.log(24)))
    phase = 2 * np.pi / period * (u * np.cos(angle) + v * np.sin(angle))
    if rng.random() < 0.5:  # rings, or a sweep: the highest frequency is that of the period
        square = u**2 + v**2 if rng.random() < 0.6 else u**2
        phase = np.pi / period * square / np.sqrt(square.max())
    wave = np.cos(phase + rng.uniform(0, 2 * np.pi))
    wave = np.sign(wave) if rng.random() < 0.2 else wave
    return np.asarray(x + rng.uniform(0.03, 0.5) * wave[..., None] * (_colour(rng) - 0.5 * rng.random()), np.float32)


def _strokes(x: Array, rng: np.random.Generator) -> Array:
    """Thin straight and round lines, smoothed or not."""
    size, mask = len(x), np.zeros(x.shape[:2], np.uint8)
    for _ in range(int(rng.integers(2, 20))):
        a, b = (tuple(int(v) for v in p) for p in rng.integers(-size // 4, size + size // 4, (2, 2)))
        width, kind = int(rng.choice((1, 1, 1, 2, 3))), cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8
        if rng.random() < 0.6:
            cv2.line(mask, a, b, 255, width, kind)
        else:
            cv2.ellipse(
                mask, a, (int(rng.integers(2, size)), int(rng.integers(2, size))), float(rng.uniform(0, 180)), 0, 360, 255, width, kind
            )
    return _inked(x, mask, _colour(rng))


def _dots(x: Array, rng: np.random.Generator) -> Array:
    """Points of light or dark, from one pixel on: stars, dust, leaves far away."""
    size, n = len(x), int(np.exp(rng.uniform(np.log(3), np.log(400))))
    points = np.zeros((size, size), np.float32)
    points[tuple(rng.integers(0, size, (2, n)))] = rng.random(n) ** rng.uniform(0.5, 3)
    blurred = cv2.GaussianBlur(points, (0, 0), rng.uniform(0.4, 1.6))
    return np.asarray(x + (blurred / max(float(blurred.max()), 1e-6))[..., None] * (_colour(rng) - x), np.float32)


def _letters(x: Array, rng: np.random.Generator) -> Array:
    size, mask, y = len(x), np.zeros(x.shape[:2], np.uint8), int(rng.integers(6, 24))
    font, scale = int(rng.integers(0, 8)), rng.uniform(0.3, 1.4)
    while y < size + 20:
        text = "".join(rng.choice(list(LETTERS), 24))
        cv2.putText(mask, text, (-int(rng.integers(10)), y), font, scale, 255, int(rng.integers(1, 3)), cv2.LINE_AA)
        y += int(26 * scale) + int(rng.integers(3, 12))
    return _inked(x, mask, _colour(rng))


def _areas(x: Array, rng: np.random.Generator) -> Array:
    """Polygons of one colour, or that shift the ground's."""
    size = len(x)
    for _ in range(int(rng.integers(1, 7))):
        mask = np.zeros(x.shape[:2], np.uint8)
        corners = rng.integers(-size // 4, size + size // 4, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8)
        x = _inked(x, mask, _colour(rng) if rng.random() < 0.7 else x + rng.uniform(-0.3, 0.3))
    return x


def _chequers(x: Array, rng: np.random.Generator) -> Array:
    y, u = np.mgrid[: len(x), : len(x)] // rng.integers(1, 12, (2, 1, 1))
    return np.asarray(x + rng.uniform(0.05, 0.8) * (((y + u) % 2)[..., None] - 0.5) * _colour(rng), np.float32)


THINGS: tuple[Callable[[Array, np.random.Generator], Array], ...] = (_grating, _strokes, _dots, _letters, _areas, _chequers)
