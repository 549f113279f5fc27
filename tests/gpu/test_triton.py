"""The checks of tests/kernels on hardware, and what only hardware can show. Run with `pytest -m gpu tests/gpu`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fastbsn import ops
from fastbsn.backends import triton
from fastbsn.kernels.layout import Flat
from fastbsn.ops import mdc_cuda
from tests.conftest import SEED
from tests.kernels import checks

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]
HALF, BF16, FULL = torch.float16, torch.bfloat16, torch.float32
DEVICE = "cuda"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dtype", [HALF, BF16])
@pytest.mark.parametrize(
    ("n", "c", "o", "h", "w", "k"),
    [
        (1, 8, 8, 1, 1, 3),
        (2, 48, 64, 37, 53, 5),
        (1, 96, 96, 127, 129, 3),
        (3, 128, 128, 64, 31, 5),
        (1, 160, 256, 61, 45, 5),
        (2, 256, 160, 33, 70, 3),
    ],
)
def test_masked_convolution(n, c, o, h, w, k, dtype):
    checks.check_masked_conv(n, c, o, h, w, k, dtype, DEVICE)


@pytest.mark.parametrize("kind", ["residual", "mdc"])
@pytest.mark.parametrize(
    ("n", "c", "h", "w", "modules", "d", "dtype"),
    [
        (1, 8, 1, 1, 1, 2, HALF),
        (1, 16, 13, 11, 1, 3, FULL),
        (2, 40, 31, 45, 2, 3, HALF),
        (1, 48, 64, 64, 2, 2, BF16),
        (1, 64, 127, 61, 1, 3, HALF),
        (2, 96, 96, 96, 1, 2, BF16),
        (1, 128, 97, 101, 1, 3, HALF),
        (1, 160, 65, 83, 2, 2, HALF),
        (2, 256, 48, 51, 1, 3, BF16),
    ],
)
def test_modules(kind, n, c, h, w, modules, d, dtype):
    checks.check_body(kind, n, c, h, w, modules, d, dtype, DEVICE)


@pytest.mark.parametrize("i", range(60))
def test_random_shapes(i):
    checks.check_random(1000 * SEED + i, DEVICE, largest=130, widest=160)


@pytest.mark.parametrize("kind", ["residual", "mdc"])
def test_a_module_on_phases_of_different_extent(kind):
    for c in (96, 160):
        checks.check_module_on_phases(kind, 2, c, 50, 73, 3, HALF, DEVICE)


@pytest.mark.parametrize("c", [24, 48, 64, 96, 128, 160, 256])
def test_memory(c):
    checks.check_memory(c, c, Flat(2, 37, 29, 2, 2), 5, HALF, DEVICE)


@pytest.mark.parametrize(("variant", "c"), [("light", 128), ("paper", 96), ("light", 48), ("paper", 64), ("light", 256), ("paper", 160)])
@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("dtype", [HALF, BF16])
def test_prepared_teacher(variant, c, features, dtype):
    checks.check_teacher(variant, c, 2, (2, 3, 61, 83), dtype, features, DEVICE)


@pytest.mark.parametrize("shape", [(2, 3, 61, 83), (1, 1, 5, 4), (1, 3, 270, 480)])
@pytest.mark.parametrize("dtype", [HALF, BF16])
def test_prepared_teacher_with_cuda_modules(shape, dtype):
    reason = mdc_cuda.why_not(torch.device(DEVICE), dtype, 96)
    if reason and "9.0" in reason:
        pytest.skip(reason)
    assert reason is None, reason
    checks.check_teacher("paper", 96, 2, shape, dtype, True, DEVICE, "cuda")
    net = triton.plan(checks.random_teacher("paper", 96, 2).to(DEVICE), torch.device(DEVICE), dtype, True, "cuda")
    x = torch.rand(1, 3, 200, 300, device=DEVICE)
    checks.check_repeats(lambda: net(x)[1], 100)


@pytest.mark.parametrize("c", [48, 160])
@pytest.mark.parametrize("variant", ["light", "paper"])
def test_blind_spot(variant, c):
    checks.check_blind_spot(variant, c, 11, HALF, DEVICE)


@pytest.mark.parametrize(("variant", "c"), [("light", 96), ("paper", 96), ("paper", 160)])
def test_hundred_repeats_are_bit_equal(variant, c):
    net = triton.prepare(checks.random_teacher(variant, c, 2).to(DEVICE), torch.device(DEVICE), BF16)
    x = torch.rand(1, 3, 200, 300, device=DEVICE)
    checks.check_repeats(lambda: net(x)[1], 100)


def test_hundred_gradients_are_bit_equal():
    checks.check_repeats(lambda: checks.weight_gradients_twice_split(96, Flat(4, 96, 96, 2, 1), BF16, DEVICE), 100)


def test_graph_replay_equals_launches():
    net = triton.TritonDBSN(checks.random_teacher("paper", 96, 2).to(DEVICE), torch.device(DEVICE), BF16, True)
    x = torch.rand(1, 3, 65, 130, device=DEVICE)
    net(x), net(x)
    size, replayed = net._sizes[x.shape], net(x)
    assert size.graph is not None
    size.graph, net.graphs = None, False
    for a, b in zip(replayed, net(x), strict=True):
        assert torch.equal(a, b)


def test_threads_and_streams_do_not_mix_results():
    net = triton.prepare(checks.random_teacher("light", 64, 2).to(DEVICE), torch.device(DEVICE), BF16)
    images = [torch.rand(1, 3, 64 + 3 * i, 80, device=DEVICE) for i in range(3)]
    expected, wrong = [net(x)[0] for x in images], []
    torch.cuda.synchronize()

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                same = torch.equal(net(images[i])[0], expected[i])
                torch.cuda.current_stream().synchronize()
                if not same:
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("variant", "c"), [("light", 48), ("paper", 48), ("light", 160), ("paper", 160)])
def test_whole_training_step_in_a_cuda_graph(variant, c):
    """Forward, backward and optimizer replayed; the loss falls as it does launched one by one."""
    net = checks.random_teacher(variant, c, 1).to(DEVICE).requires_grad_(True)
    start = {k: v.clone() for k, v in net.state_dict().items()}
    y = torch.rand(2, 3, 48, 48, device=DEVICE)

    def losses(graphed: bool) -> list[float]:
        net.load_state_dict(start)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, capturable=True)

        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=False)
            with torch.autocast("cuda", BF16), ops.backend("triton"):
                mu, _ = net(y)
            loss = ((mu.float() - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            found = [step().item() for _ in range(3)]
        torch.cuda.current_stream().wait_stream(warm)
        if not graphed:
            return found + [step().item() for _ in range(5)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()
        for _ in range(5):
            graph.replay()
            found.append(loss.item())
        return found

    torch.testing.assert_close(torch.tensor(losses(True)), torch.tensor(losses(False)), rtol=1e-2, atol=1e-4)


@pytest.mark.sanitizer
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(tool):
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        pytest.skip("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    resampling = Path(__file__).with_name("test_student_training.py")
    tests = [f"{__file__}::test_memory[48]", f"{__file__}::test_a_module_on_phases_of_different_extent", f"{resampling}::test_resampling"]
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q", "-m", "gpu", *tests]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_compiled_with_inductor():
    net, x = checks.random_teacher("light", 48, 1).to(DEVICE, BF16), torch.rand(1, 3, 40, 44, device=DEVICE, dtype=BF16)
    with ops.backend("triton"), torch.no_grad():
        compiled = torch.compile(net, fullgraph=True)
        assert checks.error(compiled(x)[0], net(x)[0]) < 2e-2
