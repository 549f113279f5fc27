"""The label engine: decode | copy to the device | model | copy back | encode and write, at the same time, in bounded queues."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from fastbsn.errors import FastBSNError, InputError, StorageError
from fastbsn.io.storage import open_storage
from fastbsn.io.weights import tensor_bytes
from fastbsn.labelling.inputs import Image, Row, is_tar
from fastbsn.labelling.job import THREADS, Job, Options
from fastbsn.labelling.shards import Shard, label_row
from fastbsn.labelling.windows import Result, Windows
from fastbsn.training.identity import digest

Task = Callable[[], Image | list[Row]]  # decodes an image, or gives the rows of what is done or cannot be
T = TypeVar("T")
U = TypeVar("U")
AHEAD = 2 * THREADS  # images that are decoded, and results that are not yet written


def failure(name: str, error: Exception) -> Row:
    return {"image": name, "failure": str(error)}


def _ahead(pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterable[T], count: int) -> Iterator[U]:
    """`map`, in order, with at most `count` results that nobody has asked for yet."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Labeller:
    """Makes the labels of units and writes them; gives one row per image.

    A label's name is that of its input and a digest of the input's bytes and of the job, so that what is there already is kept and
    nothing of another model, option, backend, dtype or version is taken for it. A unit's labels depend on nothing but the unit.

    Args:
        source: place of the noisy images: folder or URL.
        output: place of the labels.
        teacher: labelling model, see `Job`; a student will do.
        device, backend, dtype: what runs it, see `Denoiser`.
        options: see `Options`.
    """

    def __init__(
        self,
        source: str | Path,
        output: str | Path,
        teacher: str | Path,
        device: str = "auto",
        backend: str = "auto",
        dtype: str = "auto",
        options: Options | None = None,
    ):
        self.source, self.output = open_storage(source), open_storage(output)
        self.job = Job(teacher, device, backend, dtype, options)
        self.windows = Windows(self.job)
        self.written, self._lock = 0, threading.Lock()

    def __call__(self, unit: str) -> list[Row]:
        """Label one unit: rows of its images, labelled now or before, or with the reason of a failure."""
        return list(self.run([unit]))

    def run(self, units: Iterable[str], stop: Callable[[], object] = lambda: False) -> Iterator[Row]:
        """Label units; gives their rows, in any order. When `stop` says so, what is in hand is finished and no other unit is begun.

        Raises:
            StorageError: a label could not be written. BackendError: out of memory.
        """
        with ThreadPoolExecutor(1) as openers, ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
            writing: deque[Future[list[Row]]] = deque()

            def store(results: list[Result]) -> Iterator[Row]:
                writing.append(writers.submit(self._store, results))
                while len(writing) > AHEAD or (writing and writing[0].done()):
                    yield from writing.popleft().result()

            going = partial(_until, stop)
            tasks = (task for found in _ahead(openers, self._open, going(units), 1) for task in going(found))
            for found in _ahead(readers, lambda task: task(), tasks, AHEAD):
                if isinstance(found, list):
                    yield from found
                    continue
                for picture in found.pictures:
                    for results in self.windows.add(picture):
                        yield from store(results)
            yield from store(self.windows.flush())
            while writing:
                yield from writing.popleft().result()

    def _open(self, unit: str) -> list[Task]:
        """What is to be done for a unit; nothing is decoded yet."""
        if not is_tar(unit):
            return [partial(self._read, unit)]
        try:
            shard = Shard(self.source, unit)
            shard.label = self._label(unit, shard.digest, ".tar")
            if self.output.exists(shard.label):
                shard.close()
                return [partial(shard.stored_rows, self.output)]
            return [partial(self._read_member, shard, name) for name in shard.images]
        except StorageError:
            raise
        except FastBSNError as error:
            row = failure(unit, error)
            return [lambda: [row]]

    def _label(self, unit: str, found: str, suffix: str) -> str:
        return f"{unit}.{digest(self.job.digest.encode(), found.encode())}{suffix}"

    def _read(self, unit: str) -> Image | list[Row]:
        try:
            data = self.source.read(unit)
            label = self._label(unit, digest(data), ".safetensors")
            return [label_row(self.output, label)] if self.output.exists(label) else Image(unit, label, data, self.job)
        except StorageError:
            raise
        except FastBSNError as error:
            return [failure(unit, error)]

    def _read_member(self, shard: Shard, name: str) -> Image | list[Row]:
        image = f"{shard.unit}/{name}"
        try:
            return Image(image, f"{shard.label}/{name}.safetensors", shard.tar.read(name), self.job, shard)
        except FastBSNError as error:
            return shard.add(failure(image, error), b"", self.output)

    def _store(self, results: list[Result]) -> list[Row]:
        """Results of one batch into their pictures; labels that are complete are written."""
        rows = []
        for result in results:
            image = result.part.picture.owner
            try:
                if result.store() and image.done(1):
                    rows += self._write(image, *image.finished(self.job))
            except InputError as error:
                if image.done(len(image.pictures)):
                    row = failure(image.name, error)
                    rows += image.shard.add(row, b"", self.output) if image.shard else [row]
        return rows

    def _write(self, image: Image, row: Row, tensors: dict[str, Tensor]) -> list[Row]:
        data = tensor_bytes(tensors, row, row["label"])
        with self._lock:
            self.written += 1
        if image.shard:
            return image.shard.add(row, data, self.output)
        self.output.create(row["label"], data)
        return [row]


def _until(stop: Callable[[], object], items: Iterable[T]) -> Iterator[T]:
    for item in items:
        if stop():
            return
        yield item
