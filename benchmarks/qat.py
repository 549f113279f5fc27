"""The student in INT8, trained for it: before and after quantisation-aware training, simulated in PyTorch.

    python -m benchmarks.qat --labels LABELS --clean cbsd68 --pairs polyu --work runs/qat -o benchmarks/results/qat.json

Arithmetic of an INT8 kernel: every tensor that a quantised layer reads has 256 values of its own range, zero among them; weights have 127
steps either side of zero, one scale per output channel and input, and, of the upsampled part, per phase of the output, after the taps are
summed. Products are exact, as they are in int32; sums, biases and activations are float32. "before": ranges from noisy images, weights of
the model. "after": weights and ranges trained on labels with fresh noise of sigma 0 to 55; the gradient passes rounding as if there were
none (straight-through; ranges as in Esser et al., Learned step size quantization, ICLR 2020). The loss is what the PSNR loses: the squared
difference from the model's output over the model's own squared error. A variant whose weights are in the work folder is not trained again.
The gate is a loss of at most 0.02 dB.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness.machine import describe
from benchmarks.int8 import LEVEL0
from benchmarks.render.tables import render
from fastbsn import Denoiser
from fastbsn.evaluation.datasets import load_clean, load_pairs
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.int8 import find_ranges
from fastbsn.io.atomic import write_json
from fastbsn.io.weights import load_tensors, save_tensors
from fastbsn.nets import UNet, pad_to_multiple
from fastbsn.nets.unet import upsample_weight
from fastbsn.ops.topology import SLOPE, Layer
from fastbsn.training import StudentConfig, Variety
from fastbsn.training.labels import LabelSet
from fastbsn.training.loop import warmup_cosine
from fastbsn.training.student import StudentTask

GATE = 0.02  # dB
PLANS = ("levels 1 and below", "all but the first and the last", "all layers", "all layers, the image in 16 bits")
ERROR = (0.5 / 255) ** 2  # squared error that even a perfect output is taken to have
Images = list[tuple[np.ndarray, np.ndarray]]  # noisy and clean, [C, H, W]


def rounded(x: Tensor) -> Tensor:
    """x rounded; the gradient passes as if it were not."""
    return x + (x.round() - x).detach()


def quantised_weight(w: Tensor, dims: tuple[int, ...]) -> Tensor:
    """w rounded to 127 steps either side of zero; one scale for what lies along `dims`."""
    scale = w.detach().abs().amax(dims, keepdim=True).clamp_min(1e-12) / 127
    return rounded(w / scale) * scale


class Range(nn.Module):
    """256 values from `low` to `high`, zero among them; the bounds are learned as factors of those first found."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.register_buffer("bounds", torch.tensor([min(low, 0.0), max(high, 1e-6)]))
        self.factors = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.bounds * self.factors.clamp_min(1e-3)
        step = (high - low) / 255
        zero = rounded(-low / step)
        return ((rounded(x / step) + zero).clamp(0, 255) - zero) * step


