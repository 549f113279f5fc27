"""The contact sheet: every row a pair, from the smallest gain to the largest."""

from __future__ import annotations

import numpy as np
import pytest

from fastbsn import InputError
from fastbsn.evaluation.datasets import Pair
from fastbsn.evaluation.sheet import GAP, ROWS, SIDE, ContactSheet
from fastbsn.io.image_files import read_image


def test_rows_are_ordered_by_gain_and_show_the_middle(tmp_path):
    sheet = ContactSheet()
    for value in (0.9, 0.1, 0.5):  # the larger the value, the smaller the error of the output
        clean = np.full((3, SIDE + 40, SIDE + 10), value, np.float32)
        sheet.add(Pair("x", clean + 0.1, clean), clean + np.float32(0.11 - 0.1 * value))
    sheet.write(tmp_path / "sheet.png")
    found = read_image(tmp_path / "sheet.png")
    assert found.shape == (3 * SIDE + 2 * GAP, 3 * SIDE + 2 * GAP, 3)
    middles = [found[i * (SIDE + GAP) + SIDE // 2, 2 * (SIDE + GAP) + SIDE // 2, 0] for i in range(3)]
    assert middles == [26, 128, 230]
    assert (found[SIDE : SIDE + GAP] == 255).all() and (found[:, SIDE : SIDE + GAP] == 255).all()


def test_many_gray_and_small_images(tmp_path):
    sheet = ContactSheet()
    for i in range(3 * ROWS):
        x = np.full((1, 20, 30), i / 100, np.float32)
        sheet.add(Pair(str(i), x, x + 0.01), x)
    sheet.write(tmp_path / "sheet.jpg")
    assert read_image(tmp_path / "sheet.jpg").shape == (ROWS * (SIDE + GAP) - GAP, 3 * SIDE + 2 * GAP, 3)
    with pytest.raises(InputError, match="at least one pair"):
        ContactSheet().write(tmp_path / "none.png")
