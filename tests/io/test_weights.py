"""Weights files: exact round trips, and a WeightsError for everything that is not a whole, finite model of ours."""

from __future__ import annotations

import json
import math
import pickle
import struct

import pytest
import safetensors.torch
import torch

from fastbsn.errors import InputError, WeightsError
from fastbsn.io.weights import load_networks, load_tensors, save_networks, save_tensors
from fastbsn.nets import DBSN, NoiseModel, UNet

NETWORKS = {
    "paper": lambda: DBSN(2, 8, 1),
    "light": lambda: DBSN(3, 8, 2, "light"),
    "plain": lambda: DBSN(1, 8, 1, blind_spot="plain"),
    "unet": lambda: UNet(1, 6, 2),
    "gaussian": lambda: NoiseModel("gaussian", 1, 8, 4),
    "heteroscedastic": lambda: NoiseModel("heteroscedastic", 4, 8, 4),
    "multivariate": lambda: NoiseModel("multivariate", 3, 8, 4),
}


def split(data: bytes) -> tuple[dict, dict, bytes]:
    """Outer header, our header, tensor bytes."""
    length = struct.unpack("<Q", data[:8])[0]
    outer = json.loads(data[8 : 8 + length])
    return outer, json.loads(outer["__metadata__"]["fastbsn"]), data[8 + length :]


