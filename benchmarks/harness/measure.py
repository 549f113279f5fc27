"""One comparison: every version of one computation on one shape, gated, then timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import ceilings as ceiling
from benchmarks.harness.machine import clocks
from benchmarks.harness.parity import check
from benchmarks.harness.timing import Run, interleave, peak_mib, sample, statistics, synchronize
from fastbsn.errors import BackendError

AGAIN = " (again)"
FIRST = 3  # samples of a version by itself, as soon as it is ready
Report = Callable[[dict[str, Any]], None]


class Unavailable(Exception):
    """This version cannot run here; the message is the reason."""


class Version(NamedTuple):
    """One way to run a subject. `make(net, device)` prepares it, or raises Unavailable.

    section: of the GPU benchmark, where it runs by itself: "compile", which takes minutes to prepare, or "hopper".
    """

    make: Callable[[Any, torch.device], Run]
    dtype: str = "float32"
    baseline: bool = False
    section: str | None = None


@dataclass
class Subject:
    """What is computed: a network (or anything versions are made of), inputs in rotation, and the fp32 result.

    inputs: the first two belong to `clean` and are compared with `reference`. flop and bytes: of one call, at least. pixels: of one
    call. wall: time until the host has the result.
    """

    net: Any
    inputs: Sequence[Any]
    reference: Callable[[Any], Tensor]
    clean: Tensor | None = None
    flop: float = 0
    bytes: float = 0
    pixels: int = 0
    wall: bool = False


class Case(NamedTuple):
    """Versions of one computation on one shape; the first baseline of each dtype is the yardstick of the others in it.

    host: from host memory to host memory. decides: a claim rests on it.
    """

    suite: str
    name: str
    versions: Mapping[str, Version]
    build: Callable[[torch.device], Subject]
    host: bool = False
    decides: bool = False


@contextmanager
def exact_fp32():
    """fp32 without TF32, for references."""
    conv, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = conv, matmul


def _gate(run: Run, i: int, subject: Subject, expected: list[Tensor], own: float | None):
    output = run(subject.inputs[i])
    return check(output.clone(), expected[i], subject.clean, own)


def _prepare(
    case: Case,
    subject: Subject,
    device: torch.device,
    expected: list[Tensor],
    wanted: Collection[str] | None,
    report: Report,
    ceilings: dict[str, Any] | None,
) -> tuple[list[dict[str, Any]], dict[str, Run], dict[str, float | None]]:
    """Make every version and let it through the first gate: rows, versions to be timed, eager PyTorch's error for each."""
    rows, ready, allowed, own = [], {}, {}, {}
    for name, version in case.versions.items():
        if wanted and name not in wanted:
            continue
        row = {"suite": case.suite, "case": case.name, "version": name, "baseline": version.baseline, "dtype": version.dtype}
        rows.append(row)
        report(row | {"status": "started"})
        start = time.perf_counter()
        try:
            run = version.make(subject.net, device)
            run(subject.inputs[0])
            synchronize(device)
            cold = time.perf_counter() - start
            yardstick = version.baseline and version.dtype not in own
            allowed[name] = None if yardstick else own.get(version.dtype, 0.0)
            parity = _gate(run, 0, subject, expected, allowed[name])
        except (Unavailable, BackendError) as reason:
            row |= {"status": "skipped", "reason": str(reason)}
            report(row)
            continue
        except Exception as error:  # a benchmark goes on; the error is this row's result
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
            report(row)
            synchronize(device)  # raises where the error has taken the GPU from this process
            continue
        if yardstick:
            own[version.dtype] = parity.error
        row |= {**parity.row(), "cold_start_s": round(cold, 2)}
        if parity.reason:
            row |= {"status": "refused", "reason": parity.reason}
            report(row)
            continue
        row["peak_mib"] = peak_mib(run, subject.inputs[0], device)
        ready[name] = run
        alone = statistics([sample(run, subject.inputs[:1], device, subject.wall) for _ in range(FIRST)])
        report(row | {"status": "measured", **alone} | _rates(alone["ms"], row["dtype"], subject, ceilings))
    return rows, ready, allowed


def measure(
    case: Case,
    device: torch.device,
    seconds: float,
    ceilings: dict[str, Any] | None = None,
    wanted: Collection[str] | None = None,
    samples: dict[str, list[float]] | None = None,
    report: Report = lambda row: None,
) -> list[dict[str, Any]]:
    """Rows, one per version: measured, refused by the gate, skipped, or failed, the last three with the reason.

    Args:
        case: what to compare.
        device: where.
        seconds: of timing, shared by the versions.
        ceilings: of this run, for the fraction of the roofline.
        wanted: names of versions; default all.
        samples: receives the raw samples in seconds, by version.
        report: receives every row as it changes: "started" before the version is prepared, then its end or a first timing of it by
            itself (3 samples, no noise floor), at last what the timing in turns gave.
    """
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode(case.suite != "training"):
        subject = case.build(device)
        with exact_fp32():
            expected = [subject.reference(x).clone() for x in subject.inputs[:2]]
        rows, ready, allowed = _prepare(case, subject, device, expected, wanted, report, ceilings)
        timed = dict(ready)
        if ready:  # the first version takes part twice: what differs between the two is noise
            first = next(iter(ready))
            timed[first + AGAIN] = ready[first]
        taken = interleave(timed, subject.inputs, device, seconds, wall=subject.wall)
        state = clocks() if device.type == "cuda" else None
        for row in (r for r in rows if r["version"] in ready):
            name = row["version"]
            after = _gate(ready[name], -1 % len(expected), subject, expected, allowed[name])
            if after.reason:
                row |= {"status": "refused", "reason": f"after timing: {after.reason}"}
                report(row)
                continue
            row |= {"status": "measured", **statistics(taken[name]), "clocks": state}
            row |= _rates(row["ms"], row["dtype"], subject, ceilings)
            row["noise_floor"] = round(abs(statistics(taken[first])["ms"] / statistics(taken[first + AGAIN])["ms"] - 1), 4)
            report(row)
    if samples is not None:
        samples.update(taken)
    return rows


def _rates(ms: float, dtype: str, subject: Subject, ceilings: dict[str, Any] | None) -> dict[str, float]:
    seconds, rates = ms / 1e3, {}
    if subject.pixels:
        rates["mpixel_per_s"] = round(subject.pixels / seconds / 1e6, 3)
    if subject.flop:
        rates |= {"gflop": round(subject.flop / 1e9, 3), "tflop_per_s": round(subject.flop / seconds / 1e12, 4)}
    if subject.flop and ceilings:
        floor = ceiling.floor_seconds(ceilings, subject.flop, subject.bytes, dtype)
        rates |= {"roofline": round(floor / seconds, 4)} if floor else {}
    if subject.bytes:
        rates["mbyte"] = round(subject.bytes / 1e6, 4)
    return rates
