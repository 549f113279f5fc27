"""Labels larger than memory: some chunks of them at a time, one of which is replaced every so many steps while the next one is read.

Which chunks are in memory is a function of (seed, step), so that a resumed training sees what an uninterrupted one does.
"""

from __future__ import annotations

import random
import re
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby

import torch

from fastbsn.errors import InputError
from fastbsn.io.tars import split_name
from fastbsn.training.imageset import ImageSet
from fastbsn.training.label_files import LabelFiles
from fastbsn.training.labels import LabelSet

CHUNKS = 8  # into which memory is divided, where no tar file is larger than that
UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "4GiB" or "500 MB".

    Raises:
        InputError: not understood.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in UNITS:
        raise InputError(f"memory {text!r}; expected a size such as 4GiB or 500MB")
    return int(float(match[1]) * UNITS[match[2]])


class Rotation:
    """Labels of a folder, as many at a time as fit into memory. Stands where `LabelSet` does in a student's training.

    Args:
        files: a finished label folder.
        memory: bytes for labels, noisy images and the chunk that is being read.
        seed: decides what a chunk is made of, and in which order they come.

    Attributes (after `prepare`):
        chunks: numbers of the labels in each chunk; a tar file is in one chunk, and what is in no tar file comes in random order.
        resident: number of chunks in memory. steps_per_turn: after which one of them is replaced.
    """

    def __init__(self, files: LabelFiles, memory: int, seed: int = 0):
        self.files, self.memory, self.seed = files, memory, seed
        self.digest, self.count = files.digest, len(files)
        self.can_sample_noise = files.noise == "gaussian" or files.noise_model is not None
        self._reader = ThreadPoolExecutor(1)
        self._read: dict[int, Future[LabelSet]] = {}
        self._turn = -1
        self._set: LabelSet | None = None

    def prepare(self, batch: int, crop: int, size: int, device: torch.device, noisy: bool) -> None:
        """Divide the labels into chunks for a training.

        Args:
            batch, crop: crops per step, pixels on a side of a crop: between two turns as many pixels are drawn as a chunk has.
            size: pixels on a side of the smallest image.
            device: where the images are wanted.
            noisy: also hold the noisy images, for pairs with labels.

        Raises:
            InputError: two chunks do not fit, or the folder's manifest does not say how large the labels are.
        """
        self._size, self._device, self._noisy = size, device, noisy
        entries = self.files.entries
        sizes = [entry.nbytes * (1 + noisy) for entry in entries]
        if not sizes or min(sizes) == 0:
            raise InputError(f"{self.files.storage.location}: {len(sizes)} labels, of unknown size; expected a size for each: label again")
        self.chunks = self._pack(sizes, self.memory // CHUNKS)
        largest = max(sum(sizes[i] for i in chunk) for chunk in self.chunks)
        self.resident = len(self.chunks) if sum(sizes) <= self.memory else self.memory // largest - 1
        if self.resident < 1:
            raise InputError(
                f"memory of {self.memory} bytes; the largest shard takes {largest}, and two must fit: give at least {2 * largest}"
            )
        self.steps_per_turn = max(1, round(sum(entry.pixels for entry in entries) / len(self.chunks) / (batch * crop**2)))

    def _pack(self, sizes: list[int], limit: int) -> list[list[int]]:
        entries = self.files.entries
        tars = [list(group) for _, group in groupby(range(len(entries)), lambda i: split_name(entries[i].label)[0])]
        order = random.Random(self.seed)
        order.shuffle(tars)
        chunks: list[list[int]] = []
        room = 0
        for group in tars:
            size = sum(sizes[i] for i in group)
            if size > room:
                chunks.append([])
                room = limit
            chunks[-1] += group
            room -= size
        return chunks

    def position(self, place: int) -> int:
        """Number of the chunk that comes at a place of the endless sequence: one random order of all chunks after another."""
        turn, place = divmod(place, len(self.chunks))
        order = list(range(len(self.chunks)))
        random.Random(f"{self.seed} {turn}").shuffle(order)
        return order[place]

    def at(self, step: int) -> LabelSet:
        """The labels in memory at this step; the same object until they change."""
        whole = self.resident == len(self.chunks)
        turn = 0 if whole else step // self.steps_per_turn
        if self._set is None or turn != self._turn:
            last = turn + self.resident
            self._read = {place: future for place, future in self._read.items() if turn <= place}
            for place in range(turn, last + (not whole)):
                if place not in self._read:
                    self._read[place] = self._reader.submit(self._load, self.position(place))
            self._turn, self._set = turn, self._joined([self._read[place].result() for place in range(turn, last)])
        return self._set

    def _load(self, chunk: int) -> LabelSet:
        numbers, files = self.chunks[chunk], self.files

        def held(read: object) -> ImageSet:
            images = [read(i) for i in numbers]  # type: ignore[operator]
            return ImageSet(images, [files.names[i] for i in numbers]).at_least(self._size).to(self._device)

        labels, noisy = held(files.label), held(files.noisy) if self._noisy else None
        files.close()
        sigmas, errors = ([values[i] for i in numbers] for values in (files.sigmas, files.errors))
        readers = [partial(files.noisy, i) for i in numbers]
        return LabelSet(labels, sigmas, errors, files.noise, files.noise_model, noisy, readers, self.digest)

    def _joined(self, sets: list[LabelSet]) -> LabelSet:
        images = ImageSet([x for s in sets for x in s.images.images], [n for s in sets for n in s.images.names])
        noisy = ImageSet([x for s in sets if s.noisy for x in s.noisy.images], images.names) if self._noisy else None
        sigmas, errors = [v for s in sets for v in s.sigmas], [v for s in sets for v in s.stds]
        readers = [reader for s in sets for reader in s.readers]
        return LabelSet(images, sigmas, errors, sets[0].noise, sets[0].noise_model, noisy, readers, self.digest)
