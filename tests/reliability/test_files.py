"""Hostile and damaged files, full disks, concurrent writers: goals G1, G2, G3, G13, G14 and G16."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tifffile
import torch

from fastbsn.errors import FastBSNError, FileFormatError, WeightsError
from fastbsn.io.image_files import read_image, write_image
from fastbsn.io.mat import read_dnd, read_sidd
from fastbsn.io.stacks import read_stack
from fastbsn.io.weights import load_networks, load_tensors
from tests.conftest import SEED
from tests.io.files import chunk, png
from tests.io.test_stacks import directory
from tests.reliability.numbers import cases

ROOT = Path(__file__).parents[2]


def python(*args: str, timeout: float = 3600) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, *args], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize("kind, goal", [("weights", "G1 mutated weight files"), ("images", "G2 mutated images")])
def test_mutants_give_a_typed_error_or_a_valid_load(kind, goal):
    count = cases(goal)
    result = json.loads(python("-m", "tests.reliability.mutants", kind, str(count), str(SEED)).splitlines()[-1])
    assert not result["unexpected"], result["unexpected"]
    assert result["valid"] + result["refused"] == count and min(result["valid"], result["refused"]) > count / 20
    assert result["slowest"] <= 1 and result["peak"] <= 256, result


def _jpeg(width: int, height: int, scans: int = 1) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0") + 5
    data = data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    scan = data.index(b"\xff\xda")
    return data[:scan] + data[scan:-2] * scans + data[-2:]


def _tiff(width: int, height: int, pages: int = 1, stored: int = 64) -> bytes:
    length = len(directory(8, 8, 8, 64, 0))
    each = [directory(width, height, 8, stored, 72 + length * (i + 1) if i + 1 < pages else 0) for i in range(pages)]
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + b"".join(each)


def _shared_strip(pages: int) -> bytes:
    """Pages of 100 x 100 pixels over one and the same strip, which follows them."""
    length = len(directory(8, 8, 8, 64, 0))
    end = 8 + pages * length
    return (
        b"II*\0\x08\0\0\0" + b"".join(directory(100, 100, end, 10_000, (8 + i * length) % end) for i in range(1, pages + 1)) + bytes(10_000)
    )


def _loop(length: int) -> bytes:
    data = _tiff(8, 8, length)
    return data[:-4] + struct.pack("<I", 72)


def _deflated_tiff(width: int, height: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((8, 8), np.uint8), compression="zlib", metadata=None)
    data = file.getvalue()
    for tag, value in ((256, width), (257, height), (278, height)):
        at = data.index(struct.pack("<HH", tag, 3 if tag == 278 else 4)) if struct.pack("<HH", tag, 4) not in data else None
        at = data.index(struct.pack("<HH", tag, 4)) if at is None else at
        data = data[: at + 2] + struct.pack("<HII", 4, 1, value) + data[at + 12 :]
    return data


def _npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + body


def _shape(shape: str, dtype: str = "'|u1'") -> bytes:
    return _npy(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n", bytes(64))


def _weights(config: dict, shape: tuple[int, ...] = (1,), kind: str = "unet") -> bytes:
    ours = json.dumps({"networks": {"student": {"type": kind, "config": config}}})
    tensors = {"student.a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    text = json.dumps({"__metadata__": {"fastbsn": ours}, **tensors})
    return struct.pack("<Q", len(text)) + text.encode() + bytes(4)


_ZEROS = np.zeros((1, 1), np.uint8)
_SOLID = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(2501 * 20_000)))
BOMBS = {
    "png: 2**31 - 1 squared": ("a.png", png(_ZEROS, size=(2**31 - 1, 2**31 - 1))),
    "png: one pixel wide": ("a.png", png(_ZEROS, size=(1, 2**31 - 1))),
    "png: just over the limit": ("a.png", png(_ZEROS, size=(16385, 16384))),
    "png: at the limit, ten bytes of data": ("a.png", png(_ZEROS, size=(16384, 16384))),
    "png: at the limit, interlaced": ("a.png", png(_ZEROS, size=(16384, 16384), interlaced=True)),
    "png: at the limit, 16-bit RGBA": ("a.png", png(np.zeros((1, 1, 4), np.uint16), size=(16384, 16384))),
    "png: no pixels": ("a.png", png(_ZEROS, size=(0, 7))),
    "png: fully deflated, 400 Mpixel in 50 kB": ("a.png", b"\x89PNG\r\n\x1a\n" + _SOLID + chunk(b"IEND", b"")),
    "png: chunk of 2**32 - 1 bytes": ("a.png", b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIHDR" + bytes(30)),
    "jpeg: 65535 squared": ("a.jpg", _jpeg(65535, 65535)),
    "jpeg: below the limit, 300 bytes": ("a.jpg", _jpeg(16000, 16000)),
    "jpeg: no height": ("a.jpg", _jpeg(8, 0)),
    "jpeg: a thousand scans": ("a.jpg", _jpeg(8, 8, 1000)),
    "tiff: 2**32 - 1 squared": ("a.tif", _tiff(2**32 - 1, 2**32 - 1)),
    "tiff: below the limit, 64 bytes": ("a.tif", _tiff(16000, 16000)),
    "tiff: data beyond the end": ("a.tif", _tiff(16000, 16000, stored=16000 * 16000)),
    "tiff: deflated, below the limit": ("a.tif", _deflated_tiff(16000, 16000)),
    "tiff: a thousand pages over one strip": ("stack.tif", _shared_strip(1000)),
    "tiff: pages in a loop": ("stack.tif", _loop(3)),
    "tiff: 65535 tags": ("a.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(64)),
    "tiff: 2**32 - 1 values": ("a.tif", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 273, 4, 2**32 - 1, 8) + bytes(4)),
    "bigtiff: 2**60 tags": ("a.tif", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(64)),
    "npy: 2**40 squared": ("a.npy", _shape("(1099511627776, 1099511627776)")),
    "npy: at the limit, 64 bytes": ("a.npy", _shape("(16384, 16384)")),
    "npy: 2**62 channels": ("a.npy", _shape("(1, 1, 4611686018427387904)")),
    "npy: items of 1 GiB": ("a.npy", _shape("(8, 8)", "'|V1073741824'")),
    "npy: nested header": ("a.npy", _npy("(" * 9000 + ")" * 9000)),
    "weights: header of 2**63 bytes": ("a.safetensors", struct.pack("<Q", 2**63) + bytes(64)),
    "weights: tensor of 2**62 values": ("a.safetensors", _weights({}, (2**31, 2**31))),
    "weights: 10**9 channels": ("a.safetensors", _weights({"in_channels": 1, "channels": 6 * 10**8, "depth": 1})),
    "weights: 10**9 levels": ("a.safetensors", _weights({"in_channels": 1, "channels": 1, "depth": 10**9})),
    "weights: 10**9 modules": ("a.safetensors", _weights({"in_channels": 1, "channels": 1, "modules": 10**9}, kind="dbsn")),
}  # fmt: skip


@pytest.mark.goal("G3 bombs")
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_before_anything_decodes_them(tmp_path, monkeypatch, bomb):
    def reached(*_, **__):
        pytest.fail("a decoder was reached")

    monkeypatch.setattr(cv2, "imdecode", reached)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", reached)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", reached)
    monkeypatch.setattr("fastbsn.io.weights.build", reached)
    name, data = BOMBS[bomb]
    (tmp_path / name).write_bytes(data)
    read = {"a.safetensors": load_networks, "stack.tif": read_stack}.get(name, read_image)
    with pytest.raises(FileFormatError, match=str(tmp_path)):
        read(tmp_path / name)


def test_a_file_too_large_to_hold_is_refused_by_its_size(tmp_path):
    path = tmp_path / "a.safetensors"
    path.touch()
    os.truncate(path, 2**31 + 1)  # sparse: takes no space
    with pytest.raises(WeightsError, match="2147483649 bytes"):
        load_tensors(path)


DISK_FULL = """
import os, resource, sys
from pathlib import Path
import numpy as np, torch
from fastbsn.errors import StorageError
from fastbsn.io import atomic, image_files, stacks, weights
from fastbsn.evaluation import submission
folder, cuts = Path(sys.argv[1]), int(sys.argv[2])
array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
writers = {
    "a.bin": lambda p: atomic.write_bytes(p, array.tobytes()),
    "a.safetensors": lambda p: weights.save_tensors(p, {"a": torch.from_numpy(array)}, {}),
    "a.png": lambda p: image_files.write_image(p, array),
    "a.jpg": lambda p: image_files.write_image(p, array),
    "a.npy": lambda p: image_files.write_image(p, array),
    "a.tif": lambda p: image_files.write_image(p, array),
    "b.tif": lambda p: stacks.write_stack(p, array, "TYX"),
    "a.mat": lambda p: submission.write_sidd(p, array[None, None], 1.0),
}
for i in range(cuts):
    name = list(writers)[i % len(writers)]
    path = folder / name
    writers[name](path)
    old = path.read_bytes()
    cut = int(len(old) * (i // len(writers)) / -(-cuts // len(writers)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (cut, resource.RLIM_INFINITY))
    try:
        writers[name](path)
        raise SystemExit(f"{name} cut at {cut} of {len(old)}: no error")
    except StorageError as error:
        text = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert str(path) in text and "needed" in text and "bytes are free" in text, text
    assert path.read_bytes() == old, (name, cut)
    assert not [p for p in os.listdir(folder) if p.endswith(".tmp")], os.listdir(folder)
print("done")
"""


def test_a_full_disk_at_any_byte_leaves_the_old_file(tmp_path):
    assert python("-c", DISK_FULL, str(tmp_path), str(cases("G13 disk-full cut points"))).endswith("done\n")


WRITER = """
import hashlib, random, sys
from fastbsn.io.atomic import write_bytes
r = random.Random(int(sys.argv[3]))
for i in range(int(sys.argv[2])):
    data = r.randbytes(r.randrange(1, 200_000))
    write_bytes(sys.argv[1], hashlib.sha256(data).digest() + data)
"""


def test_concurrent_writers_never_show_a_torn_file(tmp_path):
    path, writers = tmp_path / "a", 4
    writes, reads = cases("G14 writes") // writers, cases("G14 reads")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(writes), str(i)], env=environment) for i in range(writers)]
    seen, done = set(), 0
    while done < reads or any(p.poll() is None for p in running):
        if not path.exists():
            continue
        data = path.read_bytes()
        assert hashlib.sha256(data[32:]).digest() == data[:32], f"torn after {done} reads"
        seen.add(data[:32])
        done += 1
    assert [p.wait() for p in running] == [0] * writers
    assert len(seen) > 10 and os.listdir(tmp_path) == ["a"]


class Payload:
    """Unpickling this would make a folder called `executed`."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def _payloads() -> dict[str, bytes]:
    found = {f"pickle protocol {p}": pickle.dumps(Payload(), p) for p in range(6)}
    file = io.BytesIO()
    torch.save({"a": Payload()}, file)
    found["torch.save"] = file.getvalue()
    file = io.BytesIO()
    torch.save({"a": Payload()}, file, _use_new_zipfile_serialization=False)
    found["torch.save of old"] = file.getvalue()
    file = io.BytesIO()
    np.save(file, np.array([[Payload()]], object), allow_pickle=True)
    found["object array"] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../executed", b"x")
        archive.writestr("a.npy", found["object array"])
    found["archive with a traversal name"] = file.getvalue()
    return found


PAYLOADS = _payloads()
READERS = {
    "a.safetensors": load_networks,
    "b.safetensors": load_tensors,
    "a.npy": read_image,
    "a.png": read_image,
    "a.jpg": read_image,
    "a.tif": read_image,
    "b.tif": read_stack,
    "BenchmarkNoisyBlocksSrgb.mat": read_sidd,
    "info.mat": lambda path: list(read_dnd(path.parent)),
}


@pytest.mark.goal("G16 pickles, names and links")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, payload, name):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    (tmp_path / "inside" / name).write_bytes(PAYLOADS[payload])
    with pytest.raises(FastBSNError):
        READERS[name](tmp_path / "inside" / name)
    assert os.listdir(tmp_path) == ["inside"] and os.listdir(tmp_path / "inside") == [name]


def test_the_payload_is_live(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PAYLOADS["pickle protocol 2"])
    assert os.listdir(tmp_path) == ["executed"]


@pytest.mark.goal("G16 pickles, names and links", count=3)
def test_objects_in_matlab_files_stay_closed(tmp_path):
    """Cells, structures and functions are refused by their class in the header."""
    path = tmp_path / "BenchmarkNoisyBlocksSrgb.mat"
    for value in ({"a": 1}, np.array([{"a": 1}], object), np.array(["x"], object)):
        scipy.io.savemat(path, {"BenchmarkNoisyBlocksSrgb": value})
        with pytest.raises(FileFormatError, match="Srgb as uint8"):
            read_sidd(path)


@pytest.mark.goal("G16 pickles, names and links", count=6)
def test_names_in_a_file_never_become_paths(tmp_path, monkeypatch):
    from safetensors.torch import save

    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    for name in ("../evil", "/tmp/evil", "..\\evil", "\0", "a" * 5000, "evil/"):
        described = json.dumps({"networks": {name: {"type": "unet", "config": {}}}})
        Path("a").write_bytes(save({f"{name}.w": torch.zeros(1), name: torch.zeros(1)}, {"fastbsn": described}))
        with pytest.raises(WeightsError):
            load_networks("a")
        assert os.listdir(tmp_path) == ["inside"] and os.listdir() == ["a"]


@pytest.mark.goal("G16 pickles, names and links")
def test_writing_through_a_link_does_not_leave_the_folder(tmp_path):
    (tmp_path / "outside.png").write_bytes(b"old")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.png").symlink_to(tmp_path / "outside.png")
    write_image(tmp_path / "inside" / "a.png", np.zeros((4, 4), np.uint8))
    assert (tmp_path / "outside.png").read_bytes() == b"old"
