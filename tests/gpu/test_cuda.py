"""The CUDA backend on a real GPU: every path that it can run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from fastbsn import Denoiser
from fastbsn.backends import cuda
from fastbsn.nets import UNet

pytestmark = pytest.mark.gpu
DEVICE, BF16 = torch.device("cuda", 0), torch.bfloat16
SHAPES = [(1, 1, 1), (2, 5, 7), (1, 31, 33), (3, 97, 61), (1, 128, 128), (1, 250, 509), (1, 1080, 1920)]


def random_unet(in_channels: int = 3, channels: int = 48, depth: int = 5) -> UNet:
    net = UNet(in_channels, channels, depth)
    for layer in net.convolutions:
        torch.nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
        torch.nn.init.normal_(layer.bias, std=0.5)
    return net


def prepare(net: UNet, path: str) -> cuda.CudaUNet:
    reason = cuda.why_not(net, DEVICE, BF16, path)
    if path == "hopper" and reason and "9.0" in reason:
        pytest.skip(reason)
    assert reason is None, reason
    return cuda.prepare(net, DEVICE, BF16, path)


def errors(net: UNet, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Relative error of y, and of PyTorch in bfloat16, against float64."""
    with torch.no_grad():
        exact = net.double().to(DEVICE)(x.double())
        eager = net.to(BF16)(x.to(BF16)).double()
    scale = (exact - x).norm()
    return ((y - exact).norm() / scale).item(), ((eager - exact).norm() / scale).item()


