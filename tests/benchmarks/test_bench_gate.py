"""A version with a wrong result has no speed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.images import noisy_batches
from benchmarks.harness.measure import Case, Subject, Unavailable, Version, measure
from benchmarks.render.tables import speed
from benchmarks.subjects.networks import student, teacher
from benchmarks.subjects.versions import baselines, eager_fp32, own
from fastbsn.nets import UNet

CPU = torch.device("cpu")


def _case(versions: dict[str, Version]) -> Case:
    def build(device: torch.device) -> Subject:
        net = UNet(3, 6, 2).eval().requires_grad_(False)
        torch.nn.init.normal_(net.out.weight, std=0.01)
        clean, noisy = noisy_batches((1, 3, 32, 32), device)
        return Subject(net, noisy, eager_fp32(net, device), clean, 1e6, 1e4, 32 * 32)

    return Case("student", "1 x 32 x 32", versions, build)


def _wrong(change):
    return lambda net, device: lambda x: change(net(x))


def _stale(net, device):
    """Right for the input that it saw first, like a graph that replays old data."""
    kept = []

    def run(x):
        kept.append(net(x))
        return kept[0]

    return run


def _unavailable(net, device):
    raise Unavailable("needs a machine that is not here")


def _broken(net, device):
    raise RuntimeError("it broke")


def test_wrong_kernels_get_a_refused_row_and_no_number() -> None:
    versions = {
        "right": Version(eager_fp32, "float32", True),
        "shifted": Version(_wrong(lambda y: y + 0.01)),
        "one bad pixel": Version(_wrong(lambda y: y.index_fill(3, torch.tensor([5]), 0.5))),
        "not a number": Version(_wrong(lambda y: y / (y - y))),
        "another shape": Version(_wrong(lambda y: y[..., :-1])),
        "stale": Version(_stale),
        "unavailable": Version(_unavailable),
        "broken": Version(_broken),
    }
    rows = {row["version"]: row for row in measure(_case(versions), CPU, 0.01)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "right": "measured",
        **dict.fromkeys(("shifted", "one bad pixel", "not a number", "another shape", "stale"), "refused"),
        "unavailable": "skipped",
        "broken": "failed",
    }
    assert rows["right"]["ms"] > 0 and rows["right"]["n"] >= 5
    assert not any("ms" in row for name, row in rows.items() if name != "right")
    assert "after timing" in rows["stale"]["reason"] and "non-finite" in rows["not a number"]["reason"]
    printed = speed(list(rows.values()))
    assert "| student: 1 x 32 x 32: shifted | refused |" in printed and "unavailable" not in printed


def test_psnr_alone_refuses_a_baseline_that_is_its_own_yardstick() -> None:
    blurred = Version(_wrong(lambda y: torch.nn.functional.avg_pool2d(y, 3, 1, 1)), "bfloat16", True)
    (row,) = measure(_case({"blurred": blurred}), CPU, 0.01)
    assert row["status"] == "refused" and "PSNR differs" in row["reason"]


@pytest.mark.parametrize("channels", [1, 3])
def test_stand_in_student_denoises_a_photograph(channels: int) -> None:
    net, source = student(channels, bundled=False)
    clean, (noisy, _) = noisy_batches((1, channels, 96, 96), CPU)
    assert source == "random, last layer fitted"
    assert (net(noisy) - clean).square().mean() < 0.85 * (noisy - clean).square().mean()


def test_stand_in_teacher_predicts_from_neighbours() -> None:
    net = teacher("light", 1, width=16, modules=2)
    clean, (noisy, _) = noisy_batches((1, 1, 96, 96), CPU)
    assert (net(noisy)[0] - clean).square().mean() < 0.5 * clean.var()


def test_every_own_backend_and_every_baseline_is_offered() -> None:
    names = set(baselines("phase upsample") | own())
    assert {"fastbsn reference bf16", "fastbsn triton bf16", "fastbsn cuda bf16"} < names
    for baseline in ("eager", "cudnn_convolution_relu", "compile", "compile, no graphs"):
        assert {f"{baseline} bf16", f"{baseline} bf16, phase upsample"} < names
