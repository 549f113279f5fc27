"""Memory: a large image within its bound, and running out of it at any tile."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastbsn.backends import reference
from fastbsn.errors import BackendError
from tests.reliability.numbers import cases
from tests.tiny import tiny_denoiser, tiny_teacher

SCRIPT = """
import re, sys, numpy as np, torch
def memory(name):  # of this program alone; ru_maxrss starts at the parent's
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
libraries = memory("VmRSS") if torch.version.cuda else 0  # a build with CUDA loads 300 MB that nothing here uses
from fastbsn.inference import tiling
from tests.tiny import tiny_denoiser
d = tiny_denoiser(1, depth=1)
x = np.full((int(sys.argv[1]) // 6000, 6000), 100, np.uint8)
tiling.LARGE = min(tiling.LARGE, x.size)
y = d(x)
assert y.shape == x.shape and y.any()
print(memory("VmHWM"), 2.5 * x.nbytes + 512 * 2**20 + libraries)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_a_large_image_stays_within_its_bound():
    pixels = cases("G5 pixels of the large image")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(pixels)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    peak, bound = map(float, done.stdout.split())
    assert peak <= bound


def starved(failing: set[int], limit: float = np.inf):
    """A denoiser that blurs, but runs out of memory on the calls in `failing` or on more than `limit` pixels; and its calls."""
    d, calls = tiny_denoiser(), []

    def blur(x):
        calls.append(x.shape[-2] * x.shape[-1])
        if len(calls) - 1 in failing or calls[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return F.avg_pool2d(x, 9, 1, 4, count_include_pad=False)

    object.__setattr__(d.prepared_, "run", blur)
    return d, calls


@pytest.mark.goal("G10 out of memory, tiles", count=64)
def test_out_of_memory_at_every_tile_changes_nothing(rng):
    x = rng.integers(0, 256, (64, 64), np.uint8)
    clean = starved(set())[0](x, tile=8)
    for k in range(64):
        d, calls = starved({k})
        np.testing.assert_array_equal(d(x, tile=8), clean)
        assert len(calls) >= 65


@pytest.mark.goal("G10 nested shrinks", count=3)
def test_three_nested_shrinks(rng):
    x = rng.random((128, 128)).astype(np.float32)
    clean = starved(set())[0](x, tile=None)
    d, calls = starved({0, 1, 2})
    np.testing.assert_allclose(d(x, tile=None), clean, rtol=1e-6)
    assert calls[0] == 128 * 128 and calls[0] >= 2 * calls[1] >= 4 * calls[2] >= 8 * calls[3]


def test_a_teacher_shrinks_too(rng):
    d, x = tiny_teacher(), rng.random((48, 48)).astype(np.float32)
    y, sigma = d(x, return_sigma=True, tile=None)
    run = d.prepared_.run

    def limited(x):
        if x.shape[-2] * x.shape[-1] > 40 * 48:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return run(x)

    object.__setattr__(d.prepared_, "run", limited)
    y2, sigma2 = d(x, return_sigma=True, tile=None)
    np.testing.assert_allclose(y2, y, atol=1e-5)
    np.testing.assert_allclose(sigma2, sigma, rtol=1e-5)


def test_memory_that_never_suffices_is_an_error_and_leaves_the_input_alone(rng):
    d, x = starved(set(), limit=0)[0], rng.random((64, 64)).astype(np.float32)
    before = x.copy()
    with pytest.raises(BackendError, match="out of memory on a window"):
        d(x)
    assert np.array_equal(x, before)


def test_an_allocation_that_the_system_refuses_is_caught(monkeypatch):
    d, x = tiny_denoiser(), np.zeros((64, 64), np.uint8)
    original, calls = reference._Noise.run, []

    def run(self, layers, at):
        calls.append(next(iter(at.values())).shape[-2:])
        if len(calls) == 1:
            torch.empty(2**60, dtype=torch.uint8)
        return original(self, layers, at)

    monkeypatch.setattr(reference._Noise, "run", run)
    assert d(x, tile=None).shape == (64, 64)
    assert calls[-1][0] * calls[-1][1] < 64 * 64
