"""One family of exceptions. Every message says what happened, what was got, what was expected, and what to do."""

from __future__ import annotations

import signal


class FastBSNError(Exception):
    """Base class of every error that fastbsn raises on purpose."""


class InputError(FastBSNError, ValueError):
    """An argument (array, axes, size, value) that the called function cannot accept."""


class FileFormatError(FastBSNError, ValueError):
    """A file that is truncated, corrupt, too large to decode safely, or not what its name says."""


class WeightsError(FileFormatError):
    """A weights or checkpoint file that cannot be used: damaged, of another model, or with non-finite values."""


class BackendError(FastBSNError, RuntimeError):
    """A backend or device that was asked for by name and cannot be used here; the message is the reason."""


class StorageError(FastBSNError, OSError):
    """A write that did not complete; the previous file, if any, is intact."""


class TrainingError(FastBSNError, RuntimeError):
    """Training cannot continue (non-finite loss, empty folder, budget of zero)."""


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal, SIGINT or SIGTERM; what is needed to go on was written first.

    No `Exception`: it may come anywhere, and what makes a damaged file of any exception of a decoder must not hold it up.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.signal = number
