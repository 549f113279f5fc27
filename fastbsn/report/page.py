"""The report of `fastbsn fit` and `fastbsn denoise`: collected image by image, written at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbsn.io.atomic import write_text
from fastbsn.report.curve import HEIGHT, WIDTH, Curve, draw
from fastbsn.report.view import data_url, noise_found, picture, slider, templates, view
from fastbsn.version import __version__

PICTURES, SIDE = 12, 640  # shown at most, and pixels on a side of the part of each


class Report:
    """What a run did. Nothing but the shown parts of the first PICTURES images is kept, so that any number may be added.

    Args:
        title: of the page.
        facts: (name, value) of what was asked for and found.
        curves: of the training, where there was one.
    """

    def __init__(self, title: str, facts: dict[str, str] | None = None, curves: list[Curve] | None = None) -> None:
        self.title, self.facts, self.curves = title, dict(facts or {}), list(curves or [])
        self._rows: list[tuple[str, ...]] = []
        self._sliders: list[tuple[str, str]] = []  # (name, HTML)
        self._failed: list[str] = []

    def add(self, name: str, before: NDArray, after: NDArray, axes: str, seconds: float) -> None:
        """An image that was denoised; a stack is represented by the picture in its middle.

        Args:
            name: of the image.
            before, after: arrays of one shape.
            axes: one letter per axis, such as "YXC".
            seconds: that it took.
        """
        noisy, clean = picture(before, axes), picture(after, axes)
        change = float(np.sqrt(np.nanmean((clean.astype(np.float32) - noisy.astype(np.float32)) ** 2)))
        size = " x ".join(f"{n}" for n in before.shape)
        self._rows.append((name, f"{before.dtype} {size}", f"{noise_found(noisy):.3g}", f"{change:.3g}", f"{seconds:.2f}"))
        if len(self._sliders) < PICTURES:
            top, left = (max(0, (n - SIDE) // 2) for n in noisy.shape[:2])
            window = slice(top, top + SIDE), slice(left, left + SIDE)
            shown = view(noisy[window], clean[window])
            height, width = shown.before.shape[:2]
            self._sliders.append((name, slider(name, data_url(shown.before), data_url(shown.after), height, width)))

    def fail(self, message: str) -> None:
        """An image that could not be denoised: the sentence that says why."""
        self._failed.append(message)

    def write(self, path: str | Path) -> None:
        """Write the page to one file that needs no other and no network.

        Raises:
            StorageError: the write did not complete.
        """
        drawings = [drawing for curve in self.curves if (drawing := draw(curve))]
        page = templates().get_template("page.html")
        write_text(
            path,
            page.render(
                title=self.title,
                version=__version__,
                facts=self.facts,
                drawings=drawings,
                width=WIDTH,
                height=HEIGHT,
                sliders=self._sliders,
                rows=self._rows,
                failed=self._failed,
            ),
        )
