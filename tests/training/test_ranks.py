"""Training by two ranks: the weights of one rank, and after the death of a rank a relaunch that ends bit-exactly."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fastbsn.errors import TrainingError
from fastbsn.io.weights import load_tensors
from fastbsn.training import monitor
from fastbsn.training.ranks import Ranks, join
from tests.reliability.numbers import cases

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
BOUND = 1e-3  # of the distance that training moved the weights; measured: 2e-5 of a teacher, 1e-6 of a student, in float32
STEPS = 14  # for the bound; after 70 a student is 0.03 away, one rank whose crops are reversed 0.003, `InParts` 0
DEATH = 60  # seconds


def start(ranks: int, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, *(TORCHRUN if ranks > 1 else []), "-m", "tests.training.ranks_run", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen) -> None:
    errors = process.communicate()[1]
    assert process.returncode == 0, errors


def state(output: Path) -> dict[str, torch.Tensor]:
    return load_tensors(output.with_name(output.name + ".run") / "checkpoint.safetensors")[0]


def weights(output: Path) -> torch.Tensor:
    return torch.cat([v.flatten().double() for k, v in sorted(state(output).items()) if k.startswith("network.")])


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_two_ranks_train_to_the_weights_of_one_and_survive_deaths(stage, tmp_path):
    deaths = cases("G15 deaths of a rank")
    steps = 10 + 4 * deaths  # a life is seldom longer than 3 steps
    begun, one, parts, two, whole, killed = (tmp_path / f"{n}.safetensors" for n in ("begun", "one", "parts", "two", "whole", "killed"))
    for output, length in (begun, 1), (one, STEPS):
        finish(start(1, stage, output, length))
    finish(start(1, stage, parts, STEPS, "parts"))
    for output, length in (two, STEPS), (whole, steps):
        finish(start(2, stage, output, length))
    assert torch.equal(weights(two), weights(parts))  # what differs from one rank is the order of the sums
    moved = (weights(one) - weights(begun)).norm()
    assert (weights(two) - weights(one)).norm() <= BOUND * moved
    log = monitor.read_log(two.with_name(two.name + ".run") / "log.csv")
    alone = monitor.read_log(one.with_name(one.name + ".run") / "log.csv")
    assert [int(r["step"]) for r in log] == list(range(2, STEPS + 1, 2))
    assert [float(r["loss"]) for r in log] == pytest.approx([float(r["loss"]) for r in alone], rel=1e-3)

    instants = random.Random(stage)
    for death in range(deaths):
        kill_one(start(2, stage, killed, steps, 0.2), killed, 3 + 2 * death, (death + 1) % 2, instants.uniform(0, 0.3))
        assert not killed.exists()
    finish(start(2, stage, killed, steps))
    first, second = state(whole), state(killed)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def kill_one(process: subprocess.Popen, output: Path, step: int, rank: int, seconds: float) -> None:
    """Kill a rank so many seconds after both have done a step; all are gone in time."""
    notes = [Path(f"{output}.{r}.pid") for r in (0, 1)]
    while not all(n.exists() and n.read_text() and int(n.read_text().split()[1]) >= step for n in notes):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(seconds)
    pids = [int(n.read_text().split()[0]) for n in notes]
    os.kill(pids[rank], signal.SIGKILL)
    died = time.monotonic()
    errors = process.communicate(timeout=DEATH)[1]
    while any(map(running, pids)):
        assert time.monotonic() - died < DEATH
        time.sleep(0.1)
    assert process.returncode != 0, errors
    for note in notes:
        note.unlink()


def test_a_signal_to_torchrun_stops_all_ranks_after_the_same_step(tmp_path):
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    finish(start(2, "student", whole, 8))
    process = start(2, "student", stopped, 8, 0.3)
    while not (note := Path(f"{stopped}.1.pid")).exists() or not note.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=DEATH)[1]
    assert "stopped at step" in errors and not stopped.exists()
    finish(start(2, "student", stopped, 8))
    assert all(torch.equal(v, state(stopped)[k]) for k, v in state(whole).items())


def test_no_thread_of_gloo_outlives_the_ranks():
    """Such a thread may release the last tensor of a sum while Python ends, which aborts the process."""
    code = (
        "from pathlib import Path; from fastbsn.training import ranks; r = ranks.join(); r.total(1.0); r.meet(); ranks._leave()\n"
        "assert not [n for p in Path('/proc/self/task').glob('*/comm') if 'gloo' in (n := p.read_text())]"
    )
    finish(
        subprocess.Popen(
            [sys.executable, *TORCHRUN, "--no-python", sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
    )


def test_a_process_on_its_own_is_rank_0_of_1(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = join()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True) and ranks.total(2.0, 3.0) == [2.0, 3.0]
    x = torch.arange(5.0)
    assert torch.equal(ranks.part((x,))[0], x)


def test_the_parts_of_a_batch_are_the_batch():
    ranks = [Ranks() for _ in range(3)]
    for i, r in enumerate(ranks):
        r.rank, r.size = i, 3
    x, y = torch.arange(7.0), torch.rand(7, 2)
    parts = [r.part((x, y)) for r in ranks]
    assert torch.equal(torch.cat([p[0] for p in parts]), x) and torch.equal(torch.cat([p[1] for p in parts]), y)
    with pytest.raises(TrainingError, match="2 crops for 3 processes"):
        ranks[0].part((x[:2],))
