"""What several commands share: arguments, the opened model, the printed result."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from fastbsn.errors import InputError
from fastbsn.names import ARITHMETIC, BACKENDS

if TYPE_CHECKING:
    from fastbsn.denoiser import Denoiser


def add_budget(p: argparse.ArgumentParser) -> None:
    group = p.add_mutually_exclusive_group(required=True)
    group.add_argument("--steps", type=int, help="training steps; runs with a given seed are repeatable")
    group.add_argument("--minutes", type=float, help="training time")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--overwrite", action="store_true", help="start anew even if the output or a checkpoint exists")


def add_optimizer(p: argparse.ArgumentParser) -> None:
    p.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (%(default)s)")


def add_noise(p: argparse.ArgumentParser, *more: str) -> None:
    kinds = ("gaussian", "heteroscedastic", "multivariate", "correlated", *more)
    p.add_argument("--noise", choices=kinds, default="gaussian", help="kind of noise in the images (%(default)s)")


def add_model(p: argparse.ArgumentParser, default: str | None) -> None:
    p.add_argument("--model", required=default is None, default=default, help="bundled name, .safetensors file or folder (%(default)s)")
    add_backend(p)


def add_backend(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backend", choices=("auto", *BACKENDS), default="auto")
    p.add_argument("--dtype", choices=("auto", *ARITHMETIC), default="auto", help="of the arithmetic (%(default)s)")


def add_data_range(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data-range", type=float, help="white minus black; default 255 for uint8, 65535 for uint16, 1 for floats")
    p.add_argument("--black-level", type=float, default=0.0, help="value of black, with --data-range (%(default)s)")


def add_repair(p: argparse.ArgumentParser) -> None:
    p.add_argument("--repair", choices=("auto", "off"), default="auto", help="impulses and stripes, where found (%(default)s)")


def data_range_of(args: argparse.Namespace, white: float | None = None) -> Any:
    """As `Denoiser` takes it; `white` is what the file says, where nothing else was."""
    if args.data_range is None and args.black_level:
        raise InputError(f"--black-level {args.black_level:g} without --data-range; give both: white minus black is not known otherwise")
    full = args.data_range if args.data_range is not None else white
    return (args.black_level, args.black_level + full) if args.black_level else full


def device_of(args: argparse.Namespace) -> str:
    from fastbsn.backends import resolve_device

    return str(resolve_device(args.device)[0])


def open_model(args: argparse.Namespace, model: str) -> Denoiser:
    from fastbsn.denoiser import Denoiser

    return Denoiser.from_pretrained(model, device=args.device, backend=args.backend, dtype=args.dtype)


def say_failed(failed: list[str]) -> int:
    """Name what failed, one a line; returns the exit code."""
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def report(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    print(json.dumps(result) if getattr(args, "json", False) else text)
