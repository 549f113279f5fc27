"""Everything a GPU is needed for, in two calls of under 8 minutes; see `python -m benchmarks.gpu --help`."""
