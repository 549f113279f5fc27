"""OpenVINO on a CPU (package openvino): the student's noise by the ONNX graph of `fastbsn.export`. Chosen by name, but for INT8: which
backend is faster depends on the processor, and `python -m benchmarks.engines` measures it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastbsn.backends.device import slow_int8
from fastbsn.export import onnx_model
from fastbsn.int8 import usable
from fastbsn.nets import UNet, pad_to_multiple

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "bf16"}  # of what is not in INT8


def why_not(net: nn.Module, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run `net`, or None."""
    if not isinstance(net, UNet):
        return "it runs students only"
    if device.type != "cpu" or dtype not in HINTS:
        return f"it runs on a CPU in {' or '.join(map(str, HINTS))}; got {device} and {dtype}"
    ranges = "the model's file has no ranges for INT8; add them with: fastbsn export --model MODEL --ranges NOISY_IMAGES -o FILE"
    if dtype == torch.int8 and (refusal := slow_int8() or (None if usable(net) else ranges)):
        return refusal
    missing = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}; install it with: pip install {' '.join(missing)}" if missing else None


@cache
def _core() -> Any:
    """One, for ever: it gives the thread that makes it a stack for signals; dropped in another one, the next signal ends the process."""
    import openvino

    return openvino.Core()


def prepare(net: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Compile once; as many threads as PyTorch has now. float32 [N, C, H, W] -> the same; y - f(y) is float32."""
    assert isinstance(net, UNet)
    parts, local, multiple = 1 if dtype == torch.float32 else 2, threading.local(), net.multiple
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
    compiled = _core().compile_model(_core().read_model(onnx_model(net, parts, dtype == torch.int8)), "CPU", options)

    def denoise(y: Tensor) -> Tensor:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()  # one infers one image at a time
        x = pad_to_multiple(y, multiple)
        image = x if parts == 1 else torch.cat([x.bfloat16().float(), x - x.bfloat16()], 1)
        noise = local.request.infer({"image": np.ascontiguousarray(image.numpy())}, share_inputs=True)["noise"]
        return y - torch.from_numpy(noise)[..., : y.shape[2], : y.shape[3]]

    return denoise
