"""The arguments of every command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastbsn import __version__


def _budget(p: argparse.ArgumentParser) -> None:
    group = p.add_mutually_exclusive_group(required=True)
    group.add_argument("--steps", type=int, help="training steps; runs with a given seed are repeatable")
    group.add_argument("--minutes", type=float, help="training time")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--overwrite", action="store_true", help="start anew even if the output or a checkpoint exists")


def _optimizer(p: argparse.ArgumentParser) -> None:
    p.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (%(default)s)")


def _noise(p: argparse.ArgumentParser) -> None:
    kinds = ("gaussian", "heteroscedastic", "multivariate", "correlated")
    p.add_argument("--noise", choices=kinds, default="gaussian", help="kind of noise in the images (%(default)s)")


def _model(p: argparse.ArgumentParser, default: str | None) -> None:
    p.add_argument("--model", required=default is None, default=default, help="bundled name, .safetensors file or folder (%(default)s)")
    _backend(p)


def _backend(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backend", choices=("auto", "reference", "triton", "cuda"), default="auto")
    p.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the arithmetic (%(default)s)")


def _teacher(p: argparse.ArgumentParser) -> None:
    p.add_argument("--variant", choices=("light", "paper"), default="light")
    p.add_argument("--channels", type=int, help="width (48 on a CPU; 128 light, 96 paper on a GPU)")
    p.add_argument("--modules", type=int, help="per branch (4 light, 2 paper on a CPU; 9 and 8 on a GPU)")
    p.add_argument("--blind-spot", choices=("dilated", "plain"), default="dilated", help="plain: ablation without dilated layers")
    p.add_argument("--likelihood", choices=("exact", "constrained"), default="exact")
    p.add_argument("--stride", type=int, help="pixel-shuffle downsampling for --noise correlated (measured from the images)")
    p.add_argument("--batch", type=int, help="crops per step (4 on a CPU, 16 on a GPU)")
    p.add_argument("--crop", type=int, default=96, help="pixels on a side (%(default)s)")
    p.add_argument("--backend", choices=("auto", "reference", "triton"), default="auto", help="of the operations")


def _student(p: argparse.ArgumentParser) -> None:
    p.add_argument("--renoised", type=float, default=1.0, help="fraction of re-noised pairs (%(default)s)")
    p.add_argument("--sigma", help="range of the fresh noise in 1/255 units, for instance 0-55; default: the levels that were found")
    p.add_argument("--recolour", type=float, default=0.0, help="fraction of the pairs that get other colours (%(default)s)")
    p.add_argument("--clean", type=Path, help="optional folder of clean images")
    p.add_argument("--clean-fraction", type=float, default=0.25, help="of the pairs, if --clean is given (%(default)s)")
    p.add_argument("--channels", dest="student_channels", type=int, default=48)
    p.add_argument("--init", type=Path, help="start from this student")
    p.add_argument("--backend", choices=("auto", "reference", "triton"), default="auto", help="of the network; auto: PyTorch")


def parser(commands: dict[str, Any]) -> argparse.ArgumentParser:
    """The parser; `commands` maps each command's name to the function that runs it."""
    root = argparse.ArgumentParser(prog="fastbsn", description="From a folder of noisy images to a denoiser that ships.")
    root.add_argument("--version", action="version", version=f"fastbsn {__version__}")
    subs = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, device: bool = True) -> argparse.ArgumentParser:
        p = subs.add_parser(name, help=text, description=text)
        run: Callable[[argparse.Namespace], int] = commands[name]
        p.set_defaults(run=run)
        p.add_argument("--json", action="store_true", help="print one JSON object")
        if device:
            p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        return p

    p = add("denoise", "Denoise files, folders and stacks; names, dtype and depth are kept; a second run does what is left.")
    p.add_argument("images", nargs="+", type=Path, help="PNG, JPEG, TIFF, .npy or folders of them")
    p.add_argument("-o", "--output", type=Path, required=True, help="output folder")
    _model(p, "auto")
    p.add_argument("--axes", help="meaning of the axes, letters of STCZYX, for instance TYX")
    p.add_argument("--data-range", type=float, help="value of white; default 255 for uint8, 65535 for uint16, 1 for floats")
    p.add_argument("--preview", action="store_true", help="also write NAME_before_after.png")
    p.add_argument("--overwrite", action="store_true")

    p = add("fit", "Both stages in one command: noisy images in, student out.")
    p.add_argument("noisy", type=Path, help="folder of noisy images")
    p.add_argument("-o", "--output", type=Path, required=True, help="student.safetensors")
    _noise(p)
    _budget(p)

    p = add("train", "Stage 1: train a teacher on noisy images.")
    p.add_argument("noisy", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True, help="teacher.safetensors")
    _noise(p)
    _teacher(p)
    _budget(p)
    _optimizer(p)

    p = add("label", "Write one pseudo-label per noisy image; run again after any interruption.")
    p.add_argument("noisy", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True, help="label folder")
    p.add_argument("--teacher", type=Path, required=True)
    _backend(p)
    p.add_argument("--std", action="store_true", help="also store the standard deviation of each pixel's error")
    p.add_argument("--shard", default="0/1", metavar="I/N", help="label every N-th image starting at I, to share the work")

    p = add("distill", "Stage 2: train a student on stored pseudo-labels.")
    p.add_argument("labels", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True, help="student.safetensors")
    p.add_argument("--noisy", type=Path, help="folder of the noisy images, if it moved since labelling")
    p.add_argument("--gray", action="store_true", help="a gray student from labels of colour images; give --sigma")
    _student(p)
    _budget(p)
    _optimizer(p)

    p = add("evaluate", "PSNR and SSIM on clean images with synthetic noise, or on pairs.")
    p.add_argument("clean", type=Path, help="folder of clean images (or, with --pairs, of NAME_real and NAME_mean images)")
    p.add_argument("--noise", nargs="+", help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg; several make several rows")
    p.add_argument("--noisy", type=Path, help="folder of noisy images of the same names")
    p.add_argument("--pairs", action="store_true", help="CLEAN holds NAME_real.* and NAME_mean.* pairs")
    p.add_argument("--clip", choices=("none", "uint8"), default="none", help="noisy input as an 8-bit file would hold it")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-o", "--output", type=Path, help="also write all figures to this JSON file")
    _model(p, None)

    p = add("simulate", "Write a frozen noisy copy of a folder of clean images.", device=False)
    p.add_argument("clean", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--noise", required=True, help="gaussian:25, gaussian:0-55, poisson:30, hg:40,10 or mg")
    p.add_argument("--gray", action="store_true")
    p.add_argument("--seed", type=int, default=0)

    p = add("export", "Write a student as ONNX, or its weights in another dtype.", device=False)
    p.add_argument("--average", nargs="+", default=[], help="average the weights with these students', trained from one another")
    p.add_argument("-o", "--output", type=Path, required=True, help="student.onnx or student.safetensors")
    _model(p, None)

    p = add("tune", "Time the Triton kernels' configurations on this GPU (minutes) and write a tuning table.", device=False)
    p.add_argument("-o", "--output", type=Path, required=True, help="tuning.json")
    p.add_argument("--kernels", nargs="+", help="default: all")
    p.add_argument("--channels", nargs="+", type=int, help="widths; default: all that have a table")
    p.add_argument("--side", type=int, default=1024, help="of the square image that is timed, in pixels (%(default)s)")
    p.add_argument("--seconds", type=float, default=0.1, help="per configuration (%(default)s)")

    add("info", "Devices, backends and why each is or is not usable, versions.", device=False)
    return root
