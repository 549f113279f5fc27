"""Strength of denoising: position decides the dither, the strength how much is removed."""

from __future__ import annotations

import pytest
import torch

from fastbsn.inference.dither import LEVEL, dithered, white_noise


def test_noise_is_a_function_of_seed_frame_and_position() -> None:
    whole = white_noise(0, (0, 600, 0, 530), 3)
    assert (whole[:, 250:400, 100:513] == white_noise(0, (250, 400, 100, 513), 3)).all()
    assert not (whole == white_noise(1, (0, 600, 0, 530), 3)).any()
    assert not (whole == white_noise(0, (0, 600, 0, 530), 3, seed=1)).any()
    assert not (whole[:, :256, :256] == whole[:, 256:512, :256]).any()
    assert whole.std() == pytest.approx(1, abs=0.01) and abs(whole.mean()) < 0.01
    assert abs((whole[0] * whole[1]).mean()) < 0.01


def test_part_of_the_correction_below_one_and_dither_above() -> None:
    y, e = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)

    def shrink(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

    assert (dithered(shrink, y, e, 0.0) == y).all() and (dithered(shrink, y, e, 1.0) == 0.5 * y).all()
    torch.testing.assert_close(dithered(shrink, y, e, 0.5), 0.75 * y)
    torch.testing.assert_close(dithered(shrink, y, e, 2.0), 0.5 * y)  # what is linear in the addition cancels
    seen: list[torch.Tensor] = []
    dithered(lambda x: seen.append(x) or x, y, e, 3.0)
    torch.testing.assert_close(seen[0] - seen[1], 4 * LEVEL * e)