@pytest.mark.parametrize("path", cuda.PATHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_parity(path: str, shape: tuple[int, int, int]) -> None:
    net = random_unet()
    run = prepare(net, path)
    x = torch.rand(shape[0], 3, *shape[1:], device=DEVICE)
    mine, eager = errors(net, x, run(x))
    assert mine <= eager + 1e-3


@pytest.mark.parametrize("config", [(1, 48, 5), (2, 48, 3), (4, 24, 2), (1, 6, 1)])
def test_other_networks(config: tuple[int, int, int]) -> None:
    net = random_unet(*config)
    path = cuda.PATHS[0] if config[1] == 48 else "reference"
    x = torch.rand(1, config[0], 45, 67, device=DEVICE)
    mine, eager = errors(net, x, cuda.prepare(net, DEVICE, BF16, path)(x))
    assert mine <= eager + 1e-3


@pytest.mark.parametrize("path", cuda.PATHS)
def test_paths_agree_with_the_reference(path: str) -> None:
    net, x = random_unet(), torch.rand(1, 3, 200, 300, device=DEVICE)
    a, b = prepare(net, path)(x), prepare(net, "reference")(x)
    assert (a - b).norm() <= 1e-2 * (b - x).norm()


@pytest.mark.parametrize("dtype, top", [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integer_frames(dtype: torch.dtype, top: int) -> None:
    run = cuda.prepare(random_unet(), DEVICE, BF16)
    frame = torch.randint(0, top + 1, (1, 67, 45, 3)).to(dtype).to(DEVICE).permute(0, 3, 1, 2)  # interleaved, as a camera gives it
    exact = run(frame.float() * torch.tensor(1 / top, dtype=torch.float32)) * top
    assert (run(frame).double() - exact.double().round().clamp(0, top)).abs().max() <= 1


@pytest.mark.parametrize("path", cuda.PATHS)
def test_repeats_are_bit_equal(path: str) -> None:
    run, x = prepare(random_unet(), path), torch.rand(1, 3, 333, 257, device=DEVICE)
    first = run(x)
    for _ in range(10):  # the later ones replay a CUDA graph
        assert torch.equal(run(x), first)


def test_streams_and_threads_share_a_network() -> None:
    run = cuda.prepare(random_unet(), DEVICE, BF16)
    inputs = [torch.rand(1, 3, 64 + 32 * (i % 2), 96, device=DEVICE) for i in range(8)]
    expected = [run(x) for x in inputs]
    torch.cuda.synchronize()
    failures: list[int] = []

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                y = run(inputs[i])
                torch.cuda.current_stream().synchronize()
                if not torch.equal(y, expected[i]):
                    failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_stream_keeps_order_and_values() -> None:
    run = cuda.prepare(random_unet(), DEVICE, BF16)
    frames = [torch.randint(0, 256, (1, 3, 120 + 8 * (i % 3), 200)).to(torch.uint8) for i in range(12)]
    results = list(run.stream(iter(frames)))
    assert len(results) == len(frames)
    for frame, result in zip(frames, results, strict=True):
        assert result.dtype == torch.uint8 and torch.equal(result, run(frame).cpu())


def test_captured_by_the_caller() -> None:
    run, x = cuda.prepare(random_unet(), DEVICE, BF16), torch.rand(1, 3, 100, 100, device=DEVICE)
    expected = run(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run(x)
    run(torch.rand(1, 3, 300, 300, device=DEVICE))  # needs a larger arena
    y.zero_()
    graph.replay()
    assert torch.equal(y, expected)


def test_large_frame_equals_its_tiles() -> None:
    net = random_unet(in_channels=1)
    run, r, size = cuda.prepare(net, DEVICE, BF16), net.radius, 2048
    x = torch.rand(1, 1, 2 * size, 2 * size, device=DEVICE)
    whole = run(x)
    for top in (0, size):
        for left in (0, size):
            y0, x0 = max(0, top - r), max(0, left - r)
            part = run(x[:, :, y0 : top + size + r, x0 : left + size + r])[:, :, top - y0 :, left - x0 :]
            assert torch.equal(part[:, :, :size, :size], whole[:, :, top : top + size, left : left + size])


def test_sixteen_thousand_pixels_square_through_tiles() -> None:
    d, side = Denoiser.from_pretrained("gray-awgn", device="cuda", backend="cuda"), 16384
    x = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    y, r, m = d(x, tile=4096), d.prepared_.radius, d.prepared_.multiple
    assert y.shape == x.shape and y.dtype == np.uint8
    for top, left in ((0, 0), (4096 - m, 8192 - m), (side - 2 * m, side - 2 * m)):  # corners and a seam of four tiles
        y0, x0 = max(0, top - r), max(0, left - r)
        part = d(x[y0 : top + 2 * m + r, x0 : left + 2 * m + r], tile=None)[top - y0 :, left - x0 :][: 2 * m, : 2 * m]
        assert np.array_equal(part, y[top : top + 2 * m, left : left + 2 * m])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_stream_of_a_denoiser(dtype: type) -> None:
    d, rng = Denoiser.from_pretrained("color-awgn", device="cuda", backend="cuda"), np.random.default_rng(0)
    frames = [rng.random((90 + 10 * (i % 3), 160, 3)).astype(np.float32) for i in range(8)]
    frames = frames if dtype is np.float32 else [(x * np.iinfo(dtype).max).astype(dtype) for x in frames]
    step = 1e-6 if dtype is np.float32 else 1  # a call goes through float32, a stream rounds in the kernel
    for frame, result in zip(frames, d.stream(iter(frames)), strict=True):
        assert result.dtype == dtype and result.shape == frame.shape
        np.testing.assert_allclose(result.astype(np.float64), d(frame).astype(np.float64), rtol=0, atol=step)


@pytest.mark.sanitizer
def test_compute_sanitizer() -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        pytest.skip("compute-sanitizer is not installed")
    code = (
        "import torch; from fastbsn.backends import cuda; from fastbsn.nets import UNet\n"
        "for path in cuda.PATHS:\n"
        "    run = cuda.prepare(UNet(), torch.device('cuda', 0), torch.bfloat16, path) if not cuda.why_not("
        "UNet(), torch.device('cuda', 0), torch.bfloat16, path) else None\n"
        "    if run: run(torch.rand(1, 3, 65, 130, device='cuda')); torch.cuda.synchronize()"
    )
    for check in ("memcheck", "racecheck", "synccheck"):
        done = subprocess.run([tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
