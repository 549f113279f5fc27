"""The label engine: any number of processes, any instant, one set of labels; nothing of another model or option among them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fastbsn.commands import main
from fastbsn.commands.label import shard
from fastbsn.errors import InputError, StorageError
from fastbsn.inference.predictor import Predictor
from fastbsn.io.storage import ObjectStore, open_storage
from fastbsn.labelling import Labeller, Options, finish, generate
from fastbsn.training.imageset import to_tensor
from fastbsn.training.labels import LabelSet, label_image, load_teacher
from tests.labelling.helpers import contents, mixed_images, noise, rows, teacher_file
from tests.reliability.numbers import cases, taken

ROOT = Path(__file__).resolve().parents[2]
LATEST = 0.4  # seconds until a run is killed, at most
FINISH = """
import sys
from fastbsn.labelling import Labeller, Options, finish
labeller = Labeller(*sys.argv[1:], options=Options(std=True))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    assert finish(labeller.source, labeller.output, labeller.job, 1) is None
print("done")
"""


@pytest.fixture
def teacher(tmp_path):
    return teacher_file(tmp_path / "teacher.safetensors")


@pytest.fixture
def noisy(tmp_path, rng):
    return mixed_images(tmp_path / "noisy", 7, rng)


@pytest.mark.parametrize("last", [0, 1])
def test_a_corrupt_input_is_in_the_failures_whichever_shard_ends_last(last, noisy, teacher, tmp_path):
    (noisy / "003.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    failed = [generate(noisy, tmp_path / "labels", teacher, shard=(i, 2), progress=False)[1] for i in (1 - last, last)]
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert [f["image"] for f in manifest["failures"]] == ["003.png"] and sum(map(len, failed)) == 1
    assert len(rows(tmp_path / "labels")) == 6
    generate(noisy, tmp_path / "whole", teacher, progress=False)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_a_shard_reads_its_own_inputs_only(noisy, teacher, tmp_path, monkeypatch):
    read, original = [], type(open_storage(noisy)).read
    monkeypatch.setattr("fastbsn.io.storage.Folder.read", lambda s, name, length=None: read.append(name) or original(s, name, length))
    generate(noisy, tmp_path / "labels", teacher, shard=(1, 3), progress=False)
    assert sorted(n for n in read if n.endswith(".png")) == open_storage(noisy).names()[1::3]
    read.clear()
    for i in (0, 2, 1):
        generate(noisy, tmp_path / "labels", teacher, shard=(i, 3), progress=False)
    assert LabelSet.open(tmp_path / "labels").images.names == open_storage(noisy).names()
    assert not [n for n in read if n.endswith(".safetensors") and read.count(n) > 2]  # headers of the shard's own labels, then the set


def test_a_new_input_is_not_taken_for_labelled(noisy, teacher, tmp_path, rng):
    generate(noisy, tmp_path / "labels", teacher, shard=(0, 2), progress=False)
    cv2.imwrite(str(noisy / "new.png"), noise(rng, 30, 30))
    generate(noisy, tmp_path / "labels", teacher, shard=(1, 2), progress=False)
    assert not (tmp_path / "labels" / "manifest.json").exists()
    for i in (0, 1):
        generate(noisy, tmp_path / "labels", teacher, shard=(i, 2), progress=False)
    assert len(rows(tmp_path / "labels")) == 8


@pytest.mark.parametrize(
    "change",
    [{"teacher": 1}, {"std": True}, {"strength": 2.0}, {"tile": 16}, {"dtype": "bfloat16"}, {"content": True}, {"backend": "triton"}],
)
def test_labels_of_another_run_are_never_mixed_in(change, noisy, teacher, tmp_path, rng, monkeypatch):
    out = tmp_path / "labels"
    generate(noisy, out, teacher, dtype="float32", progress=False)
    before = {row["label"] for row in rows(out)}
    options = Options(**{k: v for k, v in change.items() if k in ("std", "strength", "tile")})
    settings = {"dtype": change.get("dtype", "float32"), "options": options}
    if "teacher" in change:
        teacher_file(teacher, seed=1)
    if "content" in change:
        cv2.imwrite(str(noisy / "003.png"), noise(rng, 30, 30))
    if "backend" in change:
        prepared = Predictor.__init__

        def other(self, *args, **kwargs):
            prepared(self, *args, **kwargs)
            object.__setattr__(self.prepared, "backend", "triton")

        monkeypatch.setattr(Predictor, "__init__", other)
    written = generate(noisy, out, teacher, progress=False, **settings)[0]
    after = {row["label"] for row in rows(out)}
    assert written == len(after - before) == (1 if "content" in change else 7)
    assert generate(noisy, out, teacher, progress=False, **settings)[0] == 0


def test_a_label_does_not_depend_on_what_is_computed_with_it(tmp_path, rng, teacher):
    (tmp_path / "noisy").mkdir()
    for i, size in enumerate(((200, 150), (30, 40), (170, 160), (150, 230))):
        cv2.imwrite(str(tmp_path / "noisy" / f"{i}.png"), noise(rng, *size))
    for i in range(3):
        generate(tmp_path / "noisy", tmp_path / "shards", teacher, shard=(i, 3), options=Options(tile=32, batch=4), progress=False)
    generate(tmp_path / "noisy", tmp_path / "whole", teacher, options=Options(tile=32, batch=4), progress=False)
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
    engine, labels = load_teacher(teacher), LabelSet.open(tmp_path / "whole")
    for label, y in zip(labels.images.images, labels.load_noisy().images, strict=True):
        assert (label.int() - label_image(engine, y).label.int()).abs().max() <= 1


def test_images_decode_and_labels_are_written_while_others_compute(noisy, teacher, tmp_path, monkeypatch):
    threads = set()
    original = Labeller._read, Labeller._write
    monkeypatch.setattr(Labeller, "_read", lambda *a: threads.add(threading.current_thread()) or original[0](*a))
    monkeypatch.setattr(Labeller, "_write", lambda *a: threads.add(threading.current_thread()) or original[1](*a))
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    assert threading.main_thread() not in threads and len(threads) > 1


def test_the_engine_labels_one_unit_at_a_time_and_finish_is_for_everybody(noisy, teacher, tmp_path):
    from fastbsn.labelling.inputs import list_units
    from fastbsn.labelling.records import write_record

    labeller = Labeller(noisy, tmp_path / "labels", teacher, options=Options(std=True))
    units = list_units(labeller.source)
    made = [row for unit in units for row in labeller(unit)]
    assert "no manifest yet" in finish(labeller.source, labeller.output, labeller.job, 1)
    write_record(labeller.output, labeller.job, (0, 1), map(json.dumps, made))
    assert finish(labeller.source, labeller.output, labeller.job, 1) is None
    first = contents(tmp_path / "labels")
    arguments = [sys.executable, "-c", FINISH, noisy, tmp_path / "labels", teacher]
    both = [subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    for process in both:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in both):
        assert contents(tmp_path / "labels") == first  # at any time, for whoever reads
    assert [process.communicate()[0] for process in both] == [b"done\n"] * 2
    generate(noisy, tmp_path / "whole", teacher, std=True, progress=False)
    assert contents(tmp_path / "labels") == first == contents(tmp_path / "whole")


def run_label(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "fastbsn", "label", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_the_labels_in_hand(number, code, tmp_path, rng, teacher):
    noisy = mixed_images(tmp_path / "noisy", 60, rng)
    process = run_label(noisy, "-o", tmp_path / "labels", "--teacher", teacher, "--tile", "8")
    while not list((tmp_path / "labels").rglob("*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert "run the same command again" in process.communicate()[1].decode().splitlines()[-1]
    assert process.returncode == code and not (tmp_path / "labels" / "manifest.json").exists()
    assert not list((tmp_path / "labels").rglob(".fastbsn*"))


@pytest.mark.parametrize("tars", [False, True])
def test_kill_9_at_any_instant_with_two_shards(tars, tmp_path, teacher):
    rng = np.random.default_rng(1)
    images, kills = cases("G12 images labelled"), cases("G12 kills of a labelling run")
    noisy = mixed_images(tmp_path / "noisy", images, rng, nested=not tars)
    if tars:
        from fastbsn.io.tars import tar_bytes

        names = open_storage(noisy).names()
        for i in range(0, images, 4):
            (noisy / f"{i:03}.tar").write_bytes(tar_bytes((n, (noisy / n).read_bytes()) for n in names[i : i + 4]))
        for name in names:
            (noisy / name).unlink()
    generate(noisy, tmp_path / "whole", teacher, options=Options(tile=16), progress=False)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.labelling.kills", str(noisy), str(killed), str(teacher), "2", "16"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cut_short, writing = 0, 0
    for i in range(kills):
        how = ("start", "write", "start", "file")[i % 4]
        process.stdin.write(f"{rng.integers(2)} {how} {rng.uniform(0, 3 if how == 'write' else LATEST)}\n")
        process.stdin.flush()
        cut, torn = map(int, process.stdout.readline().split())
        cut_short += cut
        writing += torn > 0
    process.communicate()
    print(f"{kills} kills, {cut_short} of a run that had not ended, {writing} inside a write")
    taken.append(("G12 kills inside a write", writing))
    assert cut_short > kills // 2 and writing > 0, "too few runs were cut short: the test proves nothing on this machine"
    for i in (1, 0):
        generate(noisy, tmp_path / "killed", teacher, options=Options(tile=16), shard=(i, 2), progress=False)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole") and len(rows(tmp_path / "killed")) == images


def test_a_full_disk_leaves_no_torn_file(noisy, teacher, tmp_path):
    generate(noisy, tmp_path / "whole", teacher, progress=False)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limit[1]))
    try:
        with pytest.raises(StorageError, match="needed"):
            generate(noisy, tmp_path / "labels", teacher, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    left = contents(tmp_path / "labels")
    assert left.items() <= contents(tmp_path / "whole").items() and not list((tmp_path / "labels").rglob(".fastbsn*"))
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_an_object_store_that_fails_ends_the_run(noisy, teacher, monkeypatch, request):
    place = f"memory://{request.node.name}"
    system = ObjectStore(place).system
    monkeypatch.setattr(type(system), "pipe_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(StorageError, match="no space"):
        generate(noisy, place, teacher, progress=False)


def test_a_result_that_is_not_finite_is_a_failure_of_its_image(tmp_path, rng, teacher, monkeypatch):
    noisy = mixed_images(tmp_path / "noisy", 3, rng)
    estimate = Predictor.estimate

    def broken(self, y, level=None):
        found = estimate(self, y, level)
        shape = to_tensor(cv2.imread(str(noisy / "000.png"), cv2.IMREAD_UNCHANGED)).shape
        return found._replace(image=found.image * torch.nan) if y.shape[1:] == shape else found

    monkeypatch.setattr(Predictor, "estimate", broken)
    written, failures = generate(noisy, tmp_path / "labels", teacher, progress=False)
    assert written == 2 and len(failures) == 1 and "000.png: the result is not finite" in failures[0]


def test_shards_of_arrays_and_ranks(monkeypatch, capsys, noisy, teacher, tmp_path):
    assert shard(None) == (0, 1) and shard("1/3") == (1, 3)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard(None) == (2, 4) and shard("0/2") == (0, 2)
    for name, value in (("ID", 5), ("COUNT", 3), ("MIN", 4)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert shard(None) == (1, 3)
    with pytest.raises(InputError, match="--shard 3/3"):
        shard("3/3")
    out = str(tmp_path / "labels")
    assert main(["label", str(noisy), "-o", out, "--teacher", str(teacher), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": 2, "failed": []} and os.listdir(tmp_path / "labels" / "records")


def test_folders_of_version_1_still_open(noisy, teacher, tmp_path):
    generate(noisy, tmp_path / "labels", teacher, progress=False)
    out, now = tmp_path / "labels", LabelSet.open(tmp_path / "labels")
    old = [{"image": r["image"], "label": r["label"], "sigma": r["sigma"][0], "error": r["error"][0]} for r in rows(out)]
    (out / "manifest.json").write_text(json.dumps({"version": 1, "source": str(noisy), "noise": "gaussian", "labels": old}))
    then = LabelSet.open(out)
    assert all(map(torch.equal, then.images.images, now.images.images)) and then.sigmas == now.sigmas
    (out / "manifest.json").write_text(json.dumps({"version": 3}))
    with pytest.raises(ValueError, match="version 3"):
        LabelSet.open(out)
