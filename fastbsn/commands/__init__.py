"""Command line: parses, calls, prints.

Exit codes: 0 done, 1 some files failed, 2 the request cannot be carried out, 128 + signal stopped (130, 143).
"""

from __future__ import annotations

import sys

from fastbsn.errors import FastBSNError, Interrupted


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `fastbsn` command; returns the exit code."""
    from fastbsn.commands.parser import parser

    args = parser().parse_args(argv)
    try:
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
