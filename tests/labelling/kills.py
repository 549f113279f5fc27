"""Labelling runs that are killed: python -m tests.labelling.kills NOISY LABELS TEACHER SHARDS TILE.

Reads lines "SHARD SECONDS WAIT"; for each forks a process that labels the shard and kills it (SIGKILL) after these seconds, counted from
its start or, if WAIT is 1, from the first file that it begins to write. Answers "CUT WROTE": whether that cut it short, and whether it had
begun to write. The imports are paid once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from fastbsn.labelling import Options, generate


def files(output: str) -> set[Path]:
    """All that is there, temporary files too."""
    return {p for p in Path(output).rglob("*") if not p.is_dir()}


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def main(noisy: str, output: str, teacher: str, shards: str, tile: str) -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        index, seconds, wait = line.split()
        before = files(output)
        child = os.fork()
        if child == 0:
            try:
                generate(noisy, output, teacher, options=Options(tile=int(tile)), shard=(int(index), int(shards)), progress=False)
            finally:
                os._exit(0)
        while wait == "1" and files(output) <= before and running(child):
            time.sleep(0.0005)
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
        print(int(os.WIFSIGNALED(os.waitpid(child, 0)[1])), int(not files(output) <= before), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
