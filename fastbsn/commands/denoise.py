"""`fastbsn denoise`: files, folders and stacks."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbsn.commands.shared import add_model, open_model, report
from fastbsn.errors import FastBSNError, InputError

if TYPE_CHECKING:
    from fastbsn.denoiser import Denoiser
    from fastbsn.report import Report

logger = logging.getLogger("fastbsn")
STACKS = (".tif", ".tiff")
REPORT = "report.html"


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("images", nargs="+", type=Path, help="PNG, JPEG, TIFF, .npy or folders of them")
    p.add_argument("-o", "--output", type=Path, required=True, help="output folder")
    add_model(p, "auto")
    p.add_argument("--axes", help="meaning of the axes, letters of STCZYX, for instance TYX")
    p.add_argument("--data-range", type=float, help="value of white; default 255 for uint8, 65535 for uint16, 1 for floats")
    p.add_argument(
        "--strength", type=float, default=1.0, help="0: the input, 1: as trained, up to 4: more, in twice the time (%(default)s)"
    )
    p.add_argument("--preview", action="store_true", help="also write NAME_before_after.png")
    p.add_argument("--report", action="store_true", help="also write report.html: noise found, before | after, a table; to be looked at")
    p.add_argument("--overwrite", action="store_true")


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    jobs = [(source, args.output / name) for source, name in _inputs(args.images)]
    for source, target in jobs:
        if source.resolve() == target.resolve():
            raise InputError(f"{target} is the input itself; give another output folder with -o")
    denoisers: dict[str, Denoiser] = {}
    chosen: dict[str, int] = {}  # images by model
    if args.model != "auto":
        denoisers[args.model] = open_model(args, args.model)
    page = _page(args) if args.report else None
    done, skipped, failed = 0, 0, []
    for source, target in tqdm(jobs, unit="image", disable=None):
        if target.exists() and not args.overwrite:
            skipped += 1
            continue
        try:
            _denoise_file(denoisers, chosen, args, source, target, page)
            done += 1
        except FastBSNError as error:
            failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    models = f" ({', '.join(f'{n} by {name}' for name, n in chosen.items())})" if args.model == "auto" and chosen else ""
    if page and (done or failed):
        for message in failed:
            page.fail(message)
        args.output.mkdir(parents=True, exist_ok=True)
        page.write(args.output / REPORT)
    report(
        args,
        {"done": done, "skipped": skipped, "failed": failed, "models": chosen},
        f"{args.output}: {done} denoised{models}, {skipped} already there, {len(failed)} failed",
    )
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _inputs(paths: list[Path]) -> list[tuple[Path, Path]]:
    """(file, name in the output folder) for files and, recursively, folders."""
    from fastbsn.io.image_files import SUFFIXES

    found = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            found += [(p, p.relative_to(path)) for p in files]
        else:
            found.append((path, Path(path.name)))
    if not found:
        raise InputError(f"no images in {', '.join(map(str, paths))}; expected PNG, JPEG, TIFF or .npy files")
    return found


def _page(args: argparse.Namespace) -> Report:
    from fastbsn.report import Report

    facts = {"model": args.model, "strength": f"{args.strength:g}", "device": args.device}
    return Report(f"Denoised: {', '.join(str(path) for path in args.images)}", facts)


def _denoise_file(
    denoisers: dict[str, Denoiser], chosen: dict[str, int], args: argparse.Namespace, source: Path, target: Path, page: Report | None
) -> None:
    import numpy as np

    from fastbsn.inference.choose import choose_model
    from fastbsn.inference.frames import Frames
    from fastbsn.io.image_files import read_image, write_image
    from fastbsn.io.stacks import read_stack, write_stack

    axes = args.axes
    is_stack = source.suffix.lower() in STACKS
    if is_stack:
        array, found = read_stack(source)
        axes = axes or found
    else:
        array = read_image(source)
        axes = axes or ("YX" if array.ndim == 2 else "YXC")
    if len(axes) != array.ndim:
        raise InputError(f"--axes {axes} names {len(axes)} axes; the image has shape {array.shape}")
    name = args.model
    if name == "auto":
        colour = "C" in axes and array.shape[axes.index("C")] in (3, 4)
        name, reason = choose_model(Frames(array, 3 if colour else 1, axes, data_range=args.data_range))
        logger.info("%s: %s, %s", source, name, reason)
    chosen[name] = chosen.get(name, 0) + 1
    if name not in denoisers:
        denoisers[name] = open_model(args, name)
    start = time.perf_counter()
    output = np.asarray(denoisers[name](array, axes=axes, data_range=args.data_range, strength=args.strength))
    seconds = time.perf_counter() - start
    target.parent.mkdir(parents=True, exist_ok=True)
    if args.preview and set(axes) <= set("YXC"):  # a stack is no single picture
        write_image(target.with_name(target.stem + "_before_after.png"), _side_by_side(array, output, axes, args.data_range))
    if is_stack:
        write_stack(target, output, axes)
    else:
        write_image(target, output)
    if page:
        page.add(str(target.relative_to(args.output)), array, output, axes, seconds)


def _side_by_side(before: Any, after: Any, axes: str, data_range: float | None) -> Any:
    """Two arrays as one uint8 picture, before | after."""
    import numpy as np

    from fastbsn.pixels import white

    full = data_range or white(before)
    order = [axes.index(a) for a in "YXC" if a in axes]
    pair = [np.rint(np.clip(x.astype(np.float64) / full, 0, 1) * 255).astype(np.uint8).transpose(order) for x in (before, after)]
    return np.concatenate(pair, axis=1)
