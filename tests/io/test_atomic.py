"""The one writer: all or nothing, and an error that says where, how much, and how much is free."""

from __future__ import annotations

import errno
import json
import os
import re

import pytest

from fastbsn.errors import FileFormatError, InputError, StorageError
from fastbsn.io import atomic


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.json"
    atomic.write_text(path, "old")
    atomic.write_json(path, {"psnr": 28.5, "name": "é"})
    assert json.loads(path.read_text()) == {"psnr": 28.5, "name": "é"}
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(errno.ENOENT, "mine"), KeyboardInterrupt()])
def test_an_error_of_the_caller_leaves_the_old_file_and_passes_through(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as caught, atomic.atomic_file(path) as file:
        file.write(b"new")
        raise error
    assert caught.value is error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_failing_disk_is_a_storage_error_with_numbers(tmp_path, monkeypatch, code, where):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    if where != "write":
        monkeypatch.setattr(atomic.os, where, fail)
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught, atomic.atomic_file(path, 5000) as file:
        file.write(b"new")
        if where == "write":
            fail()
    assert caught.value.errno == code and re.search(r"needed 5000 bytes, \d+ bytes are free", str(caught.value))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_refuses_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/null", tmp_path / "none" / "a", tmp_path / ("x" * 300)):
        with pytest.raises(StorageError):
            atomic.write_bytes(path, b"x")
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_symbolic_link_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"old")
    (tmp_path / "link").symlink_to(outside)
    atomic.write_bytes(tmp_path / "link", b"new")
    assert outside.read_bytes() == b"old" and not (tmp_path / "link").is_symlink()


def test_names_up_to_the_limit_of_the_file_system(tmp_path):
    atomic.write_bytes(tmp_path / ("x" * 255), b"new")
    assert os.listdir(tmp_path) == ["x" * 255]


def test_json_is_standard(tmp_path):
    with pytest.raises(ValueError):
        atomic.write_json(tmp_path / "a", float("nan"))
    assert not os.listdir(tmp_path)


def test_reading_is_bounded_and_never_blocks(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    assert atomic.read_bytes(tmp_path / "a", 5) == b"12345"
    for name, error in {"a": FileFormatError, "empty": FileFormatError, "pipe": InputError, "none": InputError}.items():
        with pytest.raises(error):
            atomic.read_bytes(tmp_path / name, 4)
