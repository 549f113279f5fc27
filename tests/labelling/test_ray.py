"""Labels on a local Ray cluster: those of one process, byte for byte, also when an actor is killed. `make ray-test`."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
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
    os.environ |= dict.fromkeys(("RAY_worker_register_timeout_seconds", "RAY_raylet_start_wait_time_s"), "600")
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
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            text = path.read_bytes()
            found += [int(path.parent.name)] * (b"ray::" in text and b"LabelActor" in text)
    return found


@pytest.mark.goal("G12 images labelled on Ray, an actor killed", count=IMAGES)
def test_the_labels_of_one_process_also_when_an_actor_is_killed(cluster, inputs, tmp_path):
    noisy, teacher = inputs
    options, killed, ended = Options(tile=16), [], threading.Event()

    def kill() -> None:
        while not killed and not ended.is_set():
            if len(list((tmp_path / "labels").rglob("*.safetensors"))) > IMAGES // 8:
                killed.extend(actors()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        failures = label(noisy, tmp_path / "labels", teacher, options=options, actors=2)[1]
    finally:
        ended.set()
        killer.join()
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
