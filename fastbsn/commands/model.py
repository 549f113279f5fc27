"""Models and machines: `export`, `tune` and `info`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fastbsn.commands.shared import add_model, report
from fastbsn.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fastbsn.inference.ranges import DataRange

IMAGES = 16  # on which the ranges for INT8 are found
SIDE = 512  # pixels of each, from its middle


def export_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--average", nargs="+", default=[], help="average the weights with these students', trained from one another")
    p.add_argument("--ranges", type=Path, help="folder of noisy images, on which the ranges for --dtype int8 are found")
    p.add_argument("-o", "--output", type=Path, required=True, help="student.onnx or student.safetensors")
    add_model(p, None)


def export(args: argparse.Namespace) -> int:
    from fastbsn.denoiser import Denoiser
    from fastbsn.export import average
    from fastbsn.int8 import find_ranges
    from fastbsn.nets import UNet

    d = Denoiser.from_pretrained(args.model, device="cpu", backend="reference")
    if args.average:
        students = [d, *(Denoiser.from_pretrained(name, device="cpu", backend="reference") for name in args.average)]
        nets = [net for s in students if isinstance(net := s.networks_.get("student"), UNet)]
        if len(nets) < len(students):
            raise InputError("--average: not every file holds a student; expected the student files of `fastbsn distill`")
        parts = [{k: v for k, v in s.header_.items() if k in ("labels", "steps", "seconds")} for s in students]
        header = {k: v for k, v in d.header_.items() if k != "ranges"} | {"averaged": parts}
        d = Denoiser({"student": average(nets)}, header, device="cpu", backend="reference")
    if args.ranges:
        student = d.networks_.get("student")
        if not isinstance(student, UNet):
            raise InputError(f"--ranges: only students compute in INT8; this file holds {', '.join(d.networks_)}: distil it first")
        white = next(iter(d.data_ranges.values()), None)
        d.header_["ranges"] = find_ranges(student, windows(args.ranges, d.channels, white))
    if args.output.suffix == ".onnx":
        d.export(args.output)
    elif args.output.suffix == ".safetensors":
        d.save(args.output, None if args.dtype == "auto" else args.dtype)
    else:
        raise InputError(f"{args.output}: expected a name that ends in .onnx or .safetensors")
    report(args, {"file": str(args.output)}, f"{args.output}: written")
    return 0


def windows(folder: Path, channels: int, data_range: DataRange | None = None) -> Iterator[Tensor]:
    """The middles of images that are spread over a folder, as `int8.find_ranges` takes them.

    Args:
        folder: of noisy images; of stacks, the first frame is taken.
        channels: of the network.
        data_range: of the files, see `Denoiser`.

    Raises:
        InputError, FileFormatError: no such folder, or a file in it cannot be used.
    """
    import numpy as np

    from fastbsn.inference.frames import Frames
    from fastbsn.io.image_files import list_images
    from fastbsn.pixels import to_unit
    from fastbsn.training.imageset import read_frames

    files = list_images(folder)
    for i in np.unique(np.linspace(0, len(files) - 1, min(IMAGES, len(files))).astype(int)):
        frames = Frames(to_unit(read_frames(files[i], data_range)[0][0]), channels, "CYX", data_range=1.0)
        top, left = (max(0, n - SIDE) // 2 for n in (frames.height, frames.width))
        yield frames.read(0, (top, min(frames.height, top + SIDE), left, min(frames.width, left + SIDE)))


def tune_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-o", "--output", type=Path, required=True, help="tuning.json")
    p.add_argument("--kernels", nargs="+", help="default: all")
    p.add_argument("--channels", nargs="+", type=int, help="widths; default: all that have a table")
    p.add_argument("--side", type=int, default=1024, help="of the square image that is timed, in pixels (%(default)s)")
    p.add_argument("--seconds", type=float, default=0.1, help="per configuration (%(default)s)")


def tune(args: argparse.Namespace) -> int:
    from importlib import import_module

    from fastbsn.errors import BackendError

    try:
        tuner = import_module("fastbsn.kernels.tune")
    except ImportError as error:
        raise BackendError(f"tuning needs Triton, which cannot be imported ({error}); install triton") from error
    given = {name: value for name in ("kernels", "channels") if (value := getattr(args, name))}
    tuner.write_table(args.output, side=args.side, seconds=args.seconds, **given)
    report(args, {"table": str(args.output)}, f"{args.output}: tuning table; FASTBSN_TUNING={args.output} uses it")
    return 0


def info(args: argparse.Namespace) -> int:
    from fastbsn.info import environment, render

    found = environment()
    report(args, found, render(found))
    return 0
