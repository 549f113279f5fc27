"""Tar files as WebDataset uses them: members of one sample share the name before the first dot, and are adjacent. Nothing is extracted."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io.storage import check_name

SUFFIX = ".tar"


def split_name(name: str) -> tuple[str, str]:
    """ "a/b.tar/c.png" -> ("a/b.tar", "c.png"); of any other name, the second part is empty."""
    tar, found, member = name.partition(SUFFIX + "/")
    return (tar + SUFFIX, member) if found else (name, "")


class TarFile:
    """Regular members of an uncompressed tar file by name, in order; any number of threads may read them.

    Raises:
        FileFormatError: damaged, cut short, or with a name twice or one that leads out of it.
    """

    def __init__(self, path: Path):
        self._places: dict[str, tuple[int, int]] = {}
        size = os.path.getsize(path)
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    if check_name(member.name) in self._places:
                        raise FileFormatError(f"two members are called {member.name!r}; expected one")
                    if member.offset_data + member.size > size:
                        raise FileFormatError(f"cut short: {member.name!r} ends at byte {member.offset_data + member.size} of {size}")
                    self._places[member.name] = member.offset_data, member.size
        except (tarfile.TarError, EOFError) as error:
            raise FileFormatError(f"damaged tar file ({error}); copy it again") from error
        self._file = open(path, "rb")  # closed with the object, when its last reader is done

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def read(self, name: str) -> bytes:
        if name not in self._places:
            raise InputError(f"the tar file has no member {name!r}; check the name")
        offset, size = self._places[name]
        return os.pread(self._file.fileno(), size, offset)


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar file of these names and contents; equal members give equal bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # owner and time are 0
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()