class Int8UNet(nn.Module):
    """`net`, of which the layers `chosen` compute in INT8.

    Args:
        exact_image: what these layers read of the image stays as it is, and so do its weights.
        ranges: least and greatest value of everything that a chosen layer reads, by name as in `Layer.inputs`.
    """

    def __init__(self, net: UNet, chosen: Collection[str], ranges: Mapping[str, Sequence[float]], exact_image: bool = False):
        super().__init__()
        self.exact_image = exact_image
        self.layers, self.multiple, self.chosen = net.layers, net.multiple, frozenset(chosen)
        self.upsampled = {layer.upsampled for layer in net.layers}
        self.weights = nn.ParameterDict({n: p.detach().clone() for n, p in _parameters(net)})
        read = {name for layer in net.layers if layer.name in self.chosen for name in layer.inputs} - ({"image"} if exact_image else set())
        self.ranges = nn.ModuleDict({name: Range(*ranges[name]) for name in sorted(read)})

    def part(self, source: str, x: Tensor, w: Tensor, int8: bool) -> Tensor:
        """What one input of a layer adds to its sums."""
        int8 = int8 and not (self.exact_image and source == "image")
        x = self.ranges[source](x) if int8 else x
        if source not in self.upsampled:
            return F.conv2d(x, quantised_weight(w, (1, 2, 3)) if int8 else w, padding=1)
        w = upsample_weight(w).to(w.dtype)
        if int8:
            w = quantised_weight(w.unflatten(3, (2, 2)).unflatten(2, (2, 2)), (0, 2, 4)).flatten(4).flatten(2, 3)
        return F.conv_transpose2d(x, w, stride=2, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        at, (h, w) = {"image": pad_to_multiple(y, self.multiple)}, y.shape[-2:]
        for layer in self.layers:
            weight, bias = self.weights[layer.name + "_weight"], self.weights[layer.name + "_bias"]
            parts = zip(layer.inputs, weight.split(layer.in_channels, 1), strict=True)
            x = sum((self.part(source, at[source], p, layer.name in self.chosen) for source, p in parts), bias[:, None, None])
            x = F.leaky_relu(x, SLOPE) if layer.activated else x
            at[layer.result] = F.max_pool2d(x, 2) if layer.pooled else x
        return y - x[..., :h, :w]


def _parameters(net: UNet) -> Iterator[tuple[str, Tensor]]:
    for layer, conv in zip(net.layers, net.convolutions, strict=True):
        yield layer.name + "_weight", conv.weight
        yield layer.name + "_bias", conv.bias


def train(student: Int8UNet, net: UNet, labels: LabelSet, steps: int, lr: float, crop: int) -> list[float]:
    """Train weights and ranges; returns the loss of every step: the share by which the squared error has grown."""
    task = StudentTask(labels, StudentConfig(crop=crop, sigma=(0, 55), variety=Variety(recolour=0.5)), torch.device("cpu"), 0)
    places, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    factors = [r.factors for r in student.ranges.values()]
    groups = [{"params": list(student.weights.values()), "lr": lr}, {"params": factors, "lr": 20 * lr}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step / steps))
    losses = []
    for step in range(steps):
        y, x, _ = task.batch(step, places, noise)
        with torch.no_grad():
            aim = net(y)
            error = (aim - x).square().mean((1, 2, 3)) + ERROR
        loss = ((student(y) - aim).square().mean((1, 2, 3)) / error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 19:
            print(f"step {step + 1}: error +{100 * np.mean(losses[-20:]):.3f} %", flush=True)
    return losses


@torch.no_grad()
def scores(net: nn.Module, sets: dict[str, Images]) -> dict[str, float]:
    """Mean PSNR in dB, clipped to [0, 1], by set."""
    return {k: float(np.mean([psnr(x, net(torch.from_numpy(y)[None])[0].clamp(0, 1).numpy()) for y, x in s])) for k, s in sets.items()}


def plans(net: Sequence[Layer]) -> dict[str, list[str]]:
    """Which layers compute in INT8; 16 bits of the image are taken for exact, see `image_in_16_bits`."""
    names = [layer.name for layer in net]
    return dict(zip(PLANS, ([n for n in names if n not in LEVEL0], names[1:-1], names, names), strict=True))


def image_in_16_bits(plan: str) -> bool:
    """256 values of a noisy image, from about -0.5 to 1.5, lie 2/255 apart: their rounding alone adds noise of 0.6/255."""
    return plan == PLANS[3]


def run(args: argparse.Namespace) -> dict[str, Any]:
    net = Denoiser.from_pretrained(args.model, device="cpu", backend="reference", dtype="float32").networks_["student"]
    assert isinstance(net, UNet)
    labels, channels = LabelSet.open(args.labels), net.channels
    draw = np.random.default_rng(0)
    taken = labels.images.images[:: max(1, labels.count // args.samples)][: args.samples]
    noisy = [x.float() + torch.from_numpy(draw.normal(0, 55 / 255 * (i + 1) / len(taken), x.shape)).float() for i, x in enumerate(taken)]
    ranges = find_ranges(net, [y[None] for y in noisy])
    clean = [x for _, x in load_clean(args.clean, channels)][:: args.every]
    sets: dict[str, Images] = {f"sigma {s}": [(np.float32(parse_noise(f"gaussian:{s}").add(x, 0)), x) for x in clean] for s in args.sigma}
    if args.pairs:
        sets["photographs"] = [(p.noisy, p.clean) for p in islice(load_pairs(args.pairs, channels=channels), 0, None, args.pairs_every)]
    exact, rows = scores(net, sets), list[dict[str, Any]]()
    args.work.mkdir(parents=True, exist_ok=True)
    result = {"machine": describe(), "model": args.model, "steps": args.steps, "crop": args.crop, "lr": args.lr, "gate_db": GATE}
    result |= {"clean": args.clean.name, "n": {k: len(s) for k, s in sets.items()}, "fp32": exact, "rows": rows}
    for plan in args.plans:
        chosen, exact_image = plans(net.layers)[plan], image_in_16_bits(plan)
        student, file = Int8UNet(net, chosen, ranges, exact_image), args.work / f"{plan.replace(' ', '-')}.safetensors"
        before = scores(student, sets)
        if file.exists():
            student.load_state_dict(load_tensors(file)[0])
        else:
            losses = train(student, net, labels, args.steps, args.lr, args.crop)
            save_tensors(file, student.state_dict(), {"plan": plan, "losses": losses})
        after = scores(student, sets)
        loss = {name: {k: round(s[k] - exact[k], 4) for k in sets} for name, s in (("before", before), ("after", after))}
        rows.append({"plan": plan} | loss | {"passes": min(loss["after"].values()) >= -GATE})
        print(rows[-1], flush=True)
        write_json(args.out, result)
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qat", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of `fastbsn label`")
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean test images; noise is added")
    parser.add_argument("--every", type=int, default=4, help="take every n-th of them (%(default)s)")
    parser.add_argument("--pairs", type=Path, help="folder of pairs of photographs")
    parser.add_argument("--pairs-every", type=int, default=8, help="take every n-th of them (%(default)s)")
    parser.add_argument("--model", default="color-awgn", help="bundled name or file")
    parser.add_argument("--sigma", type=int, nargs="+", default=[15, 25, 50])
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), help="which layers, in this order (default: all three)")
    parser.add_argument("--samples", type=int, default=8, help="labels for the first ranges (%(default)s)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-4, help="of the weights; the ranges have 20 times as much")
    parser.add_argument("--crop", type=int, default=64, help="pixels of a side, a multiple of 32; four to a step")
    parser.add_argument("--work", type=Path, required=True, help="folder for trained weights")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = run(args)
    print(render("qat", result))


if __name__ == "__main__":
    main()
