"""Memory of a labelling process: that of the images in hand, however many there are."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

from fastbsn.labelling import Labeller
from fastbsn.labelling.engine import AHEAD
from fastbsn.labelling.inputs import Image
from fastbsn.labelling.job import THREADS
from tests.labelling.helpers import mixed_images, teacher_file

ROOT = Path(__file__).resolve().parents[2]
IMAGES, FACTOR = 50, 8
# Of the peak. Measured: 1.03; 1.13 with PyTorch's own bounds of what it keeps of every size. After 50 sizes the caches are full.
GROWTH = 1.05
PEAKS = f"""
import sys
from fastbsn.labelling import Labeller
from benchmarks.labelling import peak
from fastbsn.labelling.inputs import list_units
labeller = Labeller(*sys.argv[1:])
for n, _ in enumerate(labeller.run(list_units(labeller.source)), 1):
    if n in ({IMAGES}, {IMAGES * FACTOR}):
        print(peak())
"""


def test_no_image_outlives_its_label(tmp_path, rng):
    noisy = mixed_images(tmp_path / "noisy", 60, rng)
    labeller = Labeller(noisy, tmp_path / "labels", teacher_file(tmp_path / "teacher.safetensors"))
    alive = []
    for _ in labeller.run(labeller.source.names()):
        gc.collect()
        alive.append(sum(isinstance(o, Image) for o in gc.get_objects()))
    # decoded and waiting, being computed, waiting to be written, and what the threads themselves hold
    assert len(alive) == 60 and max(alive) <= 2 * (AHEAD + 1) + 2 * THREADS < 40
    gc.collect()
    assert not any(isinstance(o, Image) for o in gc.get_objects())


def test_sizes_that_all_differ_are_not_kept(tmp_path, rng):
    noisy, teacher = mixed_images(tmp_path / "noisy", IMAGES * FACTOR, rng), teacher_file(tmp_path / "teacher.safetensors")
    command = [sys.executable, "-c", PEAKS, str(noisy), str(tmp_path / "labels"), str(teacher)]
    environment = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    first, last = map(int, done.stdout.split())
    assert last <= GROWTH * first
