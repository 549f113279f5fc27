"""SIGINT and SIGTERM as a wish that a loop asks for between two steps, when its work is in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastbsn.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal came, and its number."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def _came(self, number: int, frame: object) -> None:
        self.signal = number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """While the context is open, SIGINT and SIGTERM only set what it gives; in threads other than the main one, nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._came) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_by_signals(message: str) -> Iterator[None]:
    """While the context is open, SIGINT and SIGTERM raise `Interrupted` at once: for work that keeps nothing half done."""

    def came(number: int, frame: object) -> None:
        raise Interrupted(message, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, came) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
