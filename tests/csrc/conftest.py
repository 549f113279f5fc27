"""Builds the host side of csrc/ with g++ alone, and calls it through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastbsn.nets import UNet

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
CODES = {torch.uint8: 0, torch.uint16: 1, torch.float16: 2, torch.float32: 3}


def compile_cpp(output: Path, *sources: Path, flags: list[str]) -> Path:
    compiler = shutil.which("g++")
    assert compiler, "no g++; the CPU executor of csrc/ is tested with it"
    subprocess.run([compiler, *FLAGS, *flags, "-o", str(output), *map(str, sources)], check=True)
    return output


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ctypes.CDLL]:
    """library("host.cpp") compiles tests/csrc/host.cpp with the plan, once."""
    folder, built = tmp_path_factory.mktemp("csrc"), {}

    def load(name: str) -> ctypes.CDLL:
        if name not in built:
            sources = [ROOT / "tests/csrc" / name, ROOT / "csrc/plan.cpp"]
            built[name] = ctypes.CDLL(str(compile_cpp(folder / f"{name}.so", *sources, flags=["-O3", "-march=native", "-shared", "-fPIC"])))
        return built[name]

    return load


def random_unet(in_channels: int, channels: int, depth: int, bias: float = 0.5) -> UNet:
    """Activations of unit size throughout and large biases, so that wrong padding shows."""
    net = UNet(in_channels, channels, depth)
    for layer in net.convolutions:
        torch.nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
        torch.nn.init.normal_(layer.bias, std=bias)
    return net


def layer_pointers(net: UNet) -> tuple[ctypes.Array[ctypes.c_void_p], list[Tensor]]:
    """Addresses of weight, bias, weight, ... and the tensors that must stay alive."""
    tensors = [t.detach().float().contiguous() for layer in net.convolutions for t in (layer.weight, layer.bias)]
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors]), tensors


def run_on_host(library: ctypes.CDLL, net: UNet, x: Tensor, shared: int = 49152, processors: int = 4, depth: int | None = None) -> Tensor:
    """The CPU executor; `shared` sets how wide and `processors` how tall the tiles are."""
    n, c, h, w = x.shape
    pointers, _alive = layer_pointers(net)
    out, message = torch.empty_like(x), ctypes.create_string_buffer(400)
    out.fill_(float("nan") if x.dtype.is_floating_point else 77)
    status = library.run_network(
        *(c, net.config["channels"], depth or net.depth, n, h, w, ctypes.c_int64(shared), processors, pointers),
        *(ctypes.c_void_p(x.data_ptr()), CODES[x.dtype], ctypes.c_void_p(out.data_ptr()), CODES[x.dtype], message, len(message)),
    )
    if status:
        raise ValueError(message.value.decode())
    return out
