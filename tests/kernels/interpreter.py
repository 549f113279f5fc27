"""Corrections to the Triton interpreter (3.6), so that it computes what the hardware does. Import before a kernel runs.

bfloat16: its products use the raw bit patterns and its rounding from float32 truncates. Loops: a trip count known only at run
time fails with numpy 2.4.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels are made for the interpreter when their files are imported

import triton.language as tl
from triton.runtime import interpreter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

_create_dot = interpreter.InterpreterBuilder.create_dot
_convert_float = interpreter._convert_float
_patch_tensor = interpreter._patch_lang_tensor


def _decoded(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _rounded(data: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
    if (source, target) != (tl.float32, tl.bfloat16):
        return _convert_float(data, source, target, mode)
    bits = np.ascontiguousarray(data, dtype=np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(data), 0x7FC0, nearest).astype(np.uint16)


def _patched_tensor(tensor: Any, scope: Any) -> None:
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: _create_dot(self, _decoded(a), _decoded(b), *rest)
interpreter._convert_float = _rounded
interpreter._patch_lang_tensor = _patched_tensor
