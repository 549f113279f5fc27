"""Places for files, the same whether on disk or in an object store: local folders, and URLs that fsspec understands."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from fastbsn.errors import FileFormatError, InputError, StorageError
from fastbsn.io.atomic import read_bytes, write_bytes

MAX_FILE = 2**34  # bytes


class Storage(Protocol):
    """A tree of files. Names are relative, with "/" between their parts; a file is always complete, or not there."""

    location: str

    def names(self) -> list[str]:
        """All names, sorted; hidden files and folders are left out. InputError: there is no such folder."""

    def exists(self, name: str) -> bool: ...

    def read(self, name: str, length: int | None = None) -> bytes:
        """The file, or its first `length` bytes. InputError: there is none. FileFormatError: empty or too large."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of an old one. StorageError: it did not complete."""

    def create(self, name: str, data: bytes) -> None:
        """Write a file whose name says what it contains: one that is there already is left as it is."""

    def local(self, name: str) -> Any:
        """Context of a file on a local disk with the same content."""


def check_name(name: str) -> str:
    """Refuse names that lead out of a tree."""
    if not name or name[0] == "/" or "\\" in name or ".." in PurePosixPath(name).parts:
        raise FileFormatError(f"{name!r} is no name inside a folder; expected parts without '..', joined by '/'")
    return name


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


class Folder:
    """A local folder. Files are written by `fastbsn.io.atomic`."""

    def __init__(self, location: str | os.PathLike[str]):
        self.path = Path(location)
        self.location = str(self.path.resolve())

    def names(self) -> list[str]:
        if not self.path.is_dir():
            raise InputError(f"{self.path}: there is no such folder; check the name")
        found = []
        for folder, folders, files in os.walk(self.path):
            folders[:] = [f for f in folders if not _hidden(f)]
            relative = Path(folder).relative_to(self.path)
            found += [(relative / file).as_posix() for file in files if not _hidden(file)]
        return sorted(found)

    def exists(self, name: str) -> bool:
        return (self.path / check_name(name)).is_file()

    def read(self, name: str, length: int | None = None) -> bytes:
        path = self.path / check_name(name)
        if length is None:
            return read_bytes(path, MAX_FILE)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file; check the name")
        with open(path, "rb") as file:
            return file.read(length)

    def write(self, name: str, data: bytes) -> None:
        path = self.path / check_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)

    def create(self, name: str, data: bytes) -> None:
        if not self.exists(name):
            self.write(name, data)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self.path / check_name(name)


class ObjectStore:
    """A prefix of an object store, or whatever else fsspec reaches by a URL; a file appears when it is complete.

    Raises:
        InputError: fsspec, or its package for this kind of URL, is not installed.
    """

    def __init__(self, location: str):
        try:
            from fsspec.core import url_to_fs

            self.system, self.root = url_to_fs(location)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{location}: cannot be reached ({error}); install fastbsn[cloud], and s3fs for s3:// or gcsfs for gs://"
            ) from error
        self.location = location.rstrip("/")
        self.root = self.root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self.root}/{check_name(name)}"

    def names(self) -> list[str]:
        self.system.invalidate_cache()
        found = (path[len(self.root) :].lstrip("/") for path in self.system.find(self.root))
        return sorted(name for name in found if name and not _hidden(name))

    def exists(self, name: str) -> bool:
        return bool(self.system.exists(self._path(name)))

    def read(self, name: str, length: int | None = None) -> bytes:
        try:
            data = self.system.cat_file(self._path(name), start=0, end=length)
        except FileNotFoundError as error:
            raise InputError(f"{self.location}/{name}: there is no such file; check the name") from error
        if not data:
            raise FileFormatError(f"{self.location}/{name}: is empty; expected at least 1 byte")
        return bytes(data)

    def write(self, name: str, data: bytes) -> None:
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> None:
        try:
            self._put(name, data, "create")
        except FileExistsError:
            pass

    def _put(self, name: str, data: bytes, mode: str) -> None:
        try:
            self.system.pipe_file(self._path(name), data, mode=mode)
        except FileExistsError:
            raise
        except OSError as error:
            raise StorageError(f"could not write {self.location}/{name} ({len(data)} bytes): {error}; check access and space") from error

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            self.system.get_file(self._path(name), str(path))
            yield path


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage at a local path, or at a URL such as s3://bucket/prefix, gs://bucket/prefix or memory://name."""
    text = os.fspath(location)
    return ObjectStore(text) if "://" in text else Folder(text)
