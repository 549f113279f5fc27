"""`python -m fastbsn` is the `fastbsn` command."""

import sys

from fastbsn.commands import main

if __name__ == "__main__":
    sys.exit(main())
