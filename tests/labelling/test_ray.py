"""Labels on a local Ray cluster: those of one process, byte for byte, also when an actor is killed. `make ray-test`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fastbsn.commands import main
from fastbsn.errors import InputError
from fastbsn.labelling import Options, generate
from fastbsn.scale.ray import label
from tests.labelling.helpers import contents, mixed_images, rows, teacher_file

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]
IMAGES = 300


@pytest.fixture(scope="module")
def cluster():
    import ray

    os.environ["RAY_worker_niceness"] = "0"  # by default 15: on a machine that does other things, workers would take minutes to start
    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def inputs(tmp_path, rng):
    noisy = mixed_images(tmp_path / "noisy", IMAGES, rng)
    (noisy / "003.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return noisy, teacher_file(tmp_path / "teacher.safetensors")


def actors() -> list[int]:
    """Process numbers of the actors that label."""
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "ray::" in line and "LabelActor" in line]


@pytest.mark.goal("G12 images labelled on Ray, an actor killed", count=IMAGES)
def test_the_labels_of_one_process_also_when_an_actor_is_killed(cluster, inputs, tmp_path):
    noisy, teacher = inputs
    options, killed = Options(tile=16), []

    def kill() -> None:
        while not killed:
            if len(list((tmp_path / "labels").rglob("*.safetensors"))) > IMAGES // 8:
                killed.extend(actors()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    failures = label(noisy, tmp_path / "labels", teacher, options=options, actors=2)[1]
    killer.join(timeout=10)
    assert killed and len(failures) == 1 and failures[0].startswith("003.png")
    generate(noisy, tmp_path / "whole", teacher, options=options, progress=False)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole") and len(rows(tmp_path / "labels")) == IMAGES - 1


def test_the_command(cluster, inputs, tmp_path, capsys):
    noisy, teacher = inputs
    arguments = ["label", str(noisy), "-o", str(tmp_path / "labels"), "--teacher", str(teacher), "--ray", "--actors", "2"]
    assert main(arguments) == 1 and f"{IMAGES - 1} labels written, 1 failed" in capsys.readouterr().out
    assert main(arguments) == 1 and "0 labels written, 1 failed" in capsys.readouterr().out
    assert main([*arguments, "--shard", "0/2"]) == 2
    with pytest.raises(InputError, match="actors=0"):
        label(noisy, tmp_path / "labels", teacher, actors=0)
