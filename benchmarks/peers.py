"""Other denoisers on the same images in the same run: speed and PSNR.

    python -m benchmarks.peers --images CLEAN_FOLDER [--train CLEAN_FOLDER --minutes 10] [--limit 12]

Classical methods are told sigma; fastbsn's bundled student is blind. With --train, `fastbsn.training.fit` and CAREamics' Noise2Void
are trained from nothing for the same minutes on the same noisy images. CAREamics needs an environment of its own
(`pip install careamics`, Python 3.11 or later): name its interpreter with --careamics.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.machine import ROOT, describe
from benchmarks.harness.measure import Unavailable
from benchmarks.render.tables import render
from benchmarks.subjects import classical
from benchmarks.subjects.networks import student
from fastbsn import Denoiser
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import NoiseSpec, parse_noise
from fastbsn.io.atomic import write_json
from fastbsn.io.image_files import list_images, read_image
from fastbsn.pixels import as_unit

Array = np.ndarray
CAREAMICS = Path(classical.__file__).with_name("careamics_worker.py")


def read(folder: Path, limit: int | None, gray: bool) -> list[Array]:
    """Images of a folder as [C, H, W] in [0, 1], evenly chosen if there are more than `limit`."""
    paths = list_images(folder)
    chosen = paths if limit is None or limit >= len(paths) else [paths[i * len(paths) // limit] for i in range(limit)]
    return [as_unit(read_image(path), gray) for path in chosen]


def score(clean: Sequence[Array], denoised: Sequence[Array], seconds: float) -> dict[str, float]:
    values = [psnr(a, np.clip(b, 0, 1)) for a, b in zip(clean, denoised, strict=True)]
    return {"psnr": round(float(np.mean(values)), 3), "seconds": round(seconds / len(clean), 4)}


def timed(denoise: Callable[[Array], Array], clean: Sequence[Array], noisy: Sequence[Array]) -> dict[str, float]:
    denoise(noisy[0])
    start = time.perf_counter()
    outputs = [denoise(y) for y in noisy]
    return score(clean, outputs, time.perf_counter() - start)


def _channels_last(f: Callable[[Array, float], Array], sigma: float) -> Callable[[Array], Array]:
    def denoise(y: Array) -> Array:
        if len(y) == 1:
            return f(y[0], sigma)[None]
        return f(np.ascontiguousarray(y.transpose(1, 2, 0)), sigma).transpose(2, 0, 1)

    return denoise


def fitted(train: Sequence[Array], clean: Sequence[Array], noisy: Sequence[Array], minutes: float) -> dict[str, Any]:
    """Both stages of fastbsn, from nothing."""
    from fastbsn.training import fit

    net = fit([y.transpose(1, 2, 0).astype(np.float16) for y in train], minutes=minutes, device="cpu").networks["student"]
    d = Denoiser({"student": net}, device="cpu")
    return timed(lambda y: d(y, channel_axis=0, data_range=1.0), clean, noisy) | {"train_minutes": minutes}


def careamics(python: str, train: Sequence[Array], clean: Sequence[Array], noisy: Sequence[Array], minutes: float) -> dict[str, Any]:
    """Noise2Void of CAREamics in its own interpreter, arrays handed over in files."""
    with tempfile.TemporaryDirectory(prefix="fastbsn-peers-") as temporary:
        folder = Path(temporary)
        for name, images in (("train", train), ("test", noisy)):
            np.savez(folder / f"{name}.npz", *[x.astype(np.float32) for x in images])
        done = subprocess.run([python, str(CAREAMICS), str(folder), str(minutes)], capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Unavailable(f"careamics did not run ({lines[-1] if lines else 'no output'})")
        with np.load(folder / "output.npz", allow_pickle=False) as file:
            outputs = [file[f"arr_{i}"] for i in range(len(clean))]
            return score(clean, outputs, float(file["seconds"])) | {"train_minutes": minutes, "version": str(file["version"])}


def run(args: argparse.Namespace, noise: NoiseSpec) -> list[dict[str, Any]]:
    clean = read(args.images, args.limit, args.gray)
    noisy = [noise.add(x, args.seed) for x in clean]
    sigma = noise.values[0] / 255
    net, weights = student(1 if args.gray else 3)
    d = Denoiser({"student": net}, device="cpu")
    todo: dict[str, tuple[bool, Callable[[], dict[str, Any]]]] = {
        f"fastbsn ({weights})": (False, lambda: timed(lambda y: d(y, channel_axis=0, data_range=1.0), clean, noisy))
    }
    for name, f in classical.METHODS.items():
        todo[name] = (True, lambda f=f: timed(_channels_last(f, sigma), clean, noisy))
    if args.train:
        train = [noise.add(x, args.seed + 1 + i) for i, x in enumerate(read(args.train, None, args.gray))]
        todo["fastbsn fit"] = (False, lambda: fitted(train, clean, noisy, args.minutes))
        todo["CAREamics Noise2Void"] = (False, lambda: careamics(args.careamics, train, clean, noisy, args.minutes))
    rows = []
    for name, (told, method) in todo.items():
        row: dict[str, Any] = {"method": name, "told_sigma": told}
        try:
            row |= method()
        except Unavailable as reason:
            row["reason"] = str(reason)
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of clean test images")
    parser.add_argument("--train", type=Path, help="folder of clean images, made noisy, to train the learned methods on")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training (%(default)s)")
    parser.add_argument("--noise", default="gaussian:25", help="gaussian:SIGMA (%(default)s)")
    parser.add_argument("--gray", action="store_true")
    parser.add_argument("--limit", type=int, help="number of test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--careamics", default=sys.executable, metavar="PYTHON", help="interpreter that has careamics (default: this one)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "local" / "peers.json", help="%(default)s")
    args = parser.parse_args(argv)
    noise = parse_noise(args.noise)
    if noise.kind != "gaussian" or len(noise.values) != 1:
        parser.error(f"--noise {args.noise}: the classical methods are told one sigma; expected gaussian:SIGMA")
    rows = run(args, noise)
    n = min(args.limit or 10**9, len(list_images(args.images)))
    settings = {"images": args.images.name, "n": n, "noise": str(noise), "seed": args.seed, "gray": args.gray}
    result = {"machine": describe(), "settings": settings, "methods": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(render("peers", result))


if __name__ == "__main__":
    main()
