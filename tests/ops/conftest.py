"""Operations that run through Triton need the interpreter where there is no GPU."""

from tests.kernels import interpreter  # noqa: F401  (before any kernel is imported)
