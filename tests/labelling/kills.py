"""Labelling runs that are killed: python -m tests.labelling.kills NOISY LABELS TEACHER SHARDS TILE.

Reads lines "SHARD HOW NUMBER"; for each forks a process that labels the shard and kills it (SIGKILL): NUMBER seconds after its start
("start") or after the first file that it begins to write ("file"), or inside a write, at 2.25 when it has written a quarter of the bytes
of its third file ("write"). Answers "CUT TORN": whether that cut it short, and how many files it left half written, under temporary names.
The imports are paid once.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import torch

from fastbsn.io import atomic
from fastbsn.labelling import Options, generate


def files(output: str) -> set[Path]:
    """All that is there, temporary files too."""
    return {p for p in Path(output).rglob("*") if not p.is_dir()}


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def kill_inside_a_write(number: float) -> None:
    """This process kills itself, see above."""
    write, before = atomic._File.write, itertools.count()

    def torn(file: atomic._File, data: bytes) -> int:
        if next(before) != int(number):
            return write(file, data)
        write(file, data[: int(len(data) * (number % 1))])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    atomic._File.write = torn


def main(noisy: str, output: str, teacher: str, shards: str, tile: str) -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        index, how, number = line.split()
        before = files(output)
        child = os.fork()
        if child == 0:
            try:
                if how == "write":
                    kill_inside_a_write(float(number))
                generate(noisy, output, teacher, options=Options(tile=int(tile)), shard=(int(index), int(shards)), progress=False)
            finally:
                os._exit(0)
        if how != "write":
            while how == "file" and files(output) <= before and running(child):
                time.sleep(0.0005)
            time.sleep(float(number))
            os.kill(child, signal.SIGKILL)
        cut = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        print(int(cut), sum(p.name.startswith(".fastbsn") for p in files(output) - before), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
