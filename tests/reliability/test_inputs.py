"""Any shape, dtype and layout; pixels that are not finite; the same bits every time."""

import hashlib
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from tests.reliability.numbers import cases
from tests.tiny import tiny_denoiser

SIZES = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65)
DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "strided and read-only": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1].transpose(2, 1, 0)).transpose(2, 1, 0)[::-1, ::-1],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_shapes_channels_dtypes_and_layouts(rng):
    grid = list(product(SIZES, SIZES, (1, 3, 4), DTYPES, LAYOUTS))
    assert len(grid) == 8820
    chosen = rng.permutation(len(grid))[: cases("G4 shapes, channels, dtypes, layouts")]
    gray, colour = tiny_denoiser(1), tiny_denoiser(3)
    for h, w, c, dtype, layout in (grid[i] for i in chosen):
        case = f"{h} x {w} x {c}, {dtype}, {layout}"
        values = rng.random((h, w, c)) * (np.iinfo(dtype).max if dtype[0] == "u" else 1)
        x = LAYOUTS[layout](values.astype(dtype))
        x.flags.writeable = layout != "strided and read-only"
        before, d = x.copy(), gray if c == 1 else colour
        y = d(x, channel_axis=-1)
        assert type(y) is np.ndarray and y.dtype == x.dtype and y.shape == x.shape, case
        assert np.array_equal(x, before) and not np.shares_memory(x, y), case
        assert np.isfinite(y).all() and (y.size == 0 or not np.array_equal(y[..., :3], x[..., :3])), case
        assert np.array_equal(y, d(before.copy(), channel_axis=-1)), case
        if c == 4:
            assert np.array_equal(y[..., 3], x[..., 3]), case


def test_pixels_that_are_not_finite(rng):
    d = tiny_denoiser()
    radius = d.prepared_.radius + d.prepared_.multiple - 1  # the halo is that of tiles that start at multiples
    for _ in range(cases("G6 images with non-finite pixels")):
        h, w = (int(n) for n in rng.integers(1, 90, 2))
        x = rng.random((h, w)).astype(rng.choice([np.float16, np.float32, np.float64]))
        clean = d(x)
        bad = np.zeros((h, w), bool)
        bad[rng.integers(h, size=3), rng.integers(w, size=3)] = True
        x[bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
        before = x.copy()
        y = d(x)
        assert np.isfinite(y).all() and np.array_equal(x, before, equal_nan=True)
        far = np.ones((h, w), bool)
        for i, j in zip(*bad.nonzero(), strict=True):
            far[max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1] = False
        assert np.array_equal(y[far], clean[far])
        kept = d(x, nonfinite="keep")
        assert np.array_equal(kept[bad], x[bad], equal_nan=True) and np.array_equal(kept[~bad], y[~bad])


def test_an_image_without_a_finite_pixel():
    y = tiny_denoiser()(np.full((40, 30), np.nan, np.float32))
    assert np.isfinite(y).all()


SCRIPT = """
import hashlib, numpy as np
from tests.tiny import tiny_denoiser
d = tiny_denoiser(3, channels=12)
print(hashlib.sha256(d(np.random.default_rng(0).random((40, 30, 3))).tobytes()).hexdigest())
"""


def test_the_same_input_gives_the_same_bits(rng):
    d, x = tiny_denoiser(3, channels=12), np.random.default_rng(0).random((40, 30, 3))
    first = d(x)
    for _ in range(cases("G17 repeats")):
        assert np.array_equal(d(x), first)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == hashlib.sha256(first.tobytes()).hexdigest(), done.stderr
