"""Kernels run in the interpreter where there is no GPU; memory that is not initialized holds NaN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.kernels import interpreter  # noqa: F401  (before any kernel is imported)


@pytest.fixture(autouse=True)
def _nan_in_new_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
