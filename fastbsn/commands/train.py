"""Training: `fit`, its three steps `train`, `label` and `distill`, and `noise`, which measures that of photographs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbsn.commands.shared import add_budget, add_data_range, add_noise, add_optimizer, add_repair, data_range_of, device_of, report
from fastbsn.errors import InputError
from fastbsn.names import OPERATIONS

if TYPE_CHECKING:
    from fastbsn.camera import Mixture
    from fastbsn.nets import UNet
    from fastbsn.training import LoopConfig, Variety


def _start_over(args: argparse.Namespace) -> None:
    """Meet the other processes of a torchrun; with --overwrite, drop the output and its run folder, so that training starts anew."""
    import shutil

    from fastbsn.training.ranks import join

    ranks = join()
    if args.overwrite:
        if ranks.first:
            args.output.unlink(missing_ok=True)
            shutil.rmtree(args.output.with_name(args.output.name + ".run"), ignore_errors=True)
        ranks.meet()
    elif args.output.exists():
        raise InputError(f"{args.output} exists already; expected a new file: choose another name, or pass --overwrite")


def _loop(args: argparse.Namespace) -> LoopConfig:
    from fastbsn.training import LoopConfig

    return LoopConfig(steps=args.steps, minutes=args.minutes, lr=args.lr, seed=args.seed)


def _add_noisy(p: argparse.ArgumentParser) -> None:
    p.add_argument("noisy", type=Path, help="folder of noisy images, or one file; pages of stacks are images")
    add_data_range(p)
    add_repair(p)


def fit_arguments(p: argparse.ArgumentParser) -> None:
    _add_noisy(p)
    p.add_argument("-o", "--output", type=Path, required=True, help="student.safetensors")
    add_noise(p, "camera")
    p.add_argument("--init", help="--noise camera: start from this student, bundled name or file (color-photo)")
    add_budget(p)


def fit(args: argparse.Namespace) -> int:
    from fastbsn.report.training import training_report
    from fastbsn.training import ImageSet
    from fastbsn.training import fit as run_fit

    _start_over(args)
    workdir = args.output.with_name(args.output.name + ".run")
    images, device = ImageSet.from_folder(args.noisy, data_range_of(args)), device_of(args)
    run_fit(
        images,
        minutes=args.minutes,
        steps=args.steps,
        noise=args.noise,
        seed=args.seed,
        device=device,
        workdir=workdir,
        output=args.output,
        init=_student(args.init) if args.init else None,
        repair=args.repair,
    )
    page = workdir / "report.html"
    training_report(images, args.output, workdir, device).write(page)
    report(
        args,
        {"student": str(args.output), "run": str(workdir), "report": str(page)},
        f"{args.output}: student; log, previews and {page.name} in {workdir}",
    )
    return 0


def _student(name: str) -> UNet:
    from fastbsn.io.weights import load_networks
    from fastbsn.models import find_model
    from fastbsn.nets import UNet

    found = load_networks(find_model(name))[0]
    student = found.get("student")
    if not isinstance(student, UNet):
        raise InputError(f"--init {name}: the file holds {', '.join(found)}; expected a student")
    return student


def _add_teacher(p: argparse.ArgumentParser) -> None:
    p.add_argument("--variant", choices=("light", "paper"), default="light")
    p.add_argument("--channels", type=int, help="width (48 on a CPU; 128 light, 96 paper on a GPU)")
    p.add_argument("--modules", type=int, help="per branch (4 light, 2 paper on a CPU; 9 and 8 on a GPU)")
    p.add_argument("--blind-spot", choices=("dilated", "plain"), default="dilated", help="plain: ablation without dilated layers")
    p.add_argument("--likelihood", choices=("exact", "constrained"), default="exact")
    p.add_argument("--stride", type=int, help="pixel-shuffle downsampling for --noise correlated (measured from the images)")
    p.add_argument("--batch", type=int, help="crops per step (4 on a CPU, 16 on a GPU)")
    p.add_argument("--crop", type=int, default=96, help="pixels on a side (%(default)s)")
    p.add_argument("--backend", choices=("auto", *OPERATIONS), default="auto", help="of the operations")


def _teacher_config(args: argparse.Namespace) -> Any:
    from fastbsn.training import TeacherConfig

    return TeacherConfig(
        noise=args.noise,
        variant=args.variant,
        channels=args.channels,
        modules=args.modules,
        blind_spot=args.blind_spot,
        likelihood=args.likelihood,
        stride=args.stride,
        batch=args.batch,
        crop=args.crop,
    )


def train_arguments(p: argparse.ArgumentParser) -> None:
    _add_noisy(p)
    p.add_argument("-o", "--output", type=Path, required=True, help="teacher.safetensors")
    add_noise(p)
    _add_teacher(p)
    add_budget(p)
    add_optimizer(p)


def train(args: argparse.Namespace) -> int:
    from fastbsn.training import ImageSet, train_teacher
    from fastbsn.training.check import check

    _start_over(args)
    images = check(ImageSet.from_folder(args.noisy, data_range_of(args)), args.repair)
    train_teacher(images, args.output, _loop(args), _teacher_config(args), device_of(args), backend=args.backend)
    report(args, {"teacher": str(args.output)}, f"{args.output}: teacher; log and previews in {args.output}.run")
    return 0


def _add_student(p: argparse.ArgumentParser) -> None:
    p.add_argument("--renoised", type=float, default=1.0, help="fraction of re-noised pairs (%(default)s)")
    p.add_argument("--sigma", help="range of the fresh noise in 1/255 units, for instance 0-55; default: the levels that were found")
    p.add_argument("--clean", type=Path, help="optional folder of clean images")
    p.add_argument("--clean-fraction", type=float, default=0.25, help="of the pairs, if --clean is given (%(default)s)")
    p.add_argument("--channels", dest="student_channels", type=int, default=48)
    p.add_argument("--batch", type=int, help="crops per step (4 on a CPU, 32 on a GPU)")
    p.add_argument(
        "--crop", type=int, default=96, help="pixels on a side (%(default)s; 160 to 192, and fewer of them, once a student is good)"
    )
    p.add_argument("--init", help="start from this student, bundled name or file")
    p.add_argument("--backend", choices=("auto", *OPERATIONS), default="auto", help="of the network; auto: PyTorch")


def _student_config(args: argparse.Namespace, renoised: float, sigma: str | None) -> Any:
    from fastbsn.training import StudentConfig

    bounds: tuple[float, float] | None = None
    if sigma:
        low, _, high = sigma.partition("-")
        try:
            bounds = (float(low), float(high or low))
        except ValueError as error:
            raise InputError(f"--sigma {sigma}: expected LOW-HIGH in 1/255 units, for instance 0-55") from error
    clean = 0.0 if args.clean is None else args.clean_fraction
    return StudentConfig(
        channels=args.student_channels,
        renoised=min(renoised, 1 - clean),
        clean=clean,
        sigma=bounds,
        batch=args.batch,
        crop=args.crop,
    )


def _settings(kind: type[Mixture] | type[Variety], settings: list[str]) -> dict[str, Any]:
    """--mix NAME=NUMBER ... as settings of this dataclass."""
    from dataclasses import fields

    values: dict[str, Any] = {}
    names = [f.name for f in fields(kind)]
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            numbers = tuple(float(v) for v in value.split(","))
        except ValueError as error:
            raise InputError(f"--mix {setting}: expected NAME=NUMBER, or gain=LOW,HIGH") from error
        if name not in names or len(numbers) != (2 if name == "gain" else 1):
            raise InputError(f"--mix {setting}: expected one of {', '.join(names)}, one number each, and two for gain")
        values[name] = numbers if name == "gain" else numbers[0]
    return values


def distill_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("labels", nargs="+", help="label folders or URLs")
    p.add_argument("--share", nargs="+", type=float, help="of the crops, a number for each label folder, relative to each other (equal)")
    p.add_argument("-o", "--output", type=Path, required=True, help="student.safetensors")
    p.add_argument("--camera", nargs="*", type=Path, help="a student of photographs: banks of `fastbsn noise`; none: synthetic noise only")
    p.add_argument(
        "--mix",
        nargs="+",
        metavar="NAME=VALUE",
        default=[],
        help="how parts of the pairs are made, see fastbsn.training.Variety: recolour=0.3 drawn=0.1; with --camera see "
        "fastbsn.camera.Mixture: white=0.2 gain=1,2.4",
    )
    p.add_argument("--noisy", help="folder or URL of the noisy images, if it moved since labelling")
    p.add_argument("--memory", help="for labels and images, such as 4GiB: those that do not fit come and go; default: all are in memory")
    p.add_argument("--gray", action="store_true", help="a gray student from labels of colour images; give --sigma")
    _add_student(p)
    add_budget(p)
    add_optimizer(p)


def distill(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from fastbsn.camera import Mixture, load_bank
    from fastbsn.training import ImageSet, Variety
    from fastbsn.training import distill as run_distill
    from fastbsn.training.label_files import LabelFiles
    from fastbsn.training.labels import LabelSet
    from fastbsn.training.rotation import Rotation, parse_bytes

    if args.noisy and len(args.labels) > 1:
        raise InputError(
            f"--noisy {args.noisy} with {len(args.labels)} label folders; expected one folder: label again where the images are"
        )
    _start_over(args)
    labels: LabelSet | Rotation
    if args.memory:
        if args.gray or len(args.labels) > 1:
            raise InputError(
                f"--memory {args.memory} with --gray or {len(args.labels)} label folders; expected one folder, in its own colours"
            )
        labels = Rotation(LabelFiles(args.labels[0], args.noisy), parse_bytes(args.memory), args.seed)
    else:
        labels = LabelSet.join([LabelSet.open(folder, args.noisy) for folder in args.labels], args.share or ())
        labels = labels.gray() if args.gray else labels
    renoised = args.renoised if labels.can_sample_noise or args.sigma else 0.0
    config, bank = _student_config(args, renoised, args.sigma), {}
    if args.camera is None:
        config = replace(config, variety=Variety(**_settings(Variety, args.mix)))
    else:
        config = replace(config, camera=Mixture(**_settings(Mixture, args.mix)))
        bank = {name: noise for path in args.camera for name, noise in load_bank(path).items()}
    clean = ImageSet.from_folder(args.clean) if args.clean else None
    init = _student(args.init) if args.init else None
    run_distill(labels, args.output, _loop(args), config, clean, init, device_of(args), backend=args.backend, bank=bank)
    report(args, {"student": str(args.output)}, f"{args.output}: student; log and previews in {args.output}.run")
    return 0


def noise_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("labels", type=Path, help="label folder of noisy photographs (fastbsn label --teacher color-awgn --strength 2)")
    p.add_argument("-o", "--output", type=Path, required=True, help="bank.safetensors")
    p.add_argument("--plot", type=Path, help="also draw spectrum, autocorrelation and level to this PNG file")


def noise(args: argparse.Namespace) -> int:
    from fastbsn.camera import save_bank
    from fastbsn.training.labels import LabelSet
    from fastbsn.training.photographs import describe, draw_noise, measure_noise

    labels = LabelSet.open(args.labels)
    bank = measure_noise(labels)
    if not bank:
        raise InputError(f"{args.labels}: none of {len(labels.images.images)} photographs has measurable noise; expected noisy photographs")
    save_bank(args.output, bank)
    if args.plot:
        draw_noise(bank, args.plot)
    found = describe(bank)
    report(args, found | {"bank": str(args.output)}, f"{args.output}: {json.dumps(found)}")
    return 0
