"""Denoiser.stream: order, kinds and laziness, with and without a backend that streams by itself."""

from collections import deque

import numpy as np
import pytest
import torch

from fastbsn import InputError
from tests.tiny import tiny_denoiser


class Pipeline:
    """Stands in for a backend that takes integers as they are and works on three frames at a time."""

    def __init__(self, run):
        self.run, self.taken, self.frames = run, 0, []

    def __call__(self, x):
        return self.run(x)

    def stream(self, frames):
        waiting = deque()
        for x in frames:
            self.taken += 1
            self.frames.append((x.dtype, tuple(x.shape)))
            full = {torch.uint8: 255, torch.uint16: 65535}.get(x.dtype, 1)
            y = self.run(x.float() / full) * full
            waiting.append((y.round().clamp(0, full) if full > 1 else y).to(x.dtype))
            if len(waiting) == 3:
                yield waiting.popleft()
        yield from waiting


def frames_of_every_kind(rng):
    image = pytest.importorskip("PIL.Image")
    colour = rng.integers(0, 256, (6, 9, 20, 3), np.uint8)
    frozen = colour[0].copy()
    frozen.flags.writeable = False
    return [
        *colour,
        frozen,
        colour[1, ::-1, ::2],
        image.fromarray(colour[2]),
        image.fromarray(rng.integers(0, 256, (9, 20, 4), np.uint8), "RGBA"),
        rng.integers(0, 65536, (8, 12, 3)).astype(np.uint16),
        rng.random((8, 12, 3)),
        torch.from_numpy(rng.random((3, 8, 12)).astype(np.float32)),
        np.full((8, 12, 3), np.nan, np.float32),
    ]


@pytest.mark.parametrize("backend_streams", [False, True])
def test_a_stream_gives_what_calls_give(rng, backend_streams):
    d, frames = tiny_denoiser(3), frames_of_every_kind(rng)
    expected = [d(x) for x in frames]
    if backend_streams:
        object.__setattr__(d.prepared_, "run", Pipeline(d.prepared_.run))
    got = list(d.stream(iter(frames)))
    assert [type(x) for x in got] == [type(x) for x in frames]
    for a, b in zip(got, expected, strict=True):
        assert str(np.asarray(a).dtype) == str(np.asarray(b).dtype)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5 if np.asarray(a).dtype.kind == "f" else 1)
    if backend_streams:  # all but alpha, float64 and NaN
        assert len(d.prepared_.run.frames) == len(frames) - 3
        assert d.prepared_.run.frames[0] == (torch.uint8, (1, 3, 9, 20))


def test_a_stream_is_lazy_and_reads_few_frames_ahead(rng):
    d = tiny_denoiser()
    object.__setattr__(d.prepared_, "run", Pipeline(d.prepared_.run))
    source = iter(np.full((100, 8, 8), 7, np.uint8))
    results = d.stream(source)
    assert d.prepared_.run.taken == 0
    next(results)
    assert d.prepared_.run.taken == 3


def test_a_gray_model_takes_channels_as_a_batch(rng):
    d, x = tiny_denoiser(), rng.integers(0, 256, (9, 20, 3), np.uint8)
    expected = d(x)
    object.__setattr__(d.prepared_, "run", Pipeline(d.prepared_.run))
    np.testing.assert_allclose(next(d.stream([x])).astype(int), expected.astype(int), atol=1)
    assert d.prepared_.run.frames == [(torch.uint8, (3, 1, 9, 20))]


def test_a_bad_frame_is_an_error_at_its_turn(rng):
    results = tiny_denoiser().stream([np.zeros((8, 8), np.uint8), "no image"])
    assert next(results).shape == (8, 8)
    with pytest.raises(InputError, match="got str"):
        next(results)
