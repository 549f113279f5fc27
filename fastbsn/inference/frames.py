"""Arrays, tensors and PIL images as frames that are read and written in windows; the whole is never copied or converted.

Values are divided by the data range on the way in and multiplied on the way out: networks see [0, 1] by convention.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastbsn.errors import InputError
from fastbsn.inference.areas import MARGIN, continue_picture, find_areas, may_hold_areas
from fastbsn.inference.mending import Defects, check_mode, find_defects
from fastbsn.inference.ranges import INTEGERS, Array, DataRange, Statistics, resolve_range, scan, split_range, to_tensor
from fastbsn.inference.repair import REACH, repair
from fastbsn.inference.tiling import Box, Grid
from fastbsn.pixels import RANGES, dtype_name

LETTERS = "STCZYX"
CHANNELS = (1, 3, 4)  # sizes that an axis of channels is recognised by
FLOATS = ("float16", "bfloat16", "float32", "float64")
PIL_MODES = ("L", "LA", "RGB", "RGBA", "I", "I;16", "F")
NONFINITE = ("repair", "raise", "keep")
SAMPLE, SAMPLES = 512, 16  # pixels on a side, and number, of the windows that speak for a frame
GLANCE = 64  # pixels on a side of the windows that say whether it is worth a look


def is_pil(x: object) -> bool:
    pil = sys.modules.get("PIL.Image")  # not imported: nobody has a PIL image
    return pil is not None and isinstance(x, pil.Image)


def resolve_axes(shape: tuple[int, ...], tensor: bool, axes: str | None = None, channel_axis: int | None = None) -> str:
    """One letter per axis: Y and X, C for channels, S, T, Z for stacks.

    Without `axes` or `channel_axis`: two axes are "YX". Three are "YXC" if the last has size 1, 3 or 4 and the first not, and "CYX"
    if the first has and the last not, for tensors (an array only with size 1, where all readings agree). Four axes of a
    tensor are "TCYX" if the second has size 1, 3 or 4 and the last not.

    Raises:
        InputError: any other shape; the message names the readings and what to write for each.
    """
    what = f"{'a tensor' if tensor else 'an array'} of shape {shape}"
    if axes is not None:
        if len(axes) != len(shape) or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes) <= set(LETTERS):
            raise InputError(
                f"axes={axes!r} for {what}; expected {len(shape)} different letters of {LETTERS}, Y and X among them, such as "
                "'YX', 'YXC', 'TYX' or 'TCYX'"
            )
        if channel_axis is not None:
            raise InputError(f"axes={axes!r} and channel_axis={channel_axis}: give one of the two")
        return axes
    n = len(shape)
    if channel_axis is not None:
        if not 3 <= n <= 5 or not -n <= channel_axis < n:
            raise InputError(f"channel_axis={channel_axis} for {what}; expected 3 to 5 axes and a channel axis among them")
        letters = list("STZYX"[-(n - 1) :] if n > 3 else "YX")
        letters.insert(channel_axis % n, "C")
        return "".join(letters)
    if n == 2:
        return "YX"
    if not 3 <= n <= 4:
        raise InputError(f"{what}: expected at least the axes Y and X, named with axes= if there are more than 4, such as 'TZCYX'")
    first, last = shape[0] in CHANNELS, shape[-1] in CHANNELS
    if n == 3 and last and not first:
        return "YXC"
    if n == 3 and first and not last and (tensor or shape[0] == 1):
        return "CYX"
    if n == 4 and tensor and shape[1] in CHANNELS and not last:
        return "TCYX"
    raise InputError(f"{what} can be read in more than one way: {'; '.join(_readings(shape))}")


def _readings(shape: tuple[int, ...]) -> list[str]:
    if len(shape) == 3:
        a, b, c = shape
        readings = [f"a stack of {a} gray images of {b} x {c} pixels (write axes='TYX')"]
        if a in CHANNELS:
            readings.append(f"one image of {b} x {c} pixels, {a} channels first (write channel_axis=0)")
        if c in CHANNELS or a not in CHANNELS:
            readings.append(f"one image of {a} x {b} pixels, {c} channels last (write channel_axis=-1)")
        return readings
    return ["a stack with channels last (write axes='TYXC')", "with channels first (axes='TCYX')", "without channels (axes='TZYX')"]


class Frames:
    """An input of any accepted kind as `count` frames of `height` x `width` pixels, and an output of the same kind.

    Channels that the network cannot take together are a batch: a gray network sees every channel on its own. A colour network sees
    a gray image three times, and the mean is written. Alpha is copied: the last channel of PIL's LA and RGBA, and the fourth of
    four channels for a network with three, or with one if the channels are last.

    Args:
        x: ndarray, tensor or PIL image (modes in PIL_MODES), of one of the dtypes in INTEGERS and FLOATS; never modified.
        channels: of the network; None for one with the channels of the image.
        axes, channel_axis: see `resolve_axes`; not for PIL.
        data_range: see `resolve_range`; or (value of black, value of white).
        ranges: data ranges stored with the model, by dtype name.
        nonfinite: "repair" (see `repair`), "raise", or "keep": repaired for the network and put back into the output.
        mend: "auto": impulses and stripes are mended where they are found (see `mending`); "off".

    Raises:
        InputError: not understood; the message says what to write.
    """

    def __init__(
        self,
        x: Any,
        channels: int | None,
        axes: str | None = None,
        channel_axis: int | None = None,
        data_range: DataRange | None = None,
        ranges: dict[str, DataRange] | None = None,
        nonfinite: str = "repair",
        mend: str = "off",
    ):
        check_mode(mend)
        if nonfinite not in NONFINITE:
            raise InputError(f"nonfinite={nonfinite!r}; expected one of {', '.join(NONFINITE)}")
        self._pil = x if is_pil(x) else None
        if self._pil is not None and (axes is not None or channel_axis is not None):
            raise InputError(f"axes={axes!r}, channel_axis={channel_axis} for a PIL image, whose mode {x.mode} says it all; leave them out")
        array = _pixels(x)
        self.dtype = dtype_name(array)
        if self.dtype not in INTEGERS + FLOATS:
            raise InputError(f"pixels are {array.dtype}; expected one of {', '.join(INTEGERS + FLOATS)}: convert them first")
        shape = tuple(array.shape)
        self.axes = "YXC"[: array.ndim] if self._pil is not None else resolve_axes(shape, isinstance(array, Tensor), axes, channel_axis)
        self._result = _empty(array, None)
        self._sigma: Array | None = None
        self._source, self._target = self._frames(array), self._frames(self._result)
        depth, self.height, self.width = map(int, self._source[0].shape if self._source else (1, 1, 1))
        self._find_channels(depth, channels)
        self.count = len(self._source)
        stats = self._scan(nonfinite)
        stored = (ranges or {}).get(self.dtype)
        self.black, given = split_range(data_range if data_range is not None else stored)
        self.scale = resolve_range(self.dtype, given, None, stats) if self.count else 1.0
        self._area_of: int | None = None  # frame whose areas are known
        self._areas: Tensor | None = None
        self._mends, self._defects_of = mend == "auto", dict[int, Defects | None]()
        self.high, self.bad, self._bad, self._keep = stats.high, stats.bad, stats.bad > 0, nonfinite == "keep"

    def _frames(self, array: Array) -> list[Array]:
        """Views [C, H, W]; none of an array without values."""
        if 0 in array.shape:
            return []
        order = [self.axes.index(letter) for letter in LETTERS if letter in self.axes and letter not in "CYX"]
        order += [self.axes.index(letter) for letter in "CYX" if letter in self.axes]
        view = array.permute(order) if isinstance(array, Tensor) else array.transpose(order)
        view = view if "C" in self.axes else view[..., None, :, :]
        return [view[index] for index in np.ndindex(tuple(view.shape[:-3]))]

    def _find_channels(self, depth: int, channels: int | None) -> None:
        last = self.axes[-1] == "C"
        alpha = self._pil.mode in ("LA", "RGBA") if self._pil is not None else depth == 4 and (channels == 3 or (channels == 1 and last))
        self._alpha, self._depth = alpha, depth - alpha
        if channels in (self._depth, None):
            self._groups = [list(range(self._depth))]
        elif channels == 1:
            self._groups = [[c] for c in range(self._depth)]
        elif channels == 3 and self._depth == 1:
            self._groups = [[0, 0, 0]]
        else:
            raise InputError(
                f"axes {self.axes!r} make {self._depth} channels{' and alpha' if alpha else ''}; this model takes {channels}: "
                "check axes= or channel_axis=, or use a gray model, which denoises every channel on its own"
            )

    @property
    def batch(self) -> int:
        """Images that one window of one frame becomes."""
        return len(self._groups)

    @property
    def replicated(self) -> bool:
        """A gray image for a colour network."""
        return self._groups == [[0, 0, 0]]

    def _scan(self, nonfinite: str) -> Statistics:
        if self.dtype == "uint8":
            return Statistics(0, 255, 0, 0)
        stats = scan(frame[: self._depth] for frame in self._source)
        if stats.bad and nonfinite == "raise":
            raise InputError(f"{stats.bad} pixels are NaN or infinite; repair them, or pass nonfinite='repair' or 'keep'")
        return stats

    @property
    def seems_12_bit(self) -> bool:
        """Whether 16-bit values end so low that their white may be another one."""
        return self.dtype == "uint16" and 0 < self.high < 4096

    @property
    def data_range(self) -> DataRange:
        """As `data_range` of the same meaning is given."""
        return (self.black, self.black + self.scale) if self.black else self.scale

    @property
    def nbytes(self) -> int:
        return int(self._result.nbytes)

    def image(self, frame: int) -> np.ndarray:
        """A frame for training, [H, W] or [H, W, C]: 8- and 16-bit integers of full range as they are, else float32 in data-range units."""
        if RANGES.get(self.dtype) == self.scale and not self.black:
            values = self._source[frame][: self._depth]
            values = values.cpu().numpy() if isinstance(values, Tensor) else values
        else:
            values = self.read(frame, (0, self.height, 0, self.width))[0].cpu().numpy()
        return values[0] if self._depth == 1 else values.transpose(1, 2, 0)

    def read(self, frame: int, box: Box) -> Tensor:
        """A window as float32 [batch, channels, h, w] in data-range units, on the device of the input."""
        areas, defects = self.areas(frame), self.defects(frame)
        margin = REACH * self._bad + MARGIN * (areas is not None) + (defects is not None)
        top, bottom, left, right = box
        y, x = max(0, top - margin), max(0, left - margin)
        rows, cols = slice(y, bottom + margin), slice(x, right + margin)
        values = self._source[frame][: self._depth, rows, cols]
        values = to_tensor(values, torch.float64 if self.black else torch.float32)
        values = (values - self.black).float() if self.black else values
        if defects is not None:
            values = defects.mend(values / self.scale, y, x) * self.scale
        if areas is not None and areas[rows, cols].any():
            values = continue_picture(values, areas[rows, cols])
        if self._bad:
            values = repair(values)
        values = values[:, top - y : bottom - y, left - x : right - x]
        return torch.stack([values[group] for group in self._groups]).div_(self.scale)

    def areas(self, frame: int) -> Tensor | None:
        """Where a frame has no noise, see `inference.areas`: bool [H, W] on the CPU, or None for nowhere."""
        if self._area_of != frame:
            values = self._source[frame][: self._depth]
            found = find_areas(values) if may_hold_areas(values) else None
            self._area_of, self._areas = frame, found if found is not None and found.any() else None
        return self._areas

    def defects(self, frame: int) -> Defects | None:
        """What is mended in a frame; None for nothing."""
        if not self._mends:
            return None
        if frame not in self._defects_of:
            glance, windows = self.boxes(GLANCE, SAMPLES), self.boxes(SAMPLE, SAMPLES)
            self._defects_of = {frame: find_defects(lambda box: self._unit(frame, box), self.height, self.width, glance, windows)}
        return self._defects_of[frame]

    def _unit(self, frame: int, box: Box) -> Tensor:
        """The values of a window as they are, [C, h, w] in data-range units."""
        values = to_tensor(self._source[frame][: self._depth, slice(*box[:2]), slice(*box[2:])], torch.float64)
        return ((values - self.black) / self.scale).float()

    @property
    def depth(self) -> int:
        """Channels, alpha not counted."""
        return self._depth

    def samples(self, frame: int) -> list[Tensor]:
        """Up to 16 windows spread over a frame, as `read` gives them."""
        return [self.read(frame, box) for box in self.boxes(SAMPLE, SAMPLES)]

    def boxes(self, side: int, count: int) -> list[Box]:
        """Up to `count` boxes of `side` pixels spread over a frame."""
        boxes = Grid(self.height, self.width, (side, side), 0).boxes()
        return boxes[:: -(-len(boxes) // count)]

    def direct(self) -> Tensor | None:
        """The pixels as they are, [batch, channels, H, W], for a network that scales and rounds by itself; None if that is not enough:

        more than one frame, alpha, a gray image for a colour network, non-finite values, areas without noise, a data range or a black
        that is not the dtype's own.
        """
        plain = self.count == 1 and not (self._alpha or self.replicated or self._bad or self.black) and self.areas(0) is None
        plain = plain and self.defects(0) is None
        if not plain or self.dtype not in ("uint8", "uint16", "float16", "float32") or self.scale != RANGES.get(self.dtype, 1.0):
            return None
        values = self._source[0]
        if isinstance(values, np.ndarray):
            usable = values.flags.writeable and min(values.strides) > 0
            values = torch.from_numpy(values if usable else values.copy())
        return values.unflatten(0, (self.batch, -1))

    def write_direct(self, values: Tensor) -> None:
        """Write what the network made of `direct()`: the same shape and dtype."""
        _assign(self._target[0], values.flatten(0, 1))

    def copy(self, frame: int) -> None:
        """Write a frame as it is, bit for bit."""
        _assign(self._target[frame], self._source[frame])

    def write(self, frame: int, box: Box, values: Tensor) -> None:
        """Write float32 [batch, channels, h, w] in data-range units; integers are rounded and clipped, floats are not."""
        rows, cols = slice(*box[:2]), slice(*box[2:])
        source, target = self._source[frame][:, rows, cols], self._target[frame][:, rows, cols]
        # float32 holds every integer up to 2**24 only
        values = self._merge(values.double() if self.black or self.dtype in ("int32", "uint32") else values)
        values = values + self.black if self.black else values
        if self.dtype in INTEGERS:
            limits = np.iinfo(self.dtype)
            values = values.round_().clamp_(limits.min, limits.max)
        elif self.dtype == "float16":
            values = values.clamp(-65504, 65504)
        if self._bad and self._keep:
            original = to_tensor(source[: self._depth], torch.float64).to(values.device)
            values = torch.where(original.isfinite(), values, original)
        _assign(target[: self._depth], values)
        areas = self.areas(frame)
        if areas is not None:
            _restore(target[: self._depth], source[: self._depth], areas[rows, cols])
        if self._alpha:
            _assign(target[-1:], source[-1:])

    def write_sigma(self, frame: int, box: Box, values: Tensor) -> None:
        """Write a standard deviation, broadcastable to [batch, channels, h, w], in data-range units; 0 for alpha."""
        if self._sigma is None:
            self._sigma = _empty(self._result, torch.float32)
            self._sigma_target = self._frames(self._sigma)
        target = self._sigma_target[frame][:, slice(*box[:2]), slice(*box[2:])]
        shape = (self.batch, len(self._groups[0]), *target.shape[1:])
        _assign(target[: self._depth], self._merge(values.expand(shape)))
        if self._alpha:
            target[-1:] = 0

    def _merge(self, values: Tensor) -> Tensor:
        """[batch, channels, h, w] -> [C, h, w] in the units of the input."""
        return (values.mean(1) if self.replicated else values.flatten(0, 1)) * self.scale

    def result(self) -> Any:
        """The output, of the type of the input."""
        if self._pil is None:
            return self._result
        if not self.count:
            return self._pil.copy()
        image = sys.modules["PIL.Image"].fromarray(self._result)
        image.info = dict(self._pil.info)
        return image

    def sigma(self) -> Array:
        """float32 array or tensor of the shape of the input, in its units."""
        return _empty(self._result, torch.float32) if self._sigma is None else self._sigma


def _pixels(x: Any) -> Array:
    if is_pil(x):
        if x.mode not in PIL_MODES:
            raise InputError(f"PIL image of mode {x.mode!r}; expected one of {', '.join(PIL_MODES)}: use image.convert('RGB')")
        return np.asarray(x)
    if isinstance(x, Tensor):
        if x.layout is not torch.strided:
            raise InputError(f"tensor has layout {x.layout}; expected a dense one: use x.to_dense()")
        return x.detach()
    if isinstance(x, np.ma.MaskedArray):
        raise InputError("a masked array; fill it with x.filled(numpy.nan) and pass nonfinite='keep'")
    if not isinstance(x, np.ndarray):
        raise InputError(f"got {type(x).__name__}; expected a numpy array, a torch tensor or a PIL image")
    return np.asarray(x)


def _empty(array: Array, dtype: torch.dtype | None) -> Array:
    if isinstance(array, Tensor):
        return torch.empty_like(array, dtype=dtype)
    return np.empty_like(array, dtype=None if dtype is None else np.float32)


def _restore(target: Array, source: Array, where: Tensor) -> None:
    """Write the finite values of `source` back, bit for bit, at the pixels `where` [H, W]."""
    if isinstance(target, Tensor):
        source = torch.as_tensor(source)
        target.copy_(torch.where(where.to(target.device) & source.isfinite(), source, target))
    else:
        assert isinstance(source, np.ndarray)
        np.copyto(target, source, where=where.numpy() & np.isfinite(source))


def _assign(target: Array, values: Array) -> None:
    if isinstance(target, Tensor):
        target.copy_(torch.as_tensor(values))
    else:
        target[...] = values.cpu().numpy() if isinstance(values, Tensor) else values
