"""The ahead-of-time gate: what it compiles is what is launched, it passes on a sample, and it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastbsn import ops
from fastbsn.backends import triton
from fastbsn.kernels import aot, runtime, shipped, tune, tuning
from fastbsn.kernels.tuning import Config
from fastbsn.nets import UNet
from tests.kernels import checks

ROOT = Path(__file__).resolve().parents[2]
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.uint8: "u8", torch.int32: "i32"}
SAMPLE = """
import sys
from fastbsn.kernels import aot, shipped
rows = []
for arch in ("sm_90", "sm_120"):
    for item in shipped.shipped(arch, {"light": (96,), "paper": (96,)}):
        if item.name in ("residual", "wgrad", "mdc rest", "mdc rest, last", "mdc 5x5"):
            rows.append(aot.check(item, arch, "fp16"))
aot.write_json(sys.argv[1], rows)
"""


def launch_student() -> None:
    with ops.backend("triton"):
        UNet(3, 48, 3).half().estimated_noise(torch.rand(1, 3, 8, 8).half()).sum().backward()


def launch_everything(c: int) -> None:
    for variant in ("light", "paper"):
        for features in (True, False):
            net = triton.plan(checks.random_teacher(variant, c, 1), torch.device("cpu"), torch.float16, features)
            net(torch.rand(1, 3, 4, 4))
    x = torch.randn(1, c, 4, 4).half()
    with ops.backend("triton"):
        for kind in ("residual", "mdc"):
            params = [[p.requires_grad_() for p in pair] for pair in checks.random_module(c, kind, "cpu", torch.float16)]
            checks.SINGLE[kind](x.clone().requires_grad_(), params, 2).sum().backward()
        for k in (3, 5):
            weight = torch.randn(c, c, k * k - 1).half()
            ops.masked_conv2d(x.clone().requires_grad_(), weight, torch.randn(c)).sum().backward()


def test_what_is_compiled_is_what_is_launched(monkeypatch):
    """Every launch has a shipped item with the same kernel, compile-time constants, absent operands and element types."""
    launched = []
    monkeypatch.setattr(runtime, "launch", lambda call, grid, tma, **arguments: launched.append((call, arguments)))
    with tuning.forced(all=Config(32, 16, 4, 2)):
        items = list(shipped.shipped("sm_90", {"light": (16, 136), "paper": (16, 136)}))
        launch_student()
        for c in (16, 136):
            launch_everything(c)
    assert len({call.kernel.__name__ for call, _ in launched}) == 14
    for call, arguments in launched:
        absent = {name for name, value in arguments.items() if value is None}
        wanted = (call.kernel, call.constants, call.blocks, absent)
        same = [item for item in items if (item.call.kernel, item.call.constants, item.call.blocks, set(item.absent)) == wanted]
        assert same, f"{call.kernel.__name__} with {dict(call.constants)}, without {absent}, is launched but not shipped"
        types = aot.signature(same[0], "sm_80", "fp16")
        assert set(types) == {*arguments, *call.constants}
        for name, value in arguments.items():
            if isinstance(value, Tensor):
                assert types[name] == f"*{NAMES[value.dtype]}", f"{call.kernel.__name__}: {name} is {value.dtype}, not {types[name]}"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Rows of the gate for three kernels, from a process without the interpreter."""
    out = tmp_path_factory.mktemp("aot") / "rows.json"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SAMPLE, str(out)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())


def test_a_sample_passes(sample):
    assert sorted(row["kernel"] for row in sample) == sorted(["mdc 5x5", "mdc rest, last", "residual", "wgrad"] * 2 + ["mdc rest"])
    assert all(row["faults"] == [] for row in sample), sample
    assert all({"HGMMA", "UTMALDG"} <= set(row["loops"][0]) for row in sample if row["arch"] == "sm_90")
    assert all({"HMMA", "UTMALDG"} <= set(row["instructions"]) for row in sample if row["arch"] == "sm_120")


def test_the_modules_are_as_lean_as_committed(sample):
    """Another release of the compiler may give out registers a little differently."""
    committed = json.loads((ROOT / "benchmarks/results/modules.json").read_text())["now"]
    held = {row["kernel"]: row for row in committed if row["arch"] == "sm_90"}
    for row in (row for row in sample if row["arch"] == "sm_90" and row["kernel"].startswith("mdc")):
        then = held[row["kernel"]]
        assert row["registers"] <= 1.1 * then["registers"] and row["shared"] <= then["shared"]
        assert row["blocks_per_sm"] >= then["blocks_per_sm"] and row["config"] == then["config"]


def test_faults_are_found(sample):
    good = sample[0]
    loop = "/*0010*/ HGMMA.64x64x16 R1 ;\n/*0020*/ UTMALDG.2D [UR1] ;\n/*0030*/ @P0 BRA 0x10 ;\n/*0040*/ EXIT ;\n"
    assert aot.faults(good, loop, True) == []
    assert "shared memory" in aot.faults(good | {"shared": 10**6}, loop, True)[0]
    assert "stack 8 bytes" in aot.faults(good | {"stack": 8}, loop, True)[0]
    assert "1 LDL" in aot.faults(good | {"instructions": {"LDL": 1}}, loop, True)[0]
    assert "scratch" in aot.faults(good | {"scratch": 128}, loop, True)[0]
    assert "has LDSM" in aot.faults(good, loop.replace("UTMALDG.2D [UR1]", "UTMALDG.2D [UR1] ; /*0028*/ LDSM R2"), True)[0]
    assert "fed by UTMALDG" in aot.faults(good, loop.replace("UTMALDG", "LDG"), True)[0]
    on_stack = good | {"arch": "sm_120", "shared": 0, "stack": 8, "instructions": {"STL": 1}}
    assert aot.faults(on_stack, "/*0010*/ STL [R1], RZ ;\n", True) == []
    spilled = "/*0010*/ LDL R2, [R1] ;\n/*0020*/ @P0 BRA 0x10 ;\n/*0030*/ EXIT ;\n"
    assert aot.faults(on_stack, spilled, True) == ["a loop has LDL"]
    assert "no loop with HGMMA" in aot.faults(good, loop.replace("0x10", "0x40"), True)[0]


@pytest.mark.parametrize(
    ("capability", "arch", "tma"),
    [((8, 6), "sm_89", False), ((9, 0), "sm_90", True), ((10, 3), "sm_100", True), ((12, 1), "sm_120", True), ((13, 0), "sm_120", True)],
)
def test_descriptors_are_made_on_the_host_wherever_the_gpu_has_tma(capability, arch, tma, monkeypatch):
    monkeypatch.setattr(runtime, "INTERPRETER", False)
    monkeypatch.setattr(runtime, "_capability", lambda index: capability)
    target = runtime.target(torch.empty(0))
    assert (target.arch, target.tma) == (arch, tma)


def test_every_tuned_width_has_an_entry_on_every_architecture():
    kernels = {"pack", *tune.KERNELS}
    for arch in tuning.SHARED:
        for kernel in kernels:
            for itemsize in (2, 4):
                for channels in (8, *tuning.TUNED):
                    config = tuning.config(kernel, arch, channels, itemsize)
                    assert 256 % config.block == 0, "P is a multiple of 256"
    assert tuning.architecture(9, 0) == "sm_90" and tuning.architecture(8, 6) == "sm_89"
