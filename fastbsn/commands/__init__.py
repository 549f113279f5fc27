"""Command line: parses, calls, prints.

Exit codes: 0 done, 1 some files failed, 2 the request cannot be carried out, 128 + signal stopped (130, 143).
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import warnings
from types import FrameType

from fastbsn.errors import FastBSNError, Interrupted, StorageError


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Interrupted("stopped; files that are written are whole, and the same command goes on", number)


def _log(args: argparse.Namespace) -> None:
    """What the library logs: warnings to stderr, everything with -v; to a file where one is named. Python's warnings as one line."""
    logger = logging.getLogger("fastbsn")
    console = logging.StreamHandler()
    console.setLevel(logging.INFO if args.verbose else logging.WARNING)
    handlers: list[logging.Handler] = [console]
    if args.log_file:
        try:
            handlers.append(logging.FileHandler(args.log_file, encoding="utf-8"))
        except OSError as error:
            raise StorageError(f"--log-file {args.log_file}: {error.strerror}; name a file in a folder that exists") from error
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers, logger.propagate = handlers, True
    logger.setLevel(logging.INFO)
    warnings.formatwarning = lambda message, *_, **__: f"fastbsn: {message}\n"


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `fastbsn` command; returns the exit code."""
    from fastbsn.commands.parser import parser

    args = parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _terminated) if threading.current_thread() is threading.main_thread() else None
    try:
        _log(args)
        return int(args.run(args))
    except Interrupted as error:
        print(f"fastbsn: {error}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("fastbsn: stopped", file=sys.stderr)
        return 130
    except (FastBSNError, OSError) as error:
        print(f"fastbsn: {error}", file=sys.stderr)
        return 2
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
