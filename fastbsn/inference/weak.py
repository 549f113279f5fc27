"""Nearly clean images: how much of the input to keep, so that a network which knows stronger noise does no harm.

Let y = x + n be the image, f(y) the network's result, and d = y - f(y). Of all blends f(y) + w d the best has
w = 1 - s^2 (1 - div f) / E[d^2] for white noise of variance s^2, by Stein's lemma (Annals of Statistics, 1981): where more is removed
than the noise explains, it was part of the picture. The divergence per pixel, div f, is measured with one random probe (Ramani, Blu,
Unser, IEEE TIP 2008). On texture s is too large and w too small, so from 1/2 on all of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.inference.frames import GLANCE, SAMPLES, Frames
from fastbsn.nets import noise_level

WEAK = 1.25 / 255  # noise from which the bundled networks gain on nearly all images, and nothing is kept
SIDE, WINDOWS = 256, 4  # pixels on a side, and number, of the windows that speak for an image
ALL = 0.5  # part from which all is kept
_BLOCK = 8
_FLATTEST, _GROUPS = 0.1, 3  # of the blocks, by brightness: a camera's noise depends on it
_PROBE = 1 / 255


def _flat_level(pieces: list[Tensor]) -> float:
    """Standard deviation of the diagonal differences in the flattest blocks of pieces [C, h, w], the median of dark, middle and bright
    blocks, scaled to that of white noise; infinite, that is unknown, where a piece holds no block."""
    if min(min(piece.shape[1:]) for piece in pieces) < _BLOCK:
        return float("inf")
    level, brightness = [], []
    for piece in pieces:
        h, w = (size // _BLOCK * _BLOCK for size in piece.shape[1:])
        x = piece[:, :h, :w]
        diagonal = (x[:, 1:, 1:] - x[:, 1:, :-1] - x[:, :-1, 1:] + x[:, :-1, :-1]) / 2
        square = F.pad(diagonal.square().mean(0), (0, 1, 0, 1))  # differences between blocks are left out
        square = square.view(h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK)[:, :-1, :, :-1]
        level.append(square.mean((1, 3)).flatten())
        brightness.append(x.mean(0).view(h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK).mean((1, 3)).flatten())
    variance, order = torch.cat(level), torch.cat(brightness).argsort()
    groups = [variance[group].sort().values for group in order.chunk(_GROUPS)]
    flattest = torch.stack([g[: max(1, int(_FLATTEST * len(g)))].mean() for g in groups])
    return float((flattest.median() / (0.573 if pieces[0].shape[0] == 1 else 0.736)).sqrt())  # measured on white noise


def _level(pieces: list[Tensor]) -> float | None:
    """The larger of two estimates of the noise; None where it is not weak."""
    flat = _flat_level(pieces)
    level = max(flat, noise_level(pieces)) if flat < WEAK else flat
    return level if level < WEAK else None


def kept_part(frames: Frames, frame: int, run: Callable[[Tensor], Tensor], device: torch.device) -> Tensor | None:
    """The part w of what the network removes that is put back, [batch, 1, 1, 1] in 0 to 1; None where it is nothing.

    Args:
        frames, frame: the image.
        run: the network on windows [batch, C, h, w] on `device`.
        device: of the network.
    """
    glance = [frames.read(frame, box) for box in frames.boxes(GLANCE, SAMPLES)]
    if min(_flat_level([window[i] for window in glance]) for i in range(frames.batch)) > 1.5 * WEAK:
        return None
    windows = [frames.read(frame, box) for box in frames.boxes(SIDE, WINDOWS)]
    levels = [_level([window[i] for window in windows]) for i in range(frames.batch)]
    if not any(levels):
        return None
    generator = torch.Generator().manual_seed(0)
    removed, divergence = torch.zeros(2, frames.batch, dtype=torch.float64)
    for window in windows:
        y, probe = window.to(device), (2 * torch.randint(0, 2, window.shape, generator=generator) - 1).to(device)
        clean = run(y)
        removed += (y - clean).double().square().sum((1, 2, 3)).cpu()
        divergence += (probe * (run(y + _PROBE * probe) - clean).double()).sum((1, 2, 3)).cpu() / _PROBE
    values = sum(window[0].numel() for window in windows)
    noise = torch.tensor([level or torch.inf for level in levels], dtype=torch.float64) ** 2
    explained = noise * (1 - divergence / values).clamp(0, 1) / (removed / values).clamp(min=1e-12)
    kept = (1 - explained).nan_to_num(0).clamp(0, 1).float()[:, None, None, None]
    kept = torch.where(kept >= ALL, 1.0, kept)
    return kept if kept.any() else None
