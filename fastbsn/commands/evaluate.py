"""Measuring: `evaluate` and `simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastbsn.commands.shared import add_model, open_model, report
from fastbsn.errors import InputError


def evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("clean", type=Path, help="folder of clean images (or, with --pairs, of NAME_real and NAME_mean images)")
    p.add_argument("--noise", nargs="+", help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg; several make several rows")
    p.add_argument("--noisy", type=Path, help="folder of noisy images of the same names")
    p.add_argument("--pairs", action="store_true", help="CLEAN holds NAME_real.* and NAME_mean.* pairs")
    p.add_argument("--clip", choices=("none", "uint8"), default="none", help="noisy input as an 8-bit file would hold it")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-o", "--output", type=Path, help="also write all figures to this JSON file")
    add_model(p, None)


def evaluate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.datasets import load_pairs
    from fastbsn.evaluation.score import evaluate as run_evaluate
    from fastbsn.evaluation.score import noisy_items, paired_items
    from fastbsn.evaluation.synthetic import parse_noise
    from fastbsn.io.atomic import write_json

    if (args.noise is None) == (not args.pairs and args.noisy is None):
        raise InputError("give exactly one of --noise SPEC, --noisy FOLDER or --pairs: what makes or holds the noisy images")
    d = open_model(args, args.model)
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
    report(args, {"results": results}, "\n".join(lines))
    return 0


def simulate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("clean", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--noise", required=True, help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg")
    p.add_argument("--gray", action="store_true")
    p.add_argument("--seed", type=int, default=0)


def simulate(args: argparse.Namespace) -> int:
    from fastbsn.evaluation.simulate import simulate as run_simulate
    from fastbsn.evaluation.synthetic import parse_noise

    n = run_simulate(args.clean, args.output, parse_noise(args.noise), args.seed, args.gray)
    report(args, {"images": n}, f"{args.output}: {n} noisy images")
    return 0
