"""Areas without noise: bars, borders, masks, transparent and missing pixels.

A blind network takes them for a picture without noise, and stops denoising beside them, as far as it sees. For the network they are
continued from the picture around them, noise included, by reflection; in the result they stand as they were.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIDE = 16  # pixels on a side of the smallest area: noise, and what JPEG makes of it, is not constant over so many
FILL = 128  # pixels that the picture is continued by: the receptive radius of the bundled networks
MARGIN = 2 * FILL  # pixels that the fill of one depends on, in both directions
_STEP = SIDE // 2
_BAND = 256  # rows or columns that are looked at together


def may_hold_areas(x: np.ndarray | Tensor) -> bool:
    """Whether [C, H, W] can hold an area: every one covers half a side of some row out of eight. Costs an eighth of a pass."""
    width = x.shape[-1] // _STEP * _STEP
    rows = x[..., ::_STEP, :width]
    candidates = np.ones((rows.shape[-2], width // _STEP), bool)
    for i in range(1, _STEP):  # most are gone after the first comparison
        if not candidates.any():
            return False
        y, k = np.nonzero(candidates)
        a, b = rows[:, y, _STEP * k + i - 1], rows[:, y, _STEP * k + i]
        candidates[y, k] = np.asarray(_same(a, b).all(0))
    return bool(candidates.any())


def _same(a: np.ndarray | Tensor, b: np.ndarray | Tensor) -> np.ndarray:
    """Equal, or both not finite."""
    a, b = (x.detach().cpu() if isinstance(x, Tensor) else x for x in (a, b))
    equal = a == b
    if isinstance(a, Tensor):
        return np.asarray(equal | ~(a.isfinite() | b.isfinite()) if a.is_floating_point() else equal)  # type: ignore[union-attr]
    return equal | ~(np.isfinite(a) | np.isfinite(b)) if a.dtype.kind == "f" else np.asarray(equal)


def find_areas(x: np.ndarray | Tensor) -> Tensor:
    """Where [C, H, W] is constant over a square of SIDE pixels, in all channels, or not finite: bool [H, W]."""
    h, w = x.shape[-2:]
    found = torch.zeros(h, w, dtype=torch.bool)
    if min(h, w) < SIDE:
        return found
    for top in range(0, h, _BAND):
        first, last = max(0, top - SIDE + 1), min(h, top + _BAND + SIDE - 1)
        band = x[:, first:last]
        if last - first >= SIDE and may_hold_areas(band):
            found[top : top + _BAND] = _areas(band)[top - first : top - first + _BAND]
    return found


def _areas(x: np.ndarray | Tensor) -> Tensor:
    rows, cols = (torch.from_numpy(_same(a, b).all(0)) for a, b in ((x[:, 1:], x[:, :-1]), (x[:, :, 1:], x[:, :, :-1])))
    flat = (_boxes(~rows, SIDE - 1, SIDE) == 0) & (_boxes(~cols, SIDE, SIDE - 1) == 0)  # by upper left corner
    spread = torch.zeros(x.shape[1] + SIDE - 1, x.shape[2] + SIDE - 1, dtype=torch.bool)
    spread[SIDE - 1 : SIDE - 1 + flat.shape[0], SIDE - 1 : SIDE - 1 + flat.shape[1]] = flat
    return _boxes(spread, SIDE, SIDE) > 0


def _boxes(x: Tensor, height: int, width: int) -> Tensor:
    """Sums over all boxes of height x width: [H, W] -> [H - height + 1, W - width + 1]."""
    total = torch.zeros(x.shape[0] + 1, x.shape[1] + 1, dtype=torch.int32)
    total[1:, 1:] = x.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    strips = total[height:] - total[:-height]
    return strips[:, width:] - strips[:, :-width]


def continue_picture(x: Tensor, areas: Tensor) -> Tensor:
    """[C, H, W] with the pixels of `areas` [H, W] replaced by reflections of the others: along rows, and where a row has none, columns.

    What lies further than FILL pixels from the picture stays.
    """
    valid = ~areas.to(x.device)
    if not valid.any():
        return x
    along_rows, known = torch.empty_like(x), torch.empty_like(valid)
    for band in _bands(x.shape[1]):  # indices take 8 bytes per pixel, several times
        source, reached = _reflect(valid[band])
        along_rows[:, band] = x[:, band].gather(2, source.expand_as(x[:, band]))
        known[band] = valid[band] | reached
    result = torch.empty_like(x)
    for band in _bands(x.shape[2]):
        columns = along_rows[:, :, band].mT
        source, _ = _reflect(known[:, band].T)
        result[:, :, band] = columns.gather(2, source.expand_as(columns)).mT
    return result


def _bands(size: int) -> list[slice]:
    return [slice(i, i + _BAND) for i in range(0, size, _BAND)]


def _reflect(valid: Tensor) -> tuple[Tensor, Tensor]:
    """For each of [H, W] the column that it takes its value from, its own where it is valid, and whether it takes one."""
    w = valid.shape[1]
    i = torch.arange(w, device=valid.device).expand_as(valid)
    before, start = torch.where(valid, i, -1).cummax(1).values, torch.where(valid, 0, i + 1).cummax(1).values
    after = torch.where(valid, i, w).flip(1).cummin(1).values.flip(1)
    end = torch.where(valid, w - 1, i - 1).flip(1).cummin(1).values.flip(1)
    left, right = torch.where(before >= 0, i - before, FILL + 1), torch.where(after < w, after - i, FILL + 1)
    back = left <= right
    distance, edge = torch.where(back, left, right), torch.where(back, before, after).clamp(0, w - 1)
    length = torch.where(back, edge - start.gather(1, edge), end.gather(1, edge) - edge).clamp(max=FILL)  # of the run, without its edge
    period = (2 * length).clamp(min=1)
    step = distance % period
    step = torch.minimum(step, period - step) * (length > 0)
    reached = ~valid & (distance <= FILL)
    return torch.where(reached, torch.where(back, edge - step, edge + step), i), reached
