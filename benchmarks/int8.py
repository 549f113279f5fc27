"""What INT8 would cost the student in quality: 8-bit arithmetic simulated in PyTorch, before anybody writes a kernel for it.

    python -m benchmarks.int8 --clean cbsd68 --calibrate bsds500/train --model color-awgn --out benchmarks/results/int8.json

Weights: signed, one scale per output channel, symmetric. Activations: unsigned with a zero point, one scale per tensor (the image that
`dec0a` reads beside the features has its own), range from a few noisy images. Products are exact, as they are in int32. A layer that is
not quantised runs in float32. The gate of the option is a loss of at most 0.05 dB.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness.machine import describe
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import load_clean
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.io.atomic import write_json
from fastbsn.nets import UNet

GATE = 0.05  # dB
LEVEL0 = ("enc0", "enc1", "dec0a", "dec0b", "out")
Range = tuple[float, float]


def quantise_weight(w: Tensor) -> Tensor:
    """[O, I, k, k] rounded to 127 steps either side of zero, a scale per output channel."""
    scale = w.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 127
    return (w / scale).round() * scale


def quantise(x: Tensor, bounds: Range) -> Tensor:
    """x rounded to the 256 values of a range that holds zero exactly."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def parts(name: str, x: Tensor, image_channels: int) -> list[Tensor]:
    """Tensors that have a scale of their own in the input of a layer."""
    return list(x.split([x.shape[1] - image_channels, image_channels], 1)) if name == "dec0a" else [x]


@contextmanager
def watched(net: UNet, act: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Pass the input of every convolution through `act`."""
    layers = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    handles = [m.register_forward_pre_hook(lambda m, x, name=name: (act(name, x[0]),)) for name, m in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def calibrate(net: UNet, images: list[Tensor], share: float) -> dict[str, list[Range]]:
    """Range of each layer's input over the images: the mean over images of the quantiles that leave `share` outside on each side."""
    found: dict[str, list[list[Range]]] = {}

    def look(name: str, x: Tensor) -> Tensor:
        ranges = []
        for p in parts(name, x, net.config["in_channels"]):
            values = p.flatten().sort().values
            k = int(share * (len(values) - 1))
            ranges.append((float(values[k]), float(values[len(values) - 1 - k])))
        found.setdefault(name, []).append(ranges)
        return x

    with watched(net, look):
        for y in images:
            net(y)
    return {name: [tuple(np.mean([r[i] for r in seen], axis=0)) for i in range(len(seen[0]))] for name, seen in found.items()}


def score(net: UNet, pairs: list[tuple[np.ndarray, Tensor]], act: Callable[[str, Tensor], Tensor]) -> float:
    with torch.no_grad(), watched(net, act):
        return float(np.mean([psnr(x, net(y)[0].clamp(0, 1).numpy()) for x, y in pairs]))


def run(args: argparse.Namespace) -> dict[str, Any]:
    d = Denoiser.from_pretrained(args.model, device="cpu", backend="reference", dtype="float32")
    net = d.networks_["student"]
    assert isinstance(net, UNet)
    channels = net.config["in_channels"]
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    plans = {
        "weights only": [],
        "all layers": layers,
        "all but the first and the last": [n for n in layers if n not in ("enc0", "out")],
        "levels 1 and below": [n for n in layers if n not in LEVEL0],
    }
    noise = [parse_noise(f"gaussian:{s}") for s in args.sigma]
    samples = [x for _, x in load_clean(args.calibrate, channels)][:: args.every][: args.samples]
    calibration = [torch.from_numpy(noise[i % len(noise)].add(x, 100 + i))[None].float() for i, x in enumerate(samples)]
    clean = [x for _, x in load_clean(args.clean, channels)][: args.limit]
    pairs = [[(x, torch.from_numpy(spec.add(x, 0))[None].float()) for x in clean] for spec in noise]
    fp32 = [score(net, p, lambda name, x: x) for p in pairs]
    rows = []
    for share in args.outside:
        bounds = calibrate(net, calibration, share)
        for plan, chosen in plans.items():
            rounded = copy.deepcopy(net)
            for name, m in rounded.named_modules():
                if isinstance(m, nn.Conv2d) and (name in chosen or plan == "weights only"):
                    m.weight.data = quantise_weight(m.weight.data)

            def act(name: str, x: Tensor, chosen: list[str] = chosen, bounds: dict[str, list[Range]] = bounds) -> Tensor:
                if name not in chosen:
                    return x
                return torch.cat([quantise(p, b) for p, b in zip(parts(name, x, channels), bounds[name], strict=True)], 1)

            scores = [score(rounded, p, act) for p in pairs]
            difference = [round(a - b, 3) for a, b in zip(scores, fp32, strict=True)]
            row: dict[str, Any] = {"plan": plan, "outside": share, "sigma": args.sigma, "psnr": [round(s, 3) for s in scores]}
            rows.append(row | {"fp32": [round(s, 3) for s in fp32], "difference": difference, "passes": min(difference) >= -GATE})
            print(rows[-1], flush=True)
    return {"machine": describe(), "model": args.model, "clean": args.clean.name, "images": len(clean), "gate_db": GATE, "rows": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean test images")
    parser.add_argument("--calibrate", type=Path, required=True, help="folder of images for the ranges; noise is added")
    parser.add_argument("--model", default="color-awgn")
    parser.add_argument("--sigma", type=int, nargs="+", default=[15, 25, 50])
    parser.add_argument("--outside", type=float, nargs="+", default=[0.0, 1e-5], help="share of values clipped on each side")
    parser.add_argument("--samples", type=int, default=6, help="images for the ranges (%(default)s)")
    parser.add_argument("--every", type=int, default=30, help="take every n-th of them (%(default)s)")
    parser.add_argument("--limit", type=int, help="test images")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    result = run(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    print(render("int8", result))


if __name__ == "__main__":
    main()
