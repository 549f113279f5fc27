"""How many cases a reliability goal asks for, and how many a normal run takes: FASTBSN_LONG=1 runs them all."""

from __future__ import annotations

import os

LONG = os.environ.get("FASTBSN_LONG") == "1"
CASES = {  # goal: (normal run, full)
    "G1 mutated weight files": (1200, 1_000_000),
    "G2 mutated images": (2000, 100_000),
    "G11 kills of a training run": (6, 500),
    "G12 kills of a labelling run": (7, 200),
    "G12 images labelled": (40, 300),
    "G13 disk-full cut points": (80, 250),
    "G14 writes": (200, 1600),
    "G14 reads": (2000, 10_000),
    "G4 shapes, channels, dtypes, layouts": (735, 8820),
    "G5 random tile plans": (20_000, 20_000),
    "G5 pixels of the large image": (24_000_000, 120_000_000),
    "G6 images with non-finite pixels": (100, 1000),
    "G17 repeats": (100, 100),
    "one minute of training, steps": (12, 120),
    "student shapes": (6, 60),
}


def cases(goal: str) -> int:
    normal, full = CASES[goal]
    if not LONG and normal < full:
        print(f"reduced: {goal}: {normal} of {full}; FASTBSN_LONG=1 runs all")
    return full if LONG else normal
