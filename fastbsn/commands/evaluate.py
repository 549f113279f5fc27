"""Measuring: `evaluate`, `simulate` and `submit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastbsn.commands.shared import add_data_range, add_model, data_range_of, open_model, report, say_failed
from fastbsn.errors import InputError


def evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("clean", type=Path, help="folder of clean images (or, with --pairs, of NAME_real and NAME_mean images)")
    p.add_argument("--noise", nargs="+", help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg; several make several rows")
    p.add_argument("--noisy", type=Path, help="folder of noisy images of the same names")
    p.add_argument("--pairs", action="store_true", help="CLEAN holds NAME_real.* and NAME_mean.* pairs")
    p.add_argument("--clip", choices=("none", "uint8"), default="none", help="noisy input as an 8-bit file would hold it")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-o", "--output", type=Path, help="also write all figures, per image too, to this JSON file")
    p.add_argument("--sheet", type=Path, help="also write a contact sheet, noisy | denoised | clean at 100 %%, to this PNG or JPEG file")
    add_data_range(p)
    add_model(p, None)


def evaluate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.datasets import load_pairs
    from fastbsn.evaluation.score import evaluate as run_evaluate
    from fastbsn.evaluation.score import synthetic_pairs
    from fastbsn.evaluation.sheet import ContactSheet
    from fastbsn.evaluation.synthetic import parse_noise
    from fastbsn.io.atomic import write_json

    if (args.noise is None) == (not args.pairs and args.noisy is None):
        raise InputError("give exactly one of --noise SPEC, --noisy FOLDER or --pairs: what makes or holds the noisy images")
    d = open_model(args, args.model)
    results, channels, sheet, failed = [], 1 if d.channels == 1 else None, ContactSheet(), list[str]()
    for noise in args.noise or [None]:
        if noise is None:
            pairs = load_pairs(args.noisy or args.clean, args.clean if args.noisy else None, channels, data_range_of(args), failed)
        else:
            pairs = synthetic_pairs(args.clean, parse_noise(noise, args.clip), args.seed, channels, data_range_of(args), failed)
        result = run_evaluate(lambda y: d(y, channel_axis=0, data_range=1.0), pairs, on_image=sheet.add if args.sheet else None)
        results.append(
            {"set": args.clean.name, "noise": noise or "real", "seed": args.seed, "clip": args.clip, "model": args.model, **result}
        )
    if args.output:
        write_json(args.output, results)
    if args.sheet:
        sheet.write(args.sheet)
    lines = ["| set | n | noise | input | PSNR | SSIM | seconds |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['set']} | {r['n']} | {r['noise']} | {r['input_psnr']:.2f} | {r['psnr']:.2f} | {r['ssim']:.4f} | {r['seconds']:.1f} |"
        for r in results
    ]
    failed = list(dict.fromkeys(failed))  # once for all kinds of noise
    report(args, {"results": results, "failed": failed}, "\n".join(lines))
    return say_failed(failed)


def simulate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("clean", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--noise", required=True, help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg")
    p.add_argument("--gray", action="store_true")
    add_data_range(p)
    p.add_argument("--seed", type=int, default=0)


def simulate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.simulate import simulate as run_simulate
    from fastbsn.evaluation.synthetic import parse_noise

    n, failed = run_simulate(args.clean, args.output, parse_noise(args.noise), args.seed, args.gray, data_range=data_range_of(args))
    report(args, {"images": n, "failed": failed}, f"{args.output}: {n} noisy images, {len(failed)} failed")
    return say_failed(failed)


def submit_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("benchmark", choices=("sidd", "dnd"))
    p.add_argument("data", type=Path, help="BenchmarkNoisyBlocksSrgb.mat, or DND's folder with info.mat and images_srgb")
    p.add_argument("-o", "--output", type=Path, required=True, help="SubmitSrgb.mat, or a folder whose bundled/ is to be sent")
    add_model(p, None)


def submit(args: argparse.Namespace) -> int:
    import numpy as np

    from fastbsn.evaluation.submission import submit_dnd, submit_sidd

    d = open_model(args, args.model)

    def denoise(x: np.ndarray) -> np.ndarray:
        return np.asarray(d(x, channel_axis=2, data_range=None if x.dtype == np.uint8 else 1.0))

    if args.benchmark == "sidd":
        n = submit_sidd(denoise, args.data, args.output, {"MethodName": f"fastbsn {args.model}"})
    else:
        n = submit_dnd(denoise, args.data, args.output)
    report(args, {"images": n, "output": str(args.output)}, f"{args.output}: {n} denoised images")
    return 0
