"""Models and machines: `export`, `tune` and `info`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastbsn.commands.shared import add_model, report
from fastbsn.errors import InputError


def export_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--average", nargs="+", default=[], help="average the weights with these students', trained from one another")
    p.add_argument("-o", "--output", type=Path, required=True, help="student.onnx or student.safetensors")
    add_model(p, None)


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
    report(args, {"file": str(args.output)}, f"{args.output}: written")
    return 0


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
