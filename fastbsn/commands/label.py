"""`label`: pseudo-labels, by one process or by many."""

from __future__ import annotations

import argparse
import os
import sys

from fastbsn.commands.shared import add_backend, report
from fastbsn.errors import InputError

ARRAYS = (("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"), ("RANK", "WORLD_SIZE", ""))


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("noisy", help="folder or URL (s3://, gs://, ...) of images, stacks, .npy or .tar files, with its sub-folders")
    p.add_argument("-o", "--output", required=True, help="label folder, or its URL")
    p.add_argument("--teacher", required=True, help="labelling model: teacher.safetensors, or a student by file or bundled name")
    add_backend(p)
    p.add_argument("--std", action="store_true", help="also store the standard deviation of each pixel's error")
    p.add_argument("--strength", type=float, default=1.0, help="2: photographs labelled by a model of white noise (%(default)s)")
    p.add_argument("--tile", type=int, help="pixels on a side of the tiles of larger images (as 1 GiB of working memory allows)")
    p.add_argument("--batch", type=int, help="tiles computed together (1 on a CPU, 4 on a GPU)")
    p.add_argument(
        "--shard", metavar="I/N", help="label every N-th file starting at I; default: as SLURM_ARRAY_TASK_ID or RANK says, where set"
    )

    p.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="on the Ray cluster at this address; without one, RAY_ADDRESS or this machine"
    )
    p.add_argument("--actors", type=int, help="with --ray: number of processes (one per GPU; without GPUs, one per CPU)")


def shard(text: str | None) -> tuple[int, int]:
    """(i, n) of "i/n", or of an array of SLURM jobs or the ranks of torchrun that this process belongs to."""
    if text is None:
        for index, count, first in ARRAYS:
            if index in os.environ and count in os.environ:
                text = f"{int(os.environ[index]) - int(os.environ.get(first, 0))}/{os.environ[count]}"
                break
    i, _, n = (text or "0/1").partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise InputError(f"--shard {text}: expected I/N with 0 <= I < N, for instance 0/2")
    return int(i), int(n)


def run(args: argparse.Namespace) -> int:
    from fastbsn.labelling import Options, generate

    places = args.noisy, args.output, args.teacher, args.device, args.backend, args.dtype
    options = Options(args.std, args.strength, args.tile, args.batch)
    if args.ray is None:
        written, failures = generate(*places, shard=shard(args.shard), options=options)
    else:
        from fastbsn.scale import ray

        if args.shard:
            raise InputError(f"--shard {args.shard} with --ray, which shares the work by itself; give one of the two")
        written, failures = ray.label(*places, options=options, address=args.ray or None, actors=args.actors)
    report(args, {"written": written, "failed": failures}, f"{args.output}: {written} labels written, {len(failures)} failed")
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0
