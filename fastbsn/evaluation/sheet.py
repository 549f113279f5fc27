"""A contact sheet: noisy | denoised | clean at 100 %, from the image that gained least to the one that gained most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastbsn.errors import InputError
from fastbsn.evaluation.datasets import Pair
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.score import Image
from fastbsn.io.image_files import write_image

SIDE = 192  # pixels of the middle of an image that are shown
ROWS = 12
GAP = 4


class ContactSheet:
    """Collects the middle of every image as `evaluate` goes (`on_image`), and writes at most ROWS rows of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, np.ndarray]] = []  # gain in dB, uint8 [side, 3 * side + 2 * gap, 3]

    def add(self, pair: Pair, output: Image) -> None:
        gain = psnr(pair.clean, output) - psnr(pair.clean, np.clip(pair.noisy, 0, 1))
        self.rows.append((gain, np.concatenate([_tile(x) for x in (pair.noisy, output, pair.clean)], 1)[:, :-GAP]))

    def write(self, path: str | Path) -> None:
        """Write the sheet as PNG or JPEG.

        Raises:
            InputError: nothing was added.
        """
        if not self.rows:
            raise InputError(f"{path}: a contact sheet of no images; expected at least one pair")
        order = sorted(range(len(self.rows)), key=lambda i: self.rows[i][0])
        chosen = [order[round(i)] for i in np.linspace(0, len(order) - 1, min(ROWS, len(order)))]
        write_image(Path(path), np.concatenate([self.rows[i][1] for i in chosen])[:-GAP])


def _tile(x: Image) -> np.ndarray:
    """The middle of [C, H, W] in [0, 1] as uint8 [SIDE + GAP, SIDE + GAP, 3] on white."""
    h, w = x.shape[1:]
    top, left = max(0, (h - SIDE) // 2), max(0, (w - SIDE) // 2)
    part = np.clip(x[:, top : top + SIDE, left : left + SIDE] * 255, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
    tile = np.full((SIDE + GAP, SIDE + GAP, 3), 255, np.uint8)
    tile[: part.shape[0], : part.shape[1]] = part
    return tile