def join(outer: dict | str, header: dict | str, body: bytes) -> bytes:
    if isinstance(outer, dict):
        outer = json.dumps({**outer, "__metadata__": {"fastbsn": header if isinstance(header, str) else json.dumps(header)}})
    return struct.pack("<Q", len(outer)) + outer.encode() + body


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_come_back_equal(tmp_path, name):
    net = NETWORKS[name]()
    save_networks(tmp_path / "a", {"student": net, "other": UNet(1, 6, 1)}, {"psnr": 28.5})
    loaded, header = load_networks(tmp_path / "a")
    assert header["psnr"] == 28.5 and list(loaded) == ["student", "other"]
    back = loaded["student"]
    assert type(back) is type(net) and back.config == net.config and not back.training
    for (key, a), (other, b) in zip(net.state_dict().items(), back.state_dict().items(), strict=True):
        assert key == other and b.dtype == torch.float32 and b.device.type == "cpu" and torch.equal(a, b)
    assert all(p.requires_grad for p in back.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_and_loads_as_float32(tmp_path, dtype):
    net = UNet(3, 12, 2)
    save_networks(tmp_path / "a", {"student": net}, {}, dtype)
    assert {t.dtype for t in load_tensors(tmp_path / "a")[0].values()} == {dtype}
    for a, b in zip(net.parameters(), load_networks(tmp_path / "a")[0]["student"].parameters(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a.to(dtype).float(), b)
    x = torch.rand(1, 3, 20, 20)
    assert load_networks(tmp_path / "a")[0]["student"](x).shape == x.shape


def test_tensors_of_every_dtype_and_layout_come_back(tmp_path):
    shared = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "transposed": shared.T,
        "view": shared[1:, ::2],
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "bytes": torch.arange(255, dtype=torch.uint8),
        "flag": torch.tensor([True, False]),
        "half": torch.tensor([math.inf, math.nan, 1], dtype=torch.bfloat16),
        "double": torch.rand(3, dtype=torch.float64),
        "weight": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_(),
    }
    header = {"step": 7, "nested": {"list": [1, 2.5, None, "x"]}}
    save_tensors(tmp_path / "a", tensors, header)
    save_tensors(tmp_path / "b", dict(reversed(tensors.items())), header)
    back, found = load_tensors(tmp_path / "a")
    assert found == header and back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.allclose(back[name].double(), tensor.detach().double(), 0, 0, equal_nan=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_stored_is_refused_and_the_old_file_stays(tmp_path):
    path, net = tmp_path / "a", UNet(1, 6, 1)
    save_networks(path, {"student": net}, {})
    old = path.read_bytes()
    for header in ({"x": math.nan}, {"x": (1, 2)}, {1: "x"}, {"x": object()}, {"x": "\ud800"}):
        with pytest.raises(WeightsError):
            save_tensors(path, {}, header)
    for networks in ({"a.b": net}, {"a": torch.nn.Conv2d(1, 1, 1)}):
        with pytest.raises(WeightsError):
            save_networks(path, networks, {})
    with torch.no_grad():
        net.enc0.weight[0, 0, 0, 0] = 1e5
    save_networks(tmp_path / "b", {"student": net}, {})
    with pytest.raises(WeightsError, match="enc0.weight is not finite as torch.float16"):
        save_networks(path, {"student": net}, {}, torch.float16)
    assert path.read_bytes() == old


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "a"
    save_networks(path, {"student": UNet(1, 6, 1)}, {"note": "x"})
    return path.read_bytes()


def _header(change):
    def attack(data: bytes) -> bytes:
        outer, header, body = split(data)
        return join(outer, change(header) or header, body)

    return attack


def _config(**values):
    return _header(lambda h: h["networks"]["student"]["config"].update(values))


def _outer(change):
    def attack(data: bytes) -> bytes:
        outer, header, body = split(data)
        return join(outer, header, change(outer, body) or body)

    return attack


def _tensors(change):
    def attack(data: bytes) -> bytes:
        tensors = safetensors.torch.load(data)
        return safetensors.torch.save(change(tensors) or tensors, {"fastbsn": json.dumps(split(data)[1])})

    return attack


def _text(old: str, new: str):
    def attack(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        text = data[8 : 8 + length].decode()
        assert old in text
        return join(text.replace(old, new, 1), "", data[8 + length :])

    return attack


def _overlap(outer: dict, body: bytes) -> None:
    names = [n for n in outer if n != "__metadata__"]
    a, b = names[:2]
    outer[b]["shape"], outer[b]["data_offsets"] = outer[a]["shape"], outer[a]["data_offsets"]


def _nan(key: str, value: float):
    return _tensors(lambda t: t[key].view(-1)[-1:].fill_(value) and None)


ATTACKS = {
    "empty object": lambda d: join("{}", "", b""),
    "not an object": lambda d: join("[]", "", b""),
    "header longer than the file": lambda d: struct.pack("<Q", len(d)) + d[8:],
    "header of 2**63 bytes": lambda d: struct.pack("<Q", 2**63) + d[8:],
    "no metadata": lambda d: safetensors.torch.save(safetensors.torch.load(d)),
    "other metadata": lambda d: safetensors.torch.save(safetensors.torch.load(d), {"format": "pt"}),
    "deep JSON": lambda d: join(split(d)[0], '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", split(d)[2]),
    "rather deep JSON": _text(r"\"note\": \"x\"", r"\"note\": " + "[" * 40 + "]" * 40),
    "duplicate key in our header": _text(r"\"note\"", r"\"note\": \"x\", \"note\""),
    "duplicate tensor": _text('"student.dec0a.bias"', '"student.dec0b.bias"'),
    "duplicate metadata": _text('"__metadata__"', '"__metadata__":{"fastbsn":"{}"},"__metadata__"'),
    "NaN in JSON": _text(r"\"note\": \"x\"", r"\"note\": NaN"),
    "infinity in JSON": _text(r"\"note\": \"x\"", r"\"note\": -Infinity"),
    "overflow in JSON": _text(r"\"note\": \"x\"", r"\"note\": 1e999"),
    "integer of 5000 digits": _text(r"\"note\": \"x\"", r"\"note\": " + "1" * 5000),
    "lone surrogate": _text(r"\"note\": \"x\"", r"\"note\": \"\\ud800\""),
    "header not a dict": _header(lambda h: [h]),
    "no networks": _header(lambda h: {"note": "x"}),
    "networks a list": _header(lambda h: {"networks": ["student"]}),
    "networks empty": _header(lambda h: {"networks": {}}),
    "unknown type": _header(lambda h: h["networks"]["student"].update(type="os.system")),
    "type a list": _header(lambda h: h["networks"]["student"].update(type=["unet"])),
    "other type": _header(lambda h: h["networks"]["student"].update(type="dbsn")),
    "extra description": _header(lambda h: h["networks"]["student"].update(path="/etc/passwd")),
    "config a list": _header(lambda h: h["networks"]["student"].update(config=[1, 6, 1])),
    "config incomplete": _header(lambda h: h["networks"]["student"]["config"].pop("depth") and None),
    "config unknown key": _config(device="cuda"),
    "config key self": _config(self=1),
    "config 10**9 channels": _config(channels=6 * 10**8),
    "config 10**9 levels": _config(depth=10**9),
    "config negative": _config(depth=-1),
    "config fractional": _config(channels=6.0),
    "config text": _config(channels="6"),
    "config null": _config(channels=None),
    "config nested": _config(channels=[6]),
    "config of another width": _config(channels=12),
    "config of another depth": _config(depth=2),
    "second network without tensors": _header(lambda h: h["networks"].update(b={"type": "unet", "config": {}})),
    "network renamed": _header(lambda h: h["networks"].update(b=h["networks"].pop("student"))),
    "missing tensor": _tensors(lambda t: t.pop("student.out.bias") is None),
    "extra tensor": _tensors(lambda t: t.update({"student.extra": torch.zeros(1)})),
    "foreign tensor": _tensors(lambda t: t.update({"../../evil": torch.zeros(1)})),
    "wrong shape": _tensors(lambda t: t.update({"student.out.bias": torch.zeros(2)})),
    "transposed": _tensors(lambda t: t.update({"student.dec0b.weight": t["student.dec0b.weight"].transpose(0, 1).contiguous()})),
    "integers": _tensors(lambda t: t.update({"student.out.bias": torch.zeros(1, dtype=torch.int64)})),
    "no tensors": _tensors(lambda t: t.clear()),
    "NaN weight": _nan("student.out.weight", math.nan),
    "infinite weight": _nan("student.out.bias", -math.inf),
    "overlapping offsets": _outer(_overlap),
    "reversed offsets": _outer(lambda o, b: o["student.out.bias"]["data_offsets"].reverse()),
    "offsets beyond the end": _outer(lambda o, b: o["student.out.bias"].update(data_offsets=[len(b), len(b) + 4])),
    "shape of 2**62": _outer(lambda o, b: o["student.out.bias"].update(shape=[2**31, 2**31])),
    "negative shape": _outer(lambda o, b: o["student.out.bias"].update(shape=[-1])),
    "unknown dtype": _outer(lambda o, b: o["student.out.bias"].update(dtype="PICKLE")),
    "trailing bytes": lambda d: d + b"\0" * 8,
    "a hole": _outer(lambda o, b: b + b"\0" * 64),
    "pickle": lambda d: pickle.dumps(print),
}


def test_the_untouched_model_loads(tmp_path, model):
    (tmp_path / "a").write_bytes(join(*split(model)))
    assert load_networks(tmp_path / "a")[1]["note"] == "x"


@pytest.mark.parametrize("attack", ATTACKS)
def test_hand_made_attacks_are_refused(tmp_path, model, attack):
    (tmp_path / "a").write_bytes(ATTACKS[attack](model))
    with pytest.raises(WeightsError, match=str(tmp_path / "a")):
        load_networks(tmp_path / "a")


def test_counts_of_layers_are_bounded_by_the_tensors_before_anything_is_built(tmp_path, model, monkeypatch):
    """A teacher that claims 10**5 modules would otherwise take minutes to build, even without storage."""
    path = tmp_path / "a"
    save_networks(path, {"teacher": DBSN(1, 8, 1)}, {})
    outer, header, body = split(path.read_bytes())
    header["networks"]["teacher"]["config"]["modules"] = 10**5
    path.write_bytes(join(outer, header, body))
    monkeypatch.setattr("fastbsn.io.weights.build", lambda *_: pytest.fail("the network was built"))
    with pytest.raises(WeightsError, match="modules=100000"):
        load_networks(path)


def test_defaults_are_not_filled_in(tmp_path):
    """A file must say all of its configuration, or a later default would change what it means."""
    path = tmp_path / "a"
    save_networks(path, {"noise": NoiseModel("gaussian", 1, 2, 2)}, {})
    outer, header, body = split(path.read_bytes())
    del header["networks"]["noise"]["config"]["kind"]
    path.write_bytes(join(outer, header, body))
    with pytest.raises(WeightsError, match="is not complete"):
        load_networks(path)


def test_a_receptive_field_that_pads_images_to_gigabytes_is_refused(tmp_path):
    save_networks(tmp_path / "a", {"student": UNet(1, 6, 12)}, {})
    with pytest.raises(WeightsError, match="receptive field"):
        load_networks(tmp_path / "a")


def test_no_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError):
        load_networks(tmp_path / "none")
