"""Networks -> clean image and standard deviations, on tensors, in tiles: what the facade and the labels have in common."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastbsn.backends import Prepared, select
from fastbsn.errors import InputError, WeightsError
from fastbsn.inference import dither, tiling
from fastbsn.inference.frames import Frames
from fastbsn.inference.refine import denoise_correlated
from fastbsn.inference.tiling import Box, Grid
from fastbsn.inference.weak import Kept, find_kept
from fastbsn.nets import Network, NoiseModel, noise_level, posterior_mean, posterior_std

logger = logging.getLogger("fastbsn")
Tile = str | int | tuple[int, int] | None


class Estimate(NamedTuple):
    """Clean estimate [N, C, H, W]; standard deviations of its error and of the noise, broadcastable, or None."""

    image: Tensor
    error: Tensor | None
    noise: Tensor | None


class Predictor:
    """A student, or a teacher with Bayes' rule or refinement, prepared for one device. Nothing but tensors goes in and out.

    Args:
        networks: "student" or "teacher" (`Network`), and "noise_model" (`NoiseModel`) where there is one; weights are copied.
        noise: kind of the noise that a teacher was trained on; "correlated" is refined with random masks instead of Bayes' rule.
        device, backend, dtype: what runs the network, see `fastbsn.backends.select`.

    Attributes:
        networks: the networks given.
        prepared: what runs, where and why.
        channels: number of channels of the image.
        noise: the kind of noise given.

    Raises:
        BackendError: a device or backend asked for by name cannot be used; the message is the reason.
        WeightsError: neither a student nor a teacher.
    """

    def __init__(
        self, networks: dict[str, nn.Module], noise: str = "gaussian", device: str = "auto", backend: str = "auto", dtype: str = "auto"
    ):
        net, model = networks.get("student", networks.get("teacher")), networks.get("noise_model")
        if not isinstance(net, Network) or not isinstance(model, NoiseModel | None):
            raise WeightsError(f"the weights hold {', '.join(networks) or 'no networks'}; expected 'student' (UNet) or 'teacher' (DBSN)")
        self.networks = networks
        self.prepared: Prepared = select(net, device, backend, dtype)
        self.channels, self.noise, self.is_teacher = net.channels, noise, net.kind == "teacher"
        self.noise_model = None if model is None else copy.deepcopy(model).eval().to(self.prepared.device)
        self._refines = self.is_teacher and noise == "correlated"

    @property
    def gives_noise(self) -> bool:
        """Whether it knows the standard deviation of the noise."""
        return self.noise_model is not None and not self._refines

    @property
    def gives_error(self) -> bool:
        """Whether it knows the standard deviation of its own error."""
        return self.is_teacher and self.gives_noise

    def estimate(self, y: Tensor, level: Tensor | None = None) -> Estimate:
        """One window, or a batch of them.

        Args:
            y: noisy images [N, C, H, W], float32 in [0, 1] units, on the device.
            level: standard deviations of the noise of the images that they are cut from, [N, 1, 1, 1], see `level`; "gaussian" only.
        """
        if self._refines:
            return Estimate(denoise_correlated(lambda x: self.prepared(x)[0], y), None, None)
        model = self.noise_model
        if not self.is_teacher:
            image = self.prepared(y)
            return Estimate(image, None, level if level is not None or model is None else _deviation(model.noise(image)))
        mu, features = self.prepared(y)
        if model is None:
            return Estimate(mu, None, None)
        s = model(y, mu, features)
        s = s if level is None else s._replace(n=level)
        return Estimate(posterior_mean(y, mu, s), posterior_std(s), _deviation(s.n))

    def estimate_at(
        self, y: Tensor, level: Tensor | None, strength: float, noise: Callable[[], Tensor], kept: Kept | None = None
    ) -> Estimate:
        """`estimate` at a strength above 0; `noise` gives N(0, 1) noise [N, C, H, W] for one above 1, see `inference.dither`; `kept`: what
        is put back, see `inference.weak`."""
        if strength > 1:
            e = noise().view(y.shape).to(y) * dither.level(strength)
            plus, minus = self.estimate(y + e, level), self.estimate(y - e, level)
            return plus._replace(image=(plus.image + minus.image) / 2)
        found = self.estimate(y, level)
        if kept is not None:
            found = found._replace(image=kept.restore(y, found.image))
        return found if strength == 1 else found._replace(image=torch.lerp(y, found.image, strength))

    def kept(self, frames: Frames, frame: int, strength: float = 1.0) -> Kept | None:
        """See `inference.weak`; None for what is not a student of white noise, and for strengths above 1."""
        if self.is_teacher or self.noise != "gaussian" or strength > 1:
            return None
        return find_kept(frames, frame, self.prepared, self.prepared.device)

    def level(self, frames: Frames, frame: int) -> Tensor:
        """Standard deviation of the noise in one frame, [batch, 1, 1, 1], measured on windows spread over it."""
        pieces = frames.samples(frame)
        return torch.tensor([noise_level([p[i] for p in pieces]) for i in range(frames.batch)])[:, None, None, None]

    def levels(self, frames: Frames) -> list[Tensor]:
        """`level` of every frame, where the noise is the same at every pixel; else nothing."""
        gaussian = self.noise_model is not None and self.noise_model.kind == "gaussian"
        return [self.level(frames, frame) for frame in range(frames.count)] if gaussian else []

    def grid(self, frames: Frames, tile: Tile = "auto") -> Grid:
        """How frames are cut: see `Denoiser.__call__` for `tile`."""
        p, h, w = self.prepared, frames.height, frames.width
        if self._refines or tile is None:
            chosen = h, w
        elif tile == "auto":
            held = h * w if frames.count and frames.areas(0) is not None else 0
            limit = tiling.budget(p.device, p.bytes_per_pixel * frames.batch, h * w, frames.nbytes, held)
            chosen = tiling.choose_tile(h, w, p.radius, p.multiple, limit)
        else:
            chosen = _size(tile)
        return Grid(h, w, chosen, p.radius, p.multiple)

    @torch.no_grad()
    def run(
        self,
        frames: Frames,
        tile: Tile = "auto",
        sigma: bool | str = False,
        levels: list[Tensor] | None = None,
        progress: bool = False,
        strength: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Denoise all frames into themselves.

        Args:
            frames: read and written in windows.
            tile: size of a tile, see `grid`.
            sigma: write no standard deviation (False), that of the noise (True) or that of the error ("posterior").
            levels: result of `levels`, where it is known; measured otherwise, on whole frames: a tile is judged as a part of its image.
            progress: show a progress bar.
            strength: how much is removed, see `Denoiser.__call__`.
            seed: seed of the dither.

        Raises:
            InputError: the result is not finite. BackendError: out of memory with the smallest tiles.
        """
        if strength == 0:
            for frame in range(frames.count):
                frames.copy(frame)
            return
        grid, device = self.grid(frames, tile), self.prepared.device
        if levels is None:
            levels = self.levels(frames) if self.is_teacher or sigma else []

        kept: dict[int, Kept | None] = {}  # of the frame at hand

        def work(frame: int, box: Box, window: Box) -> None:
            if frame not in kept:
                kept.clear()
                if found := frames.defects(frame):
                    logger.warning("%s, mended first; --repair off (repair='off') leaves them", found)
                kept[frame] = self.kept(frames, frame, strength)
            y = frames.read(frame, window).to(device)
            level = levels[frame].to(y) if levels else None
            channels = y.shape[0] * y.shape[1]
            image, error, noise = self.estimate_at(
                y, level, strength, lambda: dither.white_noise(frame, window, channels, seed), kept[frame]
            )
            rows, cols = slice(box[0] - window[0], box[1] - window[0]), slice(box[2] - window[2], box[3] - window[2])
            image = image[..., rows, cols]
            if not image.isfinite().all():
                raise InputError(f"the result is not finite around pixel {box[0], box[2]}; check data_range, or use dtype='float32'")
            frames.write(frame, box, image)
            deviation = error if sigma == "posterior" else noise
            if sigma and deviation is not None:
                frames.write_sigma(frame, box, deviation.expand(*image.shape[:2], *y.shape[2:])[..., rows, cols])

        release: Callable[[], None] | None = torch.cuda.empty_cache if device.type == "cuda" else None
        with tqdm(total=frames.count * grid.height * grid.width, unit="px", unit_scale=True, disable=not progress) as bar:
            tiling.run(frames.count, grid, work, bar.update, release)


def _size(tile: Any) -> tuple[int, int]:
    """(height, width) of a tile that is given as one whole number or two, numpy's included."""
    try:
        sides = tuple(map(index, tile if isinstance(tile, tuple) else (tile, tile)))
    except TypeError:
        sides = ()
    if len(sides) != 2:
        raise InputError(f"tile={tile!r}; expected 'auto', None, a size in pixels or (height, width)")
    return sides


def _deviation(n: Tensor) -> Tensor:
    """Standard deviations [N, C, H, W] of `Noise.n`, which may hold 3x3 factors [N, H, W, 3, 3]."""
    return n if n.ndim == 4 else (n**2).sum(-1).sqrt().permute(0, 3, 1, 2)
