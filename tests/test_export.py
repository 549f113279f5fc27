import sys

import numpy as np
import pytest
import torch

from fastbsn.errors import BackendError, InputError
from fastbsn.export import export_onnx
from tests.tiny import tiny_denoiser, tiny_teacher, tiny_unet


@pytest.mark.parametrize("in_channels, channels, depth", [(1, 6, 1), (3, 12, 3), (3, 48, 5)])
def test_onnxruntime_gives_the_same_result_at_any_size(tmp_path, in_channels, channels, depth):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = tiny_unet(in_channels, channels, depth)
    export_onnx(net, tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    for n, h, w in ((1, 37, 53), (2, 8, 8), (1, 1, 1), (1, 64, 41), (3, 5, 32)):
        y = torch.rand(n, in_channels, h, w)
        with torch.no_grad():
            exact, expected = net.double()(y.double()).numpy(), net.float()(y).numpy()
        (found,) = session.run(["denoised"], {"noisy": y.numpy()})
        assert found.shape == expected.shape
        assert np.abs(found - exact).max() <= 2 * np.abs(expected - exact).max() + 1e-6


def test_no_upsampled_or_joined_image_is_built(tmp_path):
    onnx = pytest.importorskip("onnx")
    export_onnx(tiny_unet(3, 12, 3), tmp_path / "student.onnx")
    nodes = onnx.load(tmp_path / "student.onnx").graph.node
    assert [sum(n.op_type == name for n in nodes) for name in ("Resize", "DepthToSpace")] == [0, 3]
    assert all(list(n.attribute[0].ints) in ([2, 2], [3, 3]) for n in nodes if n.op_type == "Conv")


def test_export_of_a_denoiser(tmp_path):
    pytest.importorskip("onnx")
    tiny_denoiser().export(tmp_path / "a.onnx")
    tiny_denoiser().export(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_teacher_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="only a student can be exported; this file holds teacher, noise_model"):
        tiny_teacher().export(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match="pip install"):
        export_onnx(tiny_unet(), tmp_path / "a.onnx")
