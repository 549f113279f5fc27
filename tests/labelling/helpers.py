"""Small teachers, inputs of mixed sizes, and what a label folder holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from fastbsn.io.storage import open_storage
from fastbsn.io.weights import save_networks
from fastbsn.nets import DBSN, NoiseModel


def teacher_file(path: Path, channels: int = 1, noise: str = "gaussian", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    networks = {"teacher": DBSN(channels, 8, 1, "light")}
    if noise != "correlated":
        networks["noise_model"] = NoiseModel(noise, channels, 8)
    save_networks(path, networks, {"kind": "teacher", "noise": noise, "stride": 2 if noise == "correlated" else None})
    return path


def mixed_images(folder: Path, count: int, rng: np.random.Generator, nested: bool = True) -> Path:
    """PNG files of sizes 24 to 72; if nested, two of three, and the third in a sub-folder under the first one's name."""
    for i in range(count):
        place = folder / "sub" if nested and i % 3 == 0 else folder
        place.mkdir(parents=True, exist_ok=True)
        name = f"{i - i % 3:03}{'c' if i % 3 == 2 else ''}" if nested else f"{i:03}"
        cv2.imwrite(str(place / f"{name}.png"), noise(rng, *rng.integers(24, 73, 2)))
    return folder


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def contents(place: str | Path) -> dict[str, str]:
    """Digests of labels and rows, and the manifest without its source; records, which say which process did what, are left out."""
    storage = open_storage(place)
    found = {n: storage.read(n) for n in storage.names() if not n.startswith("records/")}
    if "manifest.json" in found:
        found["manifest.json"] = json.dumps({k: v for k, v in json.loads(found["manifest.json"]).items() if k != "source"}).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def rows(place: str | Path) -> list[dict]:
    storage = open_storage(place)
    return [json.loads(line) for line in storage.read(json.loads(storage.read("manifest.json"))["rows"]).splitlines()]
