"""The table of commands, and the parser made of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from fastbsn.commands import app, denoise, evaluate, label, model, train
from fastbsn.version import __version__


class Command(NamedTuple):
    text: str  # help
    arguments: Callable[[argparse.ArgumentParser], None] | None
    run: Callable[[argparse.Namespace], int]
    device: bool = True  # takes --device


COMMANDS = {
    "denoise": Command(
        "Denoise files, folders and stacks; names, dtype and depth are kept; a second run does what is left.",
        denoise.arguments,
        denoise.run,
    ),
    "app": Command("A page in the browser, on this machine alone, to choose model and strength by eye.", app.arguments, app.run),
    "fit": Command("Both stages in one command: noisy images in, student out.", train.fit_arguments, train.fit),
    "train": Command("Stage 1: train a teacher on noisy images.", train.train_arguments, train.train),
    "label": Command("Write one pseudo-label per noisy image; run again after any interruption.", label.arguments, label.run),
    "noise": Command("Measure the noise of labelled photographs, for distill --camera.", train.noise_arguments, train.noise, device=False),
    "distill": Command("Stage 2: train a student on stored pseudo-labels.", train.distill_arguments, train.distill),
    "evaluate": Command("PSNR and SSIM on clean images with synthetic noise, or on pairs.", evaluate.evaluate_arguments, evaluate.evaluate),
    "submit": Command("Write a submission to the servers of SIDD or DND.", evaluate.submit_arguments, evaluate.submit),
    "simulate": Command(
        "Write a frozen noisy copy of a folder of clean images.", evaluate.simulate_arguments, evaluate.simulate, device=False
    ),
    "export": Command("Write a student as ONNX, or its weights in another dtype.", model.export_arguments, model.export, device=False),
    "tune": Command(
        "Time the Triton kernels' configurations on this GPU (minutes) and write a tuning table.",
        model.tune_arguments,
        model.tune,
        device=False,
    ),
    "info": Command("Devices, backends and why each is or is not usable, versions.", None, model.info, device=False),
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="fastbsn", description="From a folder of noisy images to a denoiser that ships.")
    root.add_argument("--version", action="version", version=f"fastbsn {__version__}")
    subs = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        p = subs.add_parser(name, help=command.text, description=command.text)
        p.set_defaults(run=command.run)
        p.add_argument("-v", "--verbose", action="store_true", help="say what is done, and why")
        p.add_argument("--log-file", metavar="FILE", help="append the same to a file")
        p.add_argument("--json", action="store_true", help="print one JSON object")
        if command.device:
            p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        if command.arguments:
            command.arguments(p)
    return root
