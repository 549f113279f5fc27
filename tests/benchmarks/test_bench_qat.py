"""The student in INT8, trained for it: its arithmetic, gradients through rounding, and one small run of the benchmark."""

import json

import numpy as np
import pytest
import torch

from benchmarks import qat
from fastbsn.int8 import find_ranges
from fastbsn.io.image_files import write_image
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet
from tests.tiny import tiny_denoiser, tiny_unet

RANGES = dict.fromkeys(("image", "enc0", "pool1", "up0", "dec0a", "dec0b"), (-1.0, 3.0))


def exact(net: torch.nn.Module) -> qat.Int8UNet:
    return qat.Int8UNet(net, (), {})


def test_nothing_chosen_is_the_network_itself():
    net, y = tiny_unet(3), torch.rand(2, 3, 13, 10)
    torch.testing.assert_close(exact(net)(y), net(y), rtol=1e-4, atol=1e-5)


def test_256_values_with_zero_among_them():
    grid = qat.Range(-0.5, 2.05)
    x = torch.linspace(-1, 3, 4001)
    y = grid(x)
    assert y.unique().numel() == 256 and float(grid(torch.zeros(1))) == 0
    inside = (x > -0.495) & (x < 2.045)
    assert float((y - x)[inside].abs().max()) <= 0.005001


def test_gradients_pass_rounding_inside_of_the_range_and_move_its_bounds_outside():
    grid, x = qat.Range(-1.0, 1.0), torch.tensor([0.3, 5.0], requires_grad=True)
    grid(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert float(grid.factors.grad[1]) > 0.5, "a larger upper bound lets more of 5.0 through"


def test_upsampled_weights_have_a_scale_for_every_phase():
    """Weights of one phase a thousand times smaller than the others keep their own 127 steps."""
    w = torch.randn(2, 3, 4, 4)
    w[:, :, ::2, ::2] *= 1e-3
    small = qat.quantised_weight(w.unflatten(3, (2, 2)).unflatten(2, (2, 2)), (0, 2, 4)).flatten(4).flatten(2, 3)[:, :, ::2, ::2]
    error = (small - w[:, :, ::2, ::2]).abs().amax() / w[:, :, ::2, ::2].abs().amax()
    assert 0 < float(error) < 0.5 / 127 * 1.01


def test_an_exact_image_is_neither_rounded_nor_are_its_weights():
    net, y = tiny_unet(), torch.rand(1, tiny_unet().channels, 8, 8)
    layers = [net.layers[0].name]
    rounded, kept = (qat.Int8UNet(net, layers, RANGES | {"image": (0.0, 1.0)}, flag)(y) for flag in (False, True))
    assert torch.equal(kept, exact(net)(y)) and not torch.equal(rounded, kept)


def test_training_reduces_what_int8_loses(tmp_path):
    torch.manual_seed(0)
    net = tiny_unet()
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    images = [torch.rand(net.channels, 40, 40).half() for _ in range(2)]
    labels = LabelSet(ImageSet(images), [0.0, 0.0], [0.0, 0.0], "gaussian")
    ranges = find_ranges(net, [x[None].float() for x in images])
    wide = {name: (3 * low, 3 * high) for name, (low, high) in ranges.items()}  # steps three times as large as need be
    student = qat.Int8UNet(net, [layer.name for layer in net.layers], wide)
    losses = qat.train(student, net, labels, 30, 1e-3, 32)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_small_run(tmp_path, rng, monkeypatch):
    (tmp_path / "test").mkdir()
    for i in range(2):
        write_image(tmp_path / "test" / f"{i}.png", rng.integers(0, 256, (24, 40), np.uint8))
    tiny_denoiser(depth=1).save(tmp_path / "m.safetensors")
    images = [torch.rand(1, 40, 40).half() for _ in range(2)]
    labels = LabelSet(ImageSet(images), [0.0, 0.0], [0.0, 0.0], "gaussian")
    monkeypatch.setattr(qat.LabelSet, "open", classmethod(lambda cls, folder: labels))
    arguments = [
        "--labels",
        "x",
        "--clean",
        str(tmp_path / "test"),
        "--every",
        "1",
        "--model",
        str(tmp_path / "m.safetensors"),
        "--sigma",
        "25",
    ]
    arguments += ["--steps", "2", "--crop", "32", "--work", str(tmp_path / "work"), "-o", str(tmp_path / "o/qat.json")]
    qat.main(arguments)
    first = json.loads((tmp_path / "o/qat.json").read_text())
    assert [r["plan"] for r in first["rows"]] == list(qat.PLANS)
    for r in first["rows"]:
        assert r["passes"] == (r["after"]["sigma 25"] >= -qat.GATE)
    monkeypatch.setattr(qat, "train", None)  # weights in the work folder are not trained again
    qat.main(arguments)
    assert json.loads((tmp_path / "o/qat.json").read_text())["rows"] == first["rows"]
