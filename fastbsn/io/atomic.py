"""The one writer: a file is either the old one or the complete new one, never a part of it."""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastbsn.errors import FileFormatError, InputError, StorageError

# Raised while the caller writes; other errors in the caller's block are the caller's own.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class _File(io.BufferedRandom):
    """A file that numpy's `tofile` must leave to `write`: on a full disk it loses the end of an array without an error."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def size(self) -> int:
        with suppress(OSError, ValueError):
            return self.tell()
        return 0


def _storage_error(error: OSError, path: Path, needed: int) -> StorageError:
    try:
        free = f"{shutil.disk_usage(path.parent).free} bytes are free there"
    except OSError:
        free = "free space unknown"
    raised = StorageError(
        f"could not write {path}: {error.strerror or error}; needed {needed} bytes, {free}; "
        "the previous file, if any, is unchanged: free some space or choose another folder"
    )
    raised.errno = error.errno
    return raised


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # the file is in place; Windows and some network file systems cannot sync a directory
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_file(path: str | os.PathLike[str], needed: int = 0) -> Iterator[io.BufferedRandom]:
    """Open a temporary file beside `path`; when the block ends without an exception it takes the name `path`.

    Any number of processes may write the same path: the last complete one wins. A symbolic link at `path` is replaced, not
    followed. A temporary file left by a killed process is called `.fastbsn-*.tmp`.

    Args:
        path: the final name, in a folder that exists.
        needed: size in bytes for the error message, when the caller knows it.

    Raises:
        StorageError: disk full, quota, no permission, no such folder, or `path` is not a regular file.
    """
    target = Path(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise StorageError(f"could not write {target}: it exists and is not a regular file; choose another name")
    temporary = target.with_name(f".fastbsn-{secrets.token_hex(8)}.tmp")
    try:
        file = _File(io.FileIO(temporary, "x+"))
    except OSError as error:
        raise _storage_error(error, target, needed) from error
    try:
        try:
            yield file
        except OSError as error:
            if error.errno in _WRITE_ERRORS:
                raise _storage_error(error, target, max(needed, file.size())) from error
            raise
        try:
            file.flush()
            os.fsync(file.raw.fileno())
            file.close()
            os.replace(temporary, target)
        except OSError as error:
            raise _storage_error(error, target, max(needed, file.size())) from error
        _sync_folder(target.parent)
    finally:
        with suppress(OSError):  # closing flushes once more, and fails again on a full disk
            file.close()
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path, len(data)) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as indented, standard JSON to `path` atomically; NaN and infinity are a ValueError."""
    write_text(path, json.dumps(obj, indent=2, allow_nan=False) + "\n")


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        InputError: there is no regular file at `path` (a pipe or a device would block).
        FileFormatError: the file is empty or larger than `limit`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the name")
    size = path.stat().st_size
    if not 0 < size <= limit:
        raise FileFormatError(f"{path}: holds {size} bytes; expected 1 to {limit}")
    return path.read_bytes()
