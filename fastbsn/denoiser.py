"""The drop-in object: an image of any kind in, the same kind of image out."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastbsn.backends import Prepared, resolve_device, resolve_dtype
from fastbsn.errors import BackendError, InputError
from fastbsn.inference.dither import STRONGEST
from fastbsn.inference.frames import Frames
from fastbsn.inference.predictor import Predictor, Tile
from fastbsn.inference.ranges import DataRange
from fastbsn.inference.streaming import stream
from fastbsn.models import STUDENT_FILE, find_model
from fastbsn.names import DTYPES
from fastbsn.nets import UNet

if TYPE_CHECKING:
    from fastbsn.training import Callback

CONFIG_FILE = "config.json"
SIGMAS = (False, True, "posterior")


class Denoiser:
    """Denoise arrays, tensors and PIL images with a trained network; or train one with `fit`.

    >>> import numpy as np
    >>> from fastbsn import Denoiser
    >>> d = Denoiser.from_pretrained("gray-awgn")
    >>> d(np.zeros((5, 7), np.uint8)).shape
    (5, 7)

    Args:
        networks: "student" (UNet) or "teacher" (DBSN), and "noise_model" (NoiseModel) where sigma is wanted; None before `fit`.
        header: description of the networks, as their weights file holds it (`fastbsn.io.weights`).
        device: "auto" (CUDA if usable), "cpu", "cuda" or "cuda:1".
        backend: "auto", "cuda", "triton" or "reference".
        dtype: arithmetic of the network: "auto" (bfloat16 where the hardware is fast at it), "float32", "bfloat16", "float16", or "int8"
            (on a CPU, a student whose file has ranges; see `fastbsn.int8`).

    Attributes (after `from_pretrained` or `fit`):
        networks_, header_: networks and description, as above.
        prepared_: what runs, where and why (`fastbsn.backends.Prepared`).

    Raises:
        BackendError: a device or backend asked for by name cannot be used; the message is the reason.
        WeightsError: neither a student nor a teacher.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module] | None = None,
        header: dict[str, Any] | None = None,
        device: str = "auto",
        backend: str = "auto",
        dtype: str = "auto",
    ):
        self.device, self.backend, self.dtype = device, backend, dtype
        if networks is not None:
            self._use(networks, header or {})

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "auto", backend: str = "auto", dtype: str = "auto") -> Denoiser:
        """Load bundled weights by name, a .safetensors file, or a folder written by `save_pretrained`.

        Raises:
            InputError: neither a bundled name nor a file nor such a folder; the message lists the names.
            WeightsError, BackendError: see the class.
        """
        from fastbsn.io.weights import load_networks

        return cls(*load_networks(find_model(name_or_path)), device, backend, dtype)

    def _use(self, networks: dict[str, nn.Module], header: dict[str, Any]) -> None:
        if isinstance(student := networks.get("student"), UNet):
            student.ranges = header.get("ranges")
        self._predictor = Predictor(networks, str(header.get("noise", "gaussian")), self.device, self.backend, self.dtype)
        self.networks_, self.header_ = networks, {k: v for k, v in header.items() if k != "networks"}
        self.prepared_: Prepared = self._predictor.prepared
        self.channels: int = self._predictor.channels

    def __getstate__(self) -> dict[str, Any]:
        """What copies and other processes get: networks and choices; what runs there is prepared there."""
        fitted = {"networks": self.networks_, "header": self.header_} if hasattr(self, "networks_") else {}
        return {"device": self.device, "backend": self.backend, "dtype": self.dtype, **fitted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def data_ranges(self) -> dict[str, DataRange]:
        """Data ranges that the model was fitted with, by dtype name; they replace the defaults."""
        return dict(self.header_.get("data_ranges", {}))

    def __repr__(self) -> str:
        if not hasattr(self, "prepared_"):
            return f"Denoiser(device={self.device!r}, backend={self.backend!r}, dtype={self.dtype!r}), not fitted"
        p = self.prepared_
        return f"Denoiser({', '.join(self.networks_)}; channels={self.channels}, {p.backend} on {p.device}, {p.dtype})"

    def __call__(
        self,
        x: Any,
        axes: str | None = None,
        channel_axis: int | None = None,
        data_range: DataRange | None = None,
        tile: Tile = "auto",
        return_sigma: bool | str = False,
        progress: bool = False,
        nonfinite: str = "repair",
        strength: float = 1.0,
        seed: int = 0,
        repair: str = "auto",
    ) -> Any:
        """Denoise one image or a stack.

        Args:
            x: ndarray, tensor or PIL image of 8- to 32-bit integers or floats, any size and memory layout. Not modified. A gray model
                denoises colour channel by channel; a colour model repeats a gray image (with a warning: a gray model does better).
            axes: one letter per axis: Y, X, C for channels, S, T, Z for stacks, such as "TYX". What is understood
                without: see `inference.frames.resolve_axes`.
            channel_axis: instead of `axes`: index of the channels, the last two of the other axes are Y and X.
            data_range: white minus black, or (black, white), for instance (-1024, 3071) for CT.
                Default: as fitted; else 255 for uint8, 65535 for uint16, and 1 for floats that look like it
                (see `inference.frames.resolve_range`). One value for the whole array.
            tile: "auto" (from free memory), None (the whole image), or the size of a tile in pixels, or (height, width). A tile
                equals the whole image to the rounding of the dtype: it reads its entire receptive field.
            return_sigma: True: also the standard deviation of the noise at every pixel; "posterior": that of the result's error
                (teacher files only).
            progress: show a progress bar.
            nonfinite: NaN and infinite pixels: "repair" from their neighbours, "raise", or "keep" (repair for the network, put back).
            strength: how much is removed. 0 returns the input bit for bit; below 1, that part of the correction is made; above 1, up to
                4, white noise of standard deviation 16 / 255 * (strength - 1) of the data range is added and its effect cancelled again
                (see `inference.dither`), which removes more, smooth noise above all, and takes twice the time.
            seed: seed of that noise; the same seed gives the same result, in tiles as at once.
            repair: "auto": hot pixels, salt and pepper, stripes are mended first where found, which the log says; "off": never.

        Returns:
            The type, dtype, shape, device and value range of `x`; alpha is copied; integers are rounded and clipped, floats are not
            clipped. With `return_sigma`, (result, sigma): float32 array or tensor of the shape and in the units of `x`.

        Raises:
            InputError: `x` or its meaning is not understood; the message says what to write.
            BackendError: out of memory with the smallest tiles.
        """
        self._check_fitted()
        self._check_sigma(return_sigma)
        _check_strength(strength)
        frames = Frames(x, self.channels, axes, channel_axis, data_range, self.data_ranges, nonfinite, repair)
        self._warn(frames, data_range)
        if frames.count:
            self._predictor.run(frames, tile, return_sigma, progress=progress, strength=strength, seed=seed)
        return (frames.result(), frames.sigma()) if return_sigma else frames.result()

    def stream(
        self,
        frames: Iterable[Any],
        axes: str | None = None,
        channel_axis: int | None = None,
        data_range: DataRange | None = None,
        strength: float = 1.0,
        seed: int = 0,
    ) -> Iterator[Any]:
        """Denoise frames one after another, for video: yields results in order, each of the type of its frame.

        With the CUDA backend, 8- and 16-bit integers, float16 and float32 go to the GPU as they are, and copies overlap the
        computation: up to 3 frames are read before the first result comes. Otherwise the same as calling the object on each.

        Args:
            frames: arrays, tensors or PIL images.
            axes, channel_axis, data_range, strength: meaning of every frame, and strength, as in calling.
            seed: seed of the dither of the first frame; frame i has the seed `seed + i`.

        Raises:
            InputError, BackendError: as in calling, when the frame's turn comes.
        """
        self._check_fitted()
        _check_strength(strength)

        def open_(x: Any) -> Frames:
            return Frames(x, self.channels, axes, channel_axis, data_range, self.data_ranges)

        seeds = itertools.count(seed)

        def denoise(x: Any) -> Any:
            return self(x, axes, channel_axis, data_range, strength=strength, seed=next(seeds))

        weak: list[bool] = []  # of the first frame

        def fits(opened: Frames) -> bool:
            if not weak:
                weak.append(self._predictor.kept(opened, 0) is not None)
            return not weak[0] and len(self._predictor.grid(opened).boxes()) == 1

        direct = getattr(self.prepared_.run, "stream", None) if strength == 1 else None
        return stream(frames, denoise, open_, fits, direct)

    def _check_sigma(self, return_sigma: bool | str) -> None:
        if return_sigma not in SIGMAS:
            raise InputError(f"return_sigma={return_sigma!r}; expected False, True or 'posterior'")
        posterior = return_sigma == "posterior"
        if return_sigma and not (self._predictor.gives_error if posterior else self._predictor.gives_noise):
            need = "teacher and its noise model" if posterior else "noise model"
            raise InputError(f"return_sigma={return_sigma!r} needs a {need}; this model holds {', '.join(self.networks_)}: load a teacher")

    def _warn(self, frames: Frames, data_range: DataRange | None) -> None:
        if frames.replicated:
            warnings.warn("a gray image for a colour model: repeated three times; a gray model does better", RuntimeWarning, stacklevel=3)
        guessed = data_range is None and frames.dtype not in self.data_ranges
        if frames.count and guessed and frames.seems_12_bit:
            warnings.warn(
                f"uint16 values end at {frames.high:g} and are read as parts of 65535; "
                "for 12-bit data pass data_range=4095 (--data-range 4095)",
                RuntimeWarning,
                stacklevel=3,
            )

    def fit(
        self,
        noisy: str | Path | Sequence[Any] | np.ndarray | Tensor,
        *,
        axes: str | None = None,
        channel_axis: int | None = None,
        data_range: DataRange | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        noise: str = "gaussian",
        seed: int = 0,
        workdir: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = True,
        callback: Callback | None = None,
    ) -> Denoiser:
        """Train on noisy images alone: a blind-spot teacher, its labels, and the student that this object then uses.

        Args:
            noisy: folder of images, one file (every page of a TIFF is an image), a list of arrays, tensors or PIL images, or one array
                (a stack with axes="TYX").
            axes, channel_axis, data_range: meaning of every array, as in calling. A `data_range` is stored with the model.
            minutes, steps: budget for everything; 20 minutes if neither is given.
            noise: "gaussian", "heteroscedastic", "multivariate" or "correlated"; or "camera": colour photographs, whose noise is
                measured, and which a bundled model labels instead of a teacher.
            seed: seed of every draw.
            workdir: keeps teacher, checkpoints, logs and previews, and lets an interrupted call go on.
            overwrite: start anew where `workdir` holds another run, which is refused otherwise.
            progress: show progress bars.
            callback: called after every step and label with a `fastbsn.training.Progress`; what it raises ends the training.

        Returns:
            This object, fitted.

        Raises:
            InputError, TrainingError, Interrupted: see `fastbsn.training.fit`.
        """
        from fastbsn.training import ImageSet, fit

        if isinstance(noisy, str | Path):
            images = ImageSet.from_folder(noisy, data_range, axes)
        else:
            opened = [
                Frames(x, None, axes, channel_axis, data_range) for x in ([noisy] if isinstance(noisy, np.ndarray | Tensor) else noisy)
            ]
            images = ImageSet.from_arrays([frames.image(i) for frames in opened for i in range(frames.count)])
            if data_range is not None:
                images.data_ranges = {frames.dtype: frames.data_range for frames in opened}
        trained = fit(
            images,
            minutes=20 if minutes is None and steps is None else minutes,
            steps=steps,
            noise=noise,
            seed=seed,
            device=str(resolve_device(self.device)[0]),
            workdir=workdir,
            overwrite=overwrite,
            progress=progress,
            callback=callback,
        )
        self._use(trained.networks, trained.header)
        return self

    def save(self, path: str | Path, dtype: str | None = None) -> None:
        """Write networks and header to a .safetensors file that `from_pretrained` reads.

        Args:
            path: file to write.
            dtype: dtype of the stored weights, such as "float16" (half the size); default float32.

        Raises:
            InputError: not fitted. BackendError: an unknown dtype. StorageError: the write did not complete.
        """
        from fastbsn.io.weights import save_networks

        self._check_fitted()
        stored = None if dtype is None else resolve_dtype(dtype, torch.device("cpu"), UNet())[0]
        if stored == torch.int8:
            raise BackendError(
                f"dtype={dtype!r}: weights are stored as floats and rounded where they are used; expected {' or '.join(DTYPES)}"
            )
        save_networks(path, self.networks_, self.header_, stored)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write student.safetensors and config.json (for people and other tools) to `folder`, which is made if needed."""
        from fastbsn.io.atomic import write_json
        from fastbsn.version import __version__

        self._check_fitted()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder / STUDENT_FILE)
        networks = {name: net.config for name, net in self.networks_.items()}
        write_json(folder / CONFIG_FILE, {"library": "fastbsn", "version": __version__, "networks": networks, "header": self.header_})

    def export(self, path: str | Path) -> None:
        """Write the student as ONNX; see `fastbsn.export.export_onnx`.

        Raises:
            InputError: not fitted, or a teacher's file. BackendError: onnx is not installed.
        """
        from fastbsn.export import export_onnx

        self._check_fitted()
        student = self.networks_.get("student")
        if not isinstance(student, UNet):
            raise InputError(f"only a student can be exported; this file holds {', '.join(self.networks_)}: distil it first")
        export_onnx(student, path)

    def _check_fitted(self) -> None:
        if not hasattr(self, "prepared_"):
            raise InputError("this Denoiser is not fitted; call fit(noisy) first, or use Denoiser.from_pretrained('gray-awgn')")


def _check_strength(strength: float) -> None:
    if not isinstance(strength, int | float | np.integer | np.floating) or not 0 <= strength <= STRONGEST:
        raise InputError(f"strength={strength!r}; expected a number from 0 (the input) over 1 (as trained) to {STRONGEST:g}")
