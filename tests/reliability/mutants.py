"""Damaged files by the thousand, in a process of its own: `python -m tests.reliability.mutants images|weights COUNT SEED`."""

from __future__ import annotations

import io
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import tifffile

from fastbsn.errors import FileFormatError
from fastbsn.io.image_files import read_image, write_image
from fastbsn.io.mat import read_mat
from fastbsn.io.stacks import read_stack
from tests.io.files import png, repair_checksums

Seeds = list[tuple[str, bytes, Callable[[Path], object]]]  # suffix, valid file, reader


def image_seeds(folder: Path) -> Seeds:
    rng = np.random.default_rng(0)
    colour = cv2.GaussianBlur(rng.integers(0, 256, (33, 41, 3), np.uint8), (9, 9), 3)
    arrays = [colour, colour[..., 0], colour.astype(np.uint16) * 200]
    seeds: Seeds = [(".png", png(array, interlaced=True), read_image) for array in arrays]
    for suffix in (".png", ".jpg", ".tif", ".npy"):
        for array in arrays[: 2 if suffix == ".jpg" else 3]:
            write_image(folder / f"seed{suffix}", array)
            seeds.append((suffix, (folder / f"seed{suffix}").read_bytes(), read_image))
    seeds.append((".jpg", cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(), read_image))
    for compression in ("zlib", "lzw", "zstd", "jpeg", "lzma", "packbits"):
        file = io.BytesIO()
        tifffile.imwrite(file, colour, compression=compression)
        seeds.append((".tif", file.getvalue(), read_image))
    for options in ({"imagej": True}, {"ome": True, "compression": "zlib"}, {"bigtiff": True, "metadata": {"axes": "ZYX"}}):
        file = io.BytesIO()
        tifffile.imwrite(file, np.stack([colour[..., 0]] * 3), photometric="minisblack", **options)
        seeds.append((".tif", file.getvalue(), read_stack))
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, {"x": colour}, do_compression=compressed)
        seeds.append((".mat", file.getvalue(), lambda path: read_mat(path, "x", "uint8")))
    return seeds


def weight_seeds(folder: Path) -> Seeds:
    import torch

    from fastbsn.io.weights import load_networks, save_networks
    from fastbsn.nets import DBSN, NoiseModel, UNet

    def load(path: Path) -> None:
        networks, header = load_networks(path)
        finite = all(torch.isfinite(tensor).all() for net in networks.values() for tensor in net.state_dict().values())
        assert networks and isinstance(header, dict) and finite, "a poisoned model was loaded"

    seeds: Seeds = []
    for networks in (
        {"student": UNet(1, 6, 1), "noise": NoiseModel("gaussian", 1, 2, 2)},
        {"teacher": DBSN(1, 2, 1), "noise": NoiseModel("multivariate", 3, 2, 2)},
    ):
        save_networks(folder / "seed", networks, {"metrics": {"psnr": 1.0}}, torch.float16)
        seeds.append((".safetensors", (folder / "seed").read_bytes(), load))
    return seeds


def mutate(data: bytes, r: random.Random, header: int) -> bytes:
    """One of: flipped bits, a cut, a new byte, a run of one value, a copied piece. Half of them near the start."""
    mutant = bytearray(data)
    reach = min(len(data), header if r.random() < 0.5 else len(data))
    position, kind = r.randrange(reach), r.randrange(5)
    if kind == 0:
        for _ in range(r.choice((1, 1, 2, 5))):
            mutant[r.randrange(reach)] ^= 1 << r.randrange(8)
    elif kind == 1:
        del mutant[r.randrange(len(data)) :]
    elif kind == 2:
        mutant[position] = r.randrange(256)
    elif kind == 3:
        end = min(len(data), position + r.randrange(1, 9))
        mutant[position:end] = bytes([r.choice((0, 255, r.randrange(256)))]) * (end - position)
    else:
        start = r.randrange(reach)
        mutant[position:position] = mutant[start : start + r.randrange(1, 30)]
    return bytes(mutant)


def run(kind: str, count: int, seed: int) -> dict[str, object]:
    """Read `count` mutants: numbers of valid and refused ones, other exceptions, slowest in CPU seconds, peak growth in MiB."""
    r, outcome = random.Random(seed), {"valid": 0, "refused": 0}
    unexpected, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = image_seeds(folder) if kind == "images" else weight_seeds(folder)
        for suffix, data, read in seeds:
            (folder / f"whole{suffix}").write_bytes(data)
            read(folder / f"whole{suffix}")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(count):
            suffix, data, read = r.choice(seeds)
            mutant = mutate(data, r, 400 if kind == "images" else 2500)
            if suffix == ".png" and r.random() < 0.7:
                mutant = repair_checksums(mutant)
            path = folder / f"mutant{suffix}"
            path.write_bytes(mutant)
            start = time.process_time()
            try:
                read(path)
                outcome["valid"] += 1
            except FileFormatError:
                outcome["refused"] += 1
            except Exception as error:
                unexpected.append(f"mutant {i} of seed {seed} ({suffix}): {error!r}")
            slowest = max(slowest, time.process_time() - start)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {**outcome, "unexpected": unexpected[:10], "slowest": slowest, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
