"""Tar files of labels, one per tar file of images: for every image NAME, NAME.safetensors, or NAME.json that says why there is none."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack

from fastbsn.errors import FileFormatError
from fastbsn.io.storage import Storage
from fastbsn.io.tars import TarFile, tar_bytes
from fastbsn.io.weights import header_length, parse_header
from fastbsn.labelling.inputs import Row, is_image
from fastbsn.training.identity import file_digest

START = 2048  # bytes: more than most headers of labels have


def label_row(output: Storage, label: str) -> Row:
    """The row of a stored label, from its header alone."""
    start = output.read(label, START)
    if header_length(start) > len(start):
        start = output.read(label, header_length(start))
    return parse_header(start, label)


class Shard:
    """A tar file of images, and the tar file of their labels, which is written when none is missing.

    Attributes:
        unit: its name. label: name of the labels' file. digest: of its bytes. images: its members that are images.

    Raises:
        FileFormatError: damaged, or without images.
    """

    label: str

    def __init__(self, source: Storage, unit: str):
        self.unit, self._stack, self._lock = unit, ExitStack(), threading.Lock()
        path = self._stack.enter_context(source.local(unit))
        self.digest, self.tar = file_digest(path), TarFile(path)
        self.images = [name for name in self.tar.names if is_image(name)]
        if not self.images:
            raise FileFormatError(f"{unit}: has {len(self.tar.names)} members and no images; expected PNG, JPEG, TIFF or .npy members")
        self._made: dict[str, tuple[Row, bytes]] = {}

    def add(self, row: Row, data: bytes, output: Storage) -> list[Row]:
        """Take the row and the label of one image (none, where it failed); after the last one, write all and give their rows."""
        with self._lock:
            self._made[row["image"][len(self.unit) + 1 :]] = row, data
            if len(self._made) < len(self.images):
                return []
        made = [(name, *self._made[name]) for name in self.images]
        members = ((f"{name}.safetensors", data) if data else (f"{name}.json", json.dumps(row).encode()) for name, row, data in made)
        output.create(self.label, tar_bytes(members))
        self.close()
        return [row for _, row, _ in made]

    def stored_rows(self, output: Storage) -> list[Row]:
        """Rows of a stored tar file of labels."""
        with output.local(self.label) as path:
            tar = TarFile(path)
            return [json.loads(tar.read(n)) if n.endswith(".json") else parse_header(tar.read(n), n) for n in tar.names]

    def close(self) -> None:
        self._stack.close()
