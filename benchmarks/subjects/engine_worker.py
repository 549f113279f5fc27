"""One engine on one image, in a process of its own; needs numpy and the package of the engine only.

    python engine_worker.py ENGINE ONNX FOLDER THREADS ROUNDS GIBIBYTES

Reads noisy.npy (float32 [H, W, 3] in [0, 1]) from the folder, writes output.npy (the same), and prints one JSON line: wall and CPU
seconds of every round after the first, and peak memory of the process in MiB. Changing the layout of the array is part of an engine's
time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

Image = np.ndarray
Engine = Callable[[Image], Image]


def _planes(run: Callable[[Image], Image]) -> Engine:
    """[H, W, 3] for an engine of [1, 3, H, W]."""
    return lambda x: np.ascontiguousarray(run(np.ascontiguousarray(x.transpose(2, 0, 1))[None])[0].transpose(1, 2, 0))


def fastbsn(model: str, threads: int, dtype: str, backend: str = "reference") -> Engine:
    import torch

    from fastbsn import Denoiser

    torch.set_num_threads(threads)
    d = Denoiser.from_pretrained(Path(model).with_suffix(".safetensors"), device="cpu", dtype=dtype, backend=backend)
    return lambda x: np.asarray(d(x, channel_axis=2, data_range=1.0))


def openvino(model: str, threads: int, dtype: str) -> Engine:
    import openvino as ov

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return _planes(lambda x: request.infer({"noisy": x})["denoised"])


def onnxruntime(model: str, threads: int, dtype: str) -> Engine:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _planes(lambda x: session.run(["denoised"], {"noisy": x})[0])


def oidn(model: str, threads: int, dtype: str) -> Engine:
    os.environ["OIDN_NUM_THREADS"] = str(threads)
    import pyoidn

    return pyoidn.denoise


ENGINES: dict[str, tuple[Callable[[str, int, str], Engine], str]] = {
    "fastbsn fp32": (fastbsn, "float32"),
    "fastbsn bf16": (fastbsn, "bfloat16"),
    "fastbsn fp32, backend openvino": (partial(fastbsn, backend="openvino"), "float32"),
    "fastbsn bf16, backend openvino": (partial(fastbsn, backend="openvino"), "bfloat16"),
    "OpenVINO fp32": (openvino, "f32"),
    "OpenVINO bf16": (openvino, "bf16"),
    "onnxruntime fp32": (onnxruntime, "float32"),
    "OIDN fp32, its own network": (oidn, "float32"),
}


def peak_mib() -> float:
    """Of this process; `ru_maxrss` would begin with that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10


def main(name: str, model: str, folder: str, threads: str, rounds: str, gibibytes: str) -> None:
    limit = int(float(gibibytes) * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # an engine that asks for more fails, and not the machine
    prepare, dtype = ENGINES[name]
    try:
        run = prepare(model, int(threads), dtype)
    except ImportError as error:
        print(json.dumps({"skipped": f"the package {error.name} is not installed"}))
        return
    image = np.load(Path(folder) / "noisy.npy", allow_pickle=False)
    wall, cpu = [], []
    for _ in range(int(rounds) + 1):
        start, spent = time.perf_counter(), time.process_time()
        output = run(image)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    np.save(Path(folder) / "output.npy", output)
    print(json.dumps({"wall": wall[1:] or wall, "cpu": cpu[1:] or cpu, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
