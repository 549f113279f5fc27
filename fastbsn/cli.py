"""Command line: parses, calls, prints. Exit codes: 0 done, 1 some files failed, 2 the request cannot be carried out, 130 stopped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbsn.errors import FastBSNError, InputError, Interrupted

if TYPE_CHECKING:
    from fastbsn.denoiser import Denoiser
    from fastbsn.training import LoopConfig

STACKS = (".tif", ".tiff")


def _device(args: argparse.Namespace) -> str:
    from fastbsn.backends import resolve_device

    return str(resolve_device(args.device)[0])


def _open(args: argparse.Namespace, model: str) -> Denoiser:
    from fastbsn.denoiser import Denoiser

    return Denoiser.from_pretrained(model, device=args.device, backend=args.backend, dtype=args.dtype)


def _print(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    print(json.dumps(result) if getattr(args, "json", False) else text)


def _loop(args: argparse.Namespace) -> LoopConfig:
    from fastbsn.training import LoopConfig

    return LoopConfig(steps=args.steps, minutes=args.minutes, lr=args.lr, seed=args.seed)


def _start_over(args: argparse.Namespace) -> None:
    """With --overwrite: drop the output and its run folder, so that training starts anew."""
    import shutil

    if args.overwrite:
        args.output.unlink(missing_ok=True)
        shutil.rmtree(args.output.with_name(args.output.name + ".run"), ignore_errors=True)
    elif args.output.exists():
        raise InputError(f"{args.output} exists already; expected a new file: choose another name, or pass --overwrite")


def _teacher_config(args: argparse.Namespace) -> Any:
    from fastbsn.training import TeacherConfig

    return TeacherConfig(
        noise=args.noise,
        variant=args.variant,
        channels=args.channels,
        modules=args.modules,
        blind_spot=args.blind_spot,
        likelihood=args.likelihood,
        stride=args.stride,
        batch=args.batch,
        crop=args.crop,
    )


def _student_config(args: argparse.Namespace, renoised: float, sigma: str | None) -> Any:
    from fastbsn.training import StudentConfig

    bounds: tuple[float, float] | None = None
    if sigma:
        low, _, high = sigma.partition("-")
        try:
            bounds = (float(low), float(high or low))
        except ValueError as error:
            raise InputError(f"--sigma {sigma}: expected LOW-HIGH in 1/255 units, for instance 0-55") from error
    clean = 0.0 if args.clean is None else args.clean_fraction
    return StudentConfig(
        channels=args.student_channels, renoised=min(renoised, 1 - clean), clean=clean, sigma=bounds, recolour=args.recolour
    )


def fit(args: argparse.Namespace) -> int:
    from fastbsn.training import ImageSet
    from fastbsn.training import fit as run_fit

    _start_over(args)
    workdir = args.output.with_name(args.output.name + ".run")
    run_fit(
        ImageSet.from_folder(args.noisy),
        minutes=args.minutes,
        steps=args.steps,
        noise=args.noise,
        seed=args.seed,
        device=_device(args),
        workdir=workdir,
        output=args.output,
    )
    _print(args, {"student": str(args.output), "run": str(workdir)}, f"{args.output}: student; log and previews in {workdir}")
    return 0


def train(args: argparse.Namespace) -> int:
    from fastbsn.training import ImageSet, train_teacher

    _start_over(args)
    train_teacher(ImageSet.from_folder(args.noisy), args.output, _loop(args), _teacher_config(args), _device(args), backend=args.backend)
    _print(args, {"teacher": str(args.output)}, f"{args.output}: teacher; log and previews in {args.output}.run")
    return 0


def label(args: argparse.Namespace) -> int:
    from fastbsn.labels import generate

    i, _, n = args.shard.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise InputError(f"--shard {args.shard}: expected I/N with 0 <= I < N, for instance 0/2")
    shard = (int(i), int(n))
    written, failures = generate(args.noisy, args.output, args.teacher, args.device, args.backend, args.dtype, args.std, shard)
    _print(args, {"written": written, "failed": failures}, f"{args.output}: {written} labels written, {len(failures)} failed")
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0


def distill(args: argparse.Namespace) -> int:
    from fastbsn.io.weights import load_networks
    from fastbsn.labels import LabelSet
    from fastbsn.nets import UNet
    from fastbsn.training import ImageSet
    from fastbsn.training import distill as run_distill

    _start_over(args)
    labels = LabelSet.open(args.labels, args.noisy)
    if args.gray:
        labels = labels.gray()
    renoised = args.renoised if labels.can_sample_noise or args.sigma else 0.0
    config = _student_config(args, renoised, args.sigma)
    clean = ImageSet.from_folder(args.clean) if args.clean else None
    init = None
    if args.init:
        found = load_networks(args.init)[0]
        student = found.get("student")
        if not isinstance(student, UNet):
            raise InputError(f"--init {args.init}: the file holds {', '.join(found)}; expected a student")
        init = student
    run_distill(labels, args.output, _loop(args), config, clean, init, _device(args), backend=args.backend)
    _print(args, {"student": str(args.output)}, f"{args.output}: student; log and previews in {args.output}.run")
    return 0


def simulate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.noise import parse_noise
    from fastbsn.evaluation.simulate import simulate as run_simulate

    n = run_simulate(args.clean, args.output, parse_noise(args.noise), args.seed, args.gray)
    _print(args, {"images": n}, f"{args.output}: {n} noisy images")
    return 0


def _inputs(paths: list[Path]) -> list[tuple[Path, Path]]:
    """(file, name in the output folder) for files and, recursively, folders."""
    from fastbsn.io.images import SUFFIXES

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


def _denoise_file(denoisers: dict[str, Denoiser], args: argparse.Namespace, source: Path, target: Path) -> None:
    import numpy as np

    from fastbsn.io.images import read_image, write_image
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
    colour = "C" in axes and array.shape[axes.index("C")] >= 3
    name = ("color-awgn" if colour else "gray-awgn") if args.model == "auto" else args.model
    if name not in denoisers:
        denoisers[name] = _open(args, name)
    output = np.asarray(denoisers[name](array, axes=axes, data_range=args.data_range))
    target.parent.mkdir(parents=True, exist_ok=True)
    if args.preview and set(axes) <= set("YXC"):  # a stack is no single picture
        write_image(target.with_name(target.stem + "_before_after.png"), _side_by_side(array, output, axes, args.data_range))
    if is_stack:
        write_stack(target, output, axes)
    else:
        write_image(target, output)


def _side_by_side(before: Any, after: Any, axes: str, data_range: float | None) -> Any:
    """Two arrays as one uint8 picture, before | after."""
    import numpy as np

    full = data_range or {"u1": 255.0, "u2": 65535.0}.get(before.dtype.str[1:], 1.0)
    order = [axes.index(a) for a in "YXC" if a in axes]
    pair = [np.rint(np.clip(x.astype(np.float64) / full, 0, 1) * 255).astype(np.uint8).transpose(order) for x in (before, after)]
    return np.concatenate(pair, axis=1)


def denoise(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    jobs = [(source, args.output / name) for source, name in _inputs(args.images)]
    for source, target in jobs:
        if source.resolve() == target.resolve():
            raise InputError(f"{target} is the input itself; give another output folder with -o")
    denoisers: dict[str, Denoiser] = {}
    if args.model != "auto":
        denoisers[args.model] = _open(args, args.model)
    done, skipped, failed = 0, 0, []
    for source, target in tqdm(jobs, unit="image", disable=None):
        if target.exists() and not args.overwrite:
            skipped += 1
            continue
        try:
            _denoise_file(denoisers, args, source, target)
            done += 1
        except FastBSNError as error:
            failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    _print(
        args,
        {"done": done, "skipped": skipped, "failed": failed},
        f"{args.output}: {done} denoised, {skipped} already there, {len(failed)} failed",
    )
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def evaluate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.datasets import load_pairs
    from fastbsn.evaluation.evaluate import evaluate as run_evaluate
    from fastbsn.evaluation.evaluate import noisy_items, paired_items
    from fastbsn.evaluation.noise import parse_noise
    from fastbsn.io.atomic import write_json

    if (args.noise is None) == (not args.pairs and args.noisy is None):
        raise InputError("give exactly one of --noise SPEC, --noisy FOLDER or --pairs: what makes or holds the noisy images")
    d = _open(args, args.model)
    results, channels = [], 1 if d.channels == 1 else None
    for noise in args.noise or [None]:
        if noise is None:
            items = paired_items(load_pairs(args.noisy or args.clean, args.clean if args.noisy else None, channels))
        else:
            items = noisy_items(args.clean, parse_noise(noise, args.clip), args.seed, channels)
        result = run_evaluate(lambda y: d(y, channel_axis=0, data_range=1.0), items)
        results.append(
            {"set": args.clean.name, "noise": noise or "real", "seed": args.seed, "clip": args.clip, "model": args.model, **result}
        )
    if args.output:
        write_json(args.output, results)
    lines = ["| set | n | noise | input | PSNR | SSIM | seconds |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['set']} | {r['n']} | {r['noise']} | {r['input_psnr']:.2f} | {r['psnr']:.2f} | {r['ssim']:.4f} | {r['seconds']:.1f} |"
        for r in results
    ]
    _print(args, {"results": results}, "\n".join(lines))
    return 0


def export(args: argparse.Namespace) -> int:
    from fastbsn.denoiser import Denoiser
    from fastbsn.export import average
    from fastbsn.nets import UNet

    d = Denoiser.from_pretrained(args.model, device="cpu", backend="reference")
    if args.average:
        students = [d, *(Denoiser.from_pretrained(name, device="cpu", backend="reference") for name in args.average)]
        nets = [net for s in students if isinstance(net := s.networks_.get("student"), UNet)]
        if len(nets) < len(students):
            raise InputError("--average: not every file holds a student; expected the student files of `fastbsn distill`")
        parts = [{k: v for k, v in s.header_.items() if k in ("labels", "steps", "seconds")} for s in students]
        d = Denoiser({"student": average(nets)}, d.header_ | {"averaged": parts}, device="cpu", backend="reference")
    if args.output.suffix == ".onnx":
        d.export(args.output)
    elif args.output.suffix == ".safetensors":
        d.save(args.output, None if args.dtype == "auto" else args.dtype)
    else:
        raise InputError(f"{args.output}: expected a name that ends in .onnx or .safetensors")
    _print(args, {"file": str(args.output)}, f"{args.output}: written")
    return 0


def tune(args: argparse.Namespace) -> int:
    from importlib import import_module

    from fastbsn.errors import BackendError

    try:
        tuner = import_module("fastbsn.kernels.tune")
    except ImportError as error:
        raise BackendError(f"tuning needs Triton, which cannot be imported ({error}); install triton") from error
    given = {name: value for name in ("kernels", "channels") if (value := getattr(args, name))}
    tuner.write_table(args.output, side=args.side, seconds=args.seconds, **given)
    _print(args, {"table": str(args.output)}, f"{args.output}: tuning table; FASTBSN_TUNING={args.output} uses it")
    return 0


def info(args: argparse.Namespace) -> int:
    from fastbsn.info import environment, render

    found = environment()
    _print(args, found, render(found))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `fastbsn` command; returns the exit code."""
    from fastbsn.cli_parser import parser

    args = parser(globals()).parse_args(argv)
    try:
        return int(args.run(args))
    except Interrupted as error:
        print(f"fastbsn: {error}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("fastbsn: stopped", file=sys.stderr)
        return 130
    except (FastBSNError, OSError) as error:
        print(f"fastbsn: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
