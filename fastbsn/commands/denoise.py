"""`fastbsn denoise`: files, folders and stacks."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbsn.commands.shared import add_data_range, add_model, add_repair, data_range_of, open_model, report, say_failed
from fastbsn.errors import FastBSNError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastbsn.denoiser import Denoiser
    from fastbsn.io.picture import Part
    from fastbsn.report import Report

logger = logging.getLogger("fastbsn")
REPORT = "report.html"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("images", nargs="+", type=Path, help="PNG, JPEG, WebP, BMP, TIFF, .npy or folders of them")
    p.add_argument("-o", "--output", type=Path, required=True, help="output folder")
    add_model(p, "auto")
    p.add_argument("--axes", help="meaning of the axes, letters of STCZYX, for instance TYX")
    add_data_range(p)
    p.add_argument(
        "--strength", type=float, default=1.0, help="0: the input, 1: as trained, up to 4: more, in twice the time (%(default)s)"
    )
    p.add_argument("--quality", type=int, help="of JPEG and WebP, 0 to 100; default: as the input was compressed")
    p.add_argument("--nonfinite", choices=("repair", "raise", "keep"), default="repair", help="NaN and infinite pixels (%(default)s)")
    add_repair(p)
    p.add_argument("--preview", action="store_true", help="also write NAME_before_after.png, NAME with its suffix")
    p.add_argument("--report", action="store_true", help="also write report.html: noise found, before | after, a table; to be looked at")
    p.add_argument("--overwrite", action="store_true")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastbsn.commands.sources import find_sources, name_others

    sources = find_sources(args.images, args.output)
    models = _Models(args)
    page = _page(args) if args.report else None
    done, skipped, failed = 0, 0, []
    for source, target in tqdm(sources.jobs, unit="image", disable=None):
        if target.exists() and not args.overwrite:
            skipped += 1
            continue
        try:
            _denoise_file(models, args, source, target, page)
            done += 1
        except MemoryError:
            failed.append(f"{source}: too large for the memory of this machine; cut the image into parts")
        except FastBSNError as error:
            failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    counts = ", ".join(f"{n} by {name}" for name, n in models.chosen.items())
    if page and (done or failed):
        for message in failed:
            page.fail(message)
        args.output.mkdir(parents=True, exist_ok=True)
        page.write(args.output / REPORT)
    report(
        args,
        {"done": done, "skipped": skipped, "failed": failed, "models": models.chosen, "not_read": list(map(str, sources.others))},
        f"{args.output}: {done} denoised{f' ({counts})' if args.model == 'auto' and counts else ''}, {skipped} already there, "
        f"{len(failed)} failed",
    )
    if sources.others:
        print(name_others(sources.others), file=sys.stderr)
    return say_failed(failed)


class _Models:
    """The model that was asked for, or for "auto" those that the images take, opened when the first one does."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.opened, self.chosen = args, dict[str, Any](), dict[str, int]()
        if args.model != "auto":
            self[args.model]

    def __getitem__(self, name: str) -> Denoiser:
        if name not in self.opened:
            self.opened[name] = open_model(self.args, name)
        return self.opened[name]

    def of(self, source: Path, array: NDArray, axes: str, colour: bool, data_range: Any) -> str:
        from fastbsn.inference.choose import choose_for

        name = self.args.model
        if name == "auto":
            name, reason = choose_for(array, axes, colour, data_range, self.args.repair)
            logger.info("%s: %s, %s", source, name, reason)
        self.chosen[name] = self.chosen.get(name, 0) + 1
        return name


def _page(args: argparse.Namespace) -> Report:
    from fastbsn.report import Report

    facts = {"model": args.model, "strength": f"{args.strength:g}", "device": args.device}
    return Report(f"Denoised: {', '.join(str(path) for path in args.images)}", facts)


def _denoise_file(models: _Models, args: argparse.Namespace, source: Path, target: Path, page: Report | None) -> None:
    from fastbsn.io.image_files import read_picture, write_image, write_picture

    picture = read_picture(source)
    for warning in picture.warnings:
        logger.warning("%s: %s", source, warning)
    start = time.perf_counter()
    outputs = [_denoise_part(models, args, source, _with_axes(part, args.axes, picture.kind)) for part in picture.parts]
    seconds = time.perf_counter() - start
    target.parent.mkdir(parents=True, exist_ok=True)
    part = picture.parts[0]
    if args.preview and len(picture.parts) == 1 and set(part.axes) <= set("YXC"):  # a stack is no single picture
        write_image(target.with_name(target.name + "_before_after.png"), _side_by_side(part, outputs[0], data_range_of(args, part.white)))
    write_picture(target, picture, outputs, args.quality)
    if page:
        page.add(str(target.relative_to(args.output)), part.array, outputs[0], _with_axes(part, args.axes).axes, seconds)


def _with_axes(part: Part, axes: str | None, kind: str = "") -> Part:
    """The part with its axes as told."""
    from dataclasses import replace

    if axes is None:
        depth = part.array.shape[-1]
        if kind == "NPY" and len(part.channels) > 4 and depth != min(part.array.shape):
            raise InputError(
                f"shape {part.array.shape} says nothing about its axes; give --axes YXC for {depth} channels, --axes TYX for a stack"
            )
        return part
    if len(axes) != part.array.ndim:
        raise InputError(f"--axes {axes} names {len(axes)} axes; the image has shape {part.array.shape}")
    depth = part.array.shape[axes.index("C")] if "C" in axes else 1
    same = "C" in axes and axes.index("C") == part.axes.find("C")
    return replace(part, axes=axes, channels=part.channels if same else "RGB" if depth == 3 else "L" if depth == 1 else "X" * depth)


def _denoise_part(models: _Models, args: argparse.Namespace, source: Path, part: Part) -> NDArray:
    from fastbsn.inference.parts import denoise_channels

    data_range = data_range_of(args, part.white)

    def pick(values: NDArray, axes: str, colour: bool) -> Denoiser:
        return models[models.of(source, values, axes, colour, data_range)]

    return denoise_channels(
        part.array,
        part.axes,
        part.channels,
        pick,
        args.model != "auto",
        data_range=data_range,
        strength=args.strength,
        nonfinite=args.nonfinite,
        repair=args.repair,
        progress=bool(set(part.axes) & set("TZ")) and sys.stderr.isatty(),
    )


def _side_by_side(part: Part, after: NDArray, data_range: Any) -> NDArray:
    """Before | after as one uint8 picture: colour, or the first channel."""
    from dataclasses import replace

    import numpy as np

    from fastbsn.inference.ranges import split_range
    from fastbsn.pixels import white

    black, full = split_range(data_range)
    pair = []
    for x in (part.pixels, replace(part, array=after).pixels):
        x = x[..., :3] if part.channels.startswith("RGB") else x[..., 0] if x.ndim == 3 else x
        pair.append(np.rint(np.clip((x.astype(np.float64) - black) / (full or white(part.array)), 0, 1) * 255).astype(np.uint8))
    return np.concatenate(pair, axis=1)
