"""INT8 students: ranges found, kept in files and checked; the graph against the simulation; refusals."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from benchmarks.qat import Int8UNet
from fastbsn import Denoiser
from fastbsn.__main__ import main
from fastbsn.backends import select
from fastbsn.backends.device import slow_int8
from fastbsn.commands.model import SIDE, windows
from fastbsn.errors import BackendError, InputError
from fastbsn.export import onnx_model
from fastbsn.int8 import find_ranges, read_by
from fastbsn.io.image_files import write_image
from fastbsn.nets import UNet
from tests.tiny import tiny_denoiser, tiny_teacher, tiny_unet

needs_vnni = pytest.mark.skipif(slow_int8() is not None, reason=str(slow_int8()))
NETS = [(1, 6, 1, (2, 1, 8, 10)), (3, 12, 3, (1, 3, 40, 56)), (3, 48, 5, (1, 3, 64, 96))]


def with_ranges(in_channels: int, channels: int, depth: int, y: torch.Tensor) -> UNet:
    net = tiny_unet(in_channels, channels, depth)
    net.ranges = find_ranges(net, [y])
    return net


def errs_like_the_simulation(net: UNet, y: torch.Tensor, found: torch.Tensor, dtype: torch.dtype) -> None:
    """At most twice its root mean square error against exact arithmetic, and what `dtype` adds to the noise."""
    with torch.no_grad():
        simulated = Int8UNet(net, [layer.name for layer in net.layers[:-1]], net.ranges, exact_image=True)(y)
        exact = tiny_like(net)(y.double())
    floor = 2 * torch.finfo(dtype).eps * float((exact - y).square().mean().sqrt())
    rms = [float((x - exact).square().mean().sqrt()) for x in (found, simulated)]
    assert rms[1] > 0 and rms[0] <= 2 * rms[1] + floor


def tiny_like(net: UNet) -> UNet:
    """The same weights in float64."""
    other = UNet(**net.config)
    other.load_state_dict(net.state_dict())
    return other.double().eval()


def test_ranges_are_those_of_everything_read_on_all_images():
    net = tiny_unet(3, 6, 2)
    images = [torch.rand(1, 3, 9, 14), 2 * torch.rand(1, 3, 8, 8) - 1]
    found = find_ranges(net, images)
    assert set(found) == set(read_by(net)) == {"image", "enc0", "pool1", "pool2", "up1", "dec1a", "up0", "dec0a", "dec0b"}
    assert found["image"] == [float(images[1].min()), max(float(x.max()) for x in images)]
    with torch.no_grad():
        first = torch.nn.functional.leaky_relu(net.enc0(torch.nn.functional.pad(images[0], (0, 2, 0, 3), mode="reflect")), 0.1)
    assert find_ranges(net, images[:1])["enc0"] == pytest.approx([float(first.min()), float(first.max())])


def test_a_few_values_of_many_are_clipped():
    net, y = tiny_unet(1, 6, 1), torch.rand(1, 1, 256, 256)
    y[0, 0, 7, 9] = 50  # one of 65,536, of which OUTSIDE is one
    assert find_ranges(net, [y])["image"][1] <= 1 < find_ranges(net, [y[..., :128]])["image"][1] == 50


@pytest.mark.parametrize("in_channels, channels, depth, shape", NETS)
def test_the_graph_is_the_simulation(in_channels, channels, depth, shape):
    onnxruntime = pytest.importorskip("onnxruntime")
    y = torch.rand(shape)
    net = with_ranges(in_channels, channels, depth, y)
    h, w = (-n % net.multiple for n in shape[2:])
    image = torch.nn.functional.pad(y, (0, w, 0, h))
    session = onnxruntime.InferenceSession(onnx_model(net, 1, int8=True), providers=["CPUExecutionProvider"])
    (noise,) = session.run(["noise"], {"image": image.numpy()})
    errs_like_the_simulation(net, image, image - torch.from_numpy(noise), torch.float32)


@needs_vnni
@pytest.mark.parametrize("in_channels, channels, depth, shape", NETS)
def test_openvino_errs_like_the_simulation(in_channels, channels, depth, shape):
    pytest.importorskip("openvino")
    y = torch.rand(shape)
    net = with_ranges(in_channels, channels, depth, y)
    prepared = select(net, "cpu", dtype="int8")
    assert prepared.backend == "openvino" and prepared.dtype == torch.int8
    errs_like_the_simulation(net, y, prepared(y), torch.bfloat16)


def test_weights_are_stored_in_8_bits_but_those_of_the_image_and_of_the_last_layer():
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(onnx_model(with_ranges(3, 12, 2, torch.rand(1, 3, 8, 8)), 2, int8=True)).graph
    kinds = {c.name: c.data_type for c in graph.initializer if ".weight" in c.name or ".phase" in c.name}
    kinds = {name: kind for name, kind in kinds.items() if not name.endswith(".scale")}
    floats = {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    assert floats == {"enc0.weight", "dec0a.weight", "out.weight"} and {kinds[name] for name in kinds.keys() - floats} == {
        onnx.TensorProto.INT8
    }


def test_a_model_without_ranges_is_refused_with_the_command_that_adds_them(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    for backend in ("auto", "openvino"):
        with pytest.raises(BackendError, match=r"no ranges for INT8; add them with: fastbsn export .*--ranges.*use dtype='auto'"):
            select(tiny_unet(), "cpu", backend, "int8")


@pytest.mark.parametrize("damage", [[], [1.0], [1, 2, 3], [0.5, 1.0], [0.0, 0.0], ["0", "1"], [0.0, 1e-20], [-1e300, 1.0], None, {}, "01"])
def test_ranges_of_any_other_kind_are_refused(monkeypatch, damage):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    net = with_ranges(1, 6, 1, torch.rand(1, 1, 8, 8))
    for ranges in (damage, net.ranges | {"enc0": damage}):
        with pytest.raises(BackendError, match="no ranges for INT8"):
            Denoiser({"student": net}, {"ranges": ranges}, device="cpu", dtype="int8")


def test_a_cpu_without_vnni_is_named(monkeypatch):
    net = with_ranges(1, 6, 1, torch.rand(1, 1, 8, 8))
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(BackendError, match="this CPU has no AVX512-VNNI instructions for INT8; use dtype='auto'"):
        select(net, "cpu", dtype="int8")


def test_a_missing_package_is_named(monkeypatch):
    net, find_spec = with_ranges(1, 6, 1, torch.rand(1, 1, 8, 8)), importlib.util.find_spec
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    with pytest.raises(BackendError, match="not installed: openvino; install it with: pip install openvino"):
        select(net, "cpu", dtype="int8")


def test_other_backends_and_teachers_are_refused(monkeypatch):
    net = with_ranges(1, 6, 1, torch.rand(1, 1, 8, 8))
    with pytest.raises(BackendError, match="torch.int8 is not supported on cpu"):
        select(net, "cpu", "reference", "int8")
    with pytest.raises(BackendError, match="it runs students only"):
        select(tiny_teacher().networks_["teacher"], "cpu", dtype="int8")


@needs_vnni
def test_the_command_adds_ranges_that_the_file_keeps(tmp_path, rng):
    pytest.importorskip("openvino")
    (tmp_path / "noisy").mkdir()
    for i in range(3):
        write_image(tmp_path / "noisy" / f"{i}.png", rng.integers(0, 256, (24, 40), np.uint8))
    source, target = tmp_path / "m.safetensors", tmp_path / "ranged.safetensors"
    tiny_denoiser().save(source)
    assert main(["export", "--model", str(source), "--ranges", str(tmp_path / "noisy"), "-o", str(target)]) == 0
    d = Denoiser.from_pretrained(target, device="cpu", dtype="int8")
    expected = find_ranges(d.networks_["student"], windows(tmp_path / "noisy", 1))
    assert d.header_["ranges"] == expected and expected["image"][1] == pytest.approx(1, abs=0.02)
    x = rng.integers(0, 256, (24, 40), np.uint8)
    exact = Denoiser.from_pretrained(source, device="cpu", dtype="float32")(x)
    assert 0 < np.abs(d(x).astype(int) - exact).max() <= 8
    assert main(["export", "--model", str(target), "--average", str(target), "-o", str(tmp_path / "mean.safetensors")]) == 0
    assert "ranges" not in Denoiser.from_pretrained(tmp_path / "mean.safetensors", device="cpu").header_, "other weights, other ranges"
    with pytest.raises(BackendError, match="weights are stored as floats"):
        d.save(tmp_path / "x.safetensors", "int8")


def test_ranges_need_images_and_a_student(tmp_path, capsys):
    tiny_denoiser().save(tmp_path / "m.safetensors")
    tiny_teacher().save(tmp_path / "t.safetensors")
    (tmp_path / "empty").mkdir()
    for model, said in (("m", "no images to find the ranges on"), ("t", "only students compute in INT8")):
        command = ["export", "--model", str(tmp_path / f"{model}.safetensors"), "--ranges", str(tmp_path / "empty")]
        assert main([*command, "-o", str(tmp_path / "o.safetensors")]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(InputError, match="no such folder"):
        next(windows(tmp_path / "missing", 1))


def test_the_middle_of_large_images_is_looked_at(tmp_path):
    x = np.zeros((SIDE + 100, SIDE + 60), np.uint8)
    x[:50], x[-50:], x[:, :30], x[:, -30:] = 255, 255, 255, 255
    write_image(tmp_path / "x.png", x)
    (window,) = windows(tmp_path, 1)
    assert window.shape == (1, 1, SIDE, SIDE) and float(window.max()) == 0
