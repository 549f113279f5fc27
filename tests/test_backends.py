import subprocess
import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as F

from fastbsn.backends import reference, resolve_device, resolve_dtype, select, status
from fastbsn.errors import BackendError
from fastbsn.names import BACKENDS
from fastbsn.nets import DBSN, NoiseModel, pad_to_multiple
from fastbsn.nets.unet import upsample_weight
from fastbsn.ops import dispatch
from tests.tiny import tiny_unet

CPU = torch.device("cpu")


def error(a: torch.Tensor, exact: torch.Tensor) -> float:
    return float((a.double() - exact).abs().max())


@pytest.mark.parametrize("backend", ["reference", "openvino"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "channels, depth, shape",
    [
        (6, 1, (1, 1, 1, 1)),
        (6, 1, (2, 3, 7, 5)),
        (12, 2, (1, 3, 33, 17)),
        (6, 3, (3, 1, 65, 40)),
        (24, 2, (1, 4, 64, 64)),
        (48, 5, (1, 3, 37, 70)),
    ],
)
def test_prepared_student_errs_at_most_twice_as_much_as_pytorch(monkeypatch, channels, depth, shape, dtype, backend):
    monkeypatch.setattr(reference, "STRIP", 16)
    net, y = tiny_unet(shape[1], channels, depth), torch.rand(shape)
    found = select(net, "cpu", backend, dtype)(y)
    with torch.no_grad():
        exact = net.double()(y.double())
        noise = net.float().to(dtype).estimated_noise(pad_to_multiple(y, net.multiple).to(dtype))
    eager = y - noise.float()[..., : shape[2], : shape[3]]
    assert found.shape == shape and found.dtype == torch.float32
    floor = 2 * torch.finfo(dtype).eps * float((exact - y).abs().max())
    assert error(found, exact) <= 2 * error(eager, exact) + floor


def test_signals_reach_a_process_after_openvino_was_dropped_in_another_thread():
    """Its core has a stack for signals in the thread that made it, which must not go with another."""
    pytest.importorskip("openvino")
    code = """
import faulthandler, gc, os, signal, threading, torch
from fastbsn.backends import openvino
from fastbsn.nets import UNet
faulthandler.enable()
networks = [openvino.prepare(UNet(3, 6, 2).eval(), torch.device("cpu"), torch.float32)]
thread = threading.Thread(target=lambda: (networks.clear(), gc.collect()))
thread.start(), thread.join()
signal.signal(signal.SIGINT, lambda *_: print("came"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "came\n", done.stderr


def test_upsampling_and_convolution_as_one_transposed_convolution():
    x, weight = torch.randn(2, 5, 4, 6, dtype=torch.float64), torch.randn(3, 5, 3, 3, dtype=torch.float64)
    two = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    one = F.conv_transpose2d(x, upsample_weight(weight), stride=2, padding=1)
    assert error(one, two) < 1e-13


def test_the_image_itself_is_not_rounded_to_bfloat16():
    """A network that subtracts neighbours, 1.1^2 (y[j] - y[j+1]), of an image that is flat in bfloat16."""
    net = tiny_unet(1)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    with torch.no_grad():
        for row, sign in enumerate((1, -1)):
            net.dec0a.weight[row, -1, 1, 1:] = sign * torch.tensor([1, -1])
            net.dec0b.weight[row, :2, 1, 1] = sign * torch.tensor([1, -1])
        net.out.weight[0, :2, 1, 1] = torch.tensor([1, -1])
    y = 0.75 + 5e-4 * torch.rand(1, 1, 32, 32)
    assert (y.to(torch.bfloat16) == 0.75).all()
    noise = y - select(net, "cpu", "reference", "bfloat16")(y)
    expected = 1.21 * (y - y.roll(-1, 3))
    assert (noise - expected)[..., :-1].norm() < 0.02 * expected[..., :-1].norm()


def test_strips_change_nothing(monkeypatch):
    net, y = tiny_unet(3, 12, 3), torch.rand(2, 3, 120, 40)
    monkeypatch.setattr(reference, "STRIP", 8)
    strips = reference.prepare(net, CPU, torch.bfloat16)(y)
    monkeypatch.setattr(reference, "STRIP", 1024)
    whole = reference.prepare(net, CPU, torch.bfloat16)(y)
    noise = float((y - whole).abs().max())
    assert error(strips, whole.double()) <= 2 * torch.finfo(torch.bfloat16).eps * noise


def test_weights_are_copied_and_the_input_is_not_modified():
    net, y = tiny_unet(3), torch.rand(1, 3, 20, 24)
    prepared, before = select(net, "cpu", dtype="float32"), y.clone()
    first = prepared(y)
    torch.nn.init.zeros_(net.out.weight)
    assert torch.equal(prepared(y), first) and torch.equal(y, before)
    assert not torch.equal(net(y), first)


@pytest.mark.parametrize("variant", ["paper", "light"])
def test_prepared_teacher_is_the_network(variant):
    net, y = DBSN(3, 8, 1, variant), torch.rand(1, 3, 15, 22)
    mu, features = select(net, "cpu", "reference")(y)
    expected = net(y)
    assert torch.equal(mu, expected[0]) and torch.equal(features, expected[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_repeats_are_bit_equal(dtype):
    prepared, y = select(tiny_unet(3, 12, 3), "cpu", "reference", dtype), torch.rand(1, 3, 70, 50)
    first = prepared(y)
    assert all(torch.equal(prepared(y), first) for _ in range(100))


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"backend": "metal"}, "expected 'auto' or one of cuda, triton, reference"),
        ({"device": "tpu"}, "expected 'auto', 'cpu' or 'cuda'"),
        ({"device": "mps"}, "not supported"),
        ({"dtype": "int4"}, "expected 'auto' or one of float32"),
        ({"device": "cpu", "backend": "reference", "dtype": "float16"}, "float16 is not supported on cpu"),
        ({"device": "cpu", "backend": "cuda"}, "backend='cuda' cannot be used: cuda: "),
        ({"device": "cpu", "backend": "triton"}, "backend='triton' cannot be used: triton: "),
    ],
)
def test_what_is_asked_for_by_name_and_cannot_be_used_raises_its_reason(arguments, text):
    with pytest.raises(BackendError, match=text):
        select(tiny_unet(), **arguments)


def test_only_our_networks_can_be_prepared():
    with pytest.raises(BackendError, match="NoiseModel is not a network"):
        select(NoiseModel("gaussian", 1, 8), "cpu", "reference")


def test_status_gives_a_reason_for_every_backend():
    found = status(device="cpu")
    assert found["device"] == ["cpu", "asked for"] and found["dtype"][0] in ("float32", "bfloat16")
    assert set(found["backends"]) == set(BACKENDS)
    assert found["backends"]["reference"] is None
    assert all(isinstance(found["backends"][name], str) for name in ("cuda", "triton"))


def test_reasons_are_recorded():
    prepared = select(tiny_unet(), "cpu", dtype="float32")
    assert [r.split(":")[0] for r in prepared.reasons] == ["device cpu", "dtype float32", "backend reference"]
    assert "cuda: " in prepared.reasons[2] and "triton: " in prepared.reasons[2]


def test_teacher_and_cpus_without_bf16_use_float32(monkeypatch):
    assert resolve_dtype("auto", CPU, DBSN(1, 8, 1))[0] == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    dtype, reason = resolve_dtype("auto", CPU, tiny_unet())
    assert dtype == torch.float32 and "AVX512-BF16" in reason
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_dtype("auto", CPU, tiny_unet())[0] == torch.float32


def fake(monkeypatch, name: str, why_not=lambda *a: None, prepare=None) -> None:
    module = types.ModuleType(name)
    module.why_not, module.prepare = why_not, prepare
    monkeypatch.setitem(sys.modules, f"fastbsn.backends.{name}", module)


def test_the_first_usable_backend_is_taken(monkeypatch):
    fake(monkeypatch, "cuda", lambda net, device, dtype: f"no kernel for {dtype} on {device}")
    fake(monkeypatch, "triton", prepare=lambda net, device, dtype: torch.neg)
    prepared = select(tiny_unet(), "cpu", dtype="float32")
    assert prepared.backend == "triton" and float(prepared(torch.ones(1))) == -1
    assert "no kernel for torch.float32 on cpu" in prepared.reasons[2]
    assert select(tiny_unet(), "cpu", "reference").backend == "reference"


def test_a_backend_that_fails_to_prepare_is_passed_over_unless_it_was_named(monkeypatch):
    def prepare(net, device, dtype):
        raise BackendError("the driver is too old")

    fake(monkeypatch, "cuda", prepare=prepare)
    assert "the driver is too old" in select(tiny_unet(), "cpu").reasons[2]
    with pytest.raises(BackendError, match="the driver is too old"):
        select(tiny_unet(), "cpu", "cuda")


class TestDevice:
    """A machine with one CUDA device, as far as PyTorch can tell."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        monkeypatch.setattr(dispatch, "_warned", set())
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "current_device": 0,
            "get_device_capability": (9, 0),
            "get_device_name": "NVIDIA Test",
            "get_arch_list": ["sm_75", "sm_90a"],
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *a, value=value: value)

    def test_it_is_chosen(self):
        assert resolve_device()[0] == resolve_device("cuda")[0] == torch.device("cuda", 0)
        assert resolve_dtype("auto", torch.device("cuda"), tiny_unet())[0] == torch.bfloat16

    def test_an_old_one_is_refused_with_one_warning(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: (6, 1))
        with pytest.warns(RuntimeWarning, match="NVIDIA Test has compute capability 6.1.*7.5 and later") as caught:
            assert resolve_device()[0] == resolve_device()[0] == CPU
        assert len(caught) == 1
        with pytest.raises(BackendError, match="compute capability 6.1"):
            resolve_device("cuda")

    def test_a_hidden_one_is_refused_without_warning(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert resolve_device()[0] == CPU
        with pytest.raises(BackendError, match="CUDA_VISIBLE_DEVICES"):
            resolve_device("cuda")

    def test_a_number_that_does_not_exist(self):
        with pytest.raises(BackendError, match="there are 1 CUDA devices, and number 1 was asked for"):
            resolve_device("cuda:1")

    def test_leaving_it_unused_by_kernels_warns_once(self, monkeypatch):
        for name in ("cuda", "triton"):
            fake(monkeypatch, name, lambda *a: "not built")
        fake(monkeypatch, "reference", prepare=lambda *a: torch.neg)
        with pytest.warns(RuntimeWarning, match="uses the reference backend: cuda: not built; triton: not built") as caught:
            assert select(tiny_unet()).backend == select(tiny_unet()).backend == "reference"
        assert len(caught) == 1


SITUATIONS = {
    "no triton": "sys.modules['triton'] = None",
    "triton without driver": """
class Driver:
    @property
    def active(self):
        raise RuntimeError('0 active drivers ([]). There should only be one.')
class Triton(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split('.')[0] == 'triton' else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__version__, module.__getattr__ = '3.6.0', lambda name: mock.MagicMock()
sys.meta_path.insert(0, Triton())
import triton
triton.runtime = types.SimpleNamespace(driver=Driver())""",
    "no extension": "sys.modules['fastbsn._C'] = None",
    "extension without driver": """
class CudaError(RuntimeError):
    pass
def device_count():
    raise CudaError('libcuda.so.1: cannot open shared object file')
add('fastbsn._C', CudaError=CudaError, device_count=device_count)""",
    "old GPU": """
torch.version.cuda = '13.0'
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_capability = lambda *a: (6, 1)
torch.cuda.get_device_name = lambda *a: 'old'
torch.cuda.get_arch_list = lambda: ['sm_75']""",
    "hidden GPU": "torch.version.cuda = '13.0'; torch.cuda.is_available = lambda: False",
}
SCRIPT = """
import importlib.abc, importlib.machinery, sys, types, warnings
from unittest import mock
import fastbsn
assert 'torch' not in sys.modules, 'importing fastbsn imports torch'
import torch

def add(name, **attributes):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(attributes)

SITUATION
from fastbsn import BackendError, Denoiser, UNet
Denoiser.from_pretrained('gray-awgn', device='cpu')
assert 'torch._dynamo' not in sys.modules, 'fastbsn imports the compiler, which takes seconds'
net = UNet(1, 6, 2).eval()
torch.nn.init.normal_(net.out.weight, 0, 0.1)
x = torch.rand(20, 30)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    y = Denoiser({'student': net}, dtype='float32')(x)
assert len(caught) <= 1, [str(w.message) for w in caught]
assert torch.allclose(y, net(x[None, None])[0, 0], atol=1e-5)
for backend in ('cuda', 'triton'):
    try:
        Denoiser({'student': net}, backend=backend)
    except BackendError as error:
        assert len(str(error)) > 40, error
    else:
        raise AssertionError(backend + ' was asked for by name and did not raise')
"""


@pytest.mark.goal("G18 machines without accelerators")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_without_accelerators_everything_works_and_names_raise(situation):
    script = SCRIPT.replace("SITUATION", SITUATIONS[situation])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_reference_backend_runs_the_references(monkeypatch):
    """Also where the operations would choose Triton by themselves."""
    seen = []
    original = dispatch.use_triton
    monkeypatch.setattr("fastbsn.ops.masked_conv.use_triton", lambda x, *c, **k: seen.append(dispatch._choice.name) or original(x, *c, **k))
    select(DBSN(1, 8, 1, "light"), device="cpu", backend="reference")(torch.rand(1, 1, 9, 9))
    assert seen and set(seen) == {"reference"}
