"""Source tree only: the Triton files live in kernels/ at the top level; an installed package has them here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "kernels")]
