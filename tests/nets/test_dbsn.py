"""The blind spot, exactly: by NaN injection and by Jacobian, for every variant, dense and by phases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastbsn.errors import InputError
from fastbsn.nets import DBSN
from fastbsn.ops import batch_to_space, masked_conv2d, space_to_batch

CASES = [(v, b, p) for v in ("paper", "light") for b in ("dilated", "plain") for p in (False, True) if not (b == "plain" and p)]
INJECTIONS = 12
SIZES = [1, 2, 3, 5, 7, 8, 13, 17, 24, 31]


@pytest.mark.parametrize("blind_spot", ["dilated", "plain"])
@pytest.mark.parametrize("variant", ["light", "paper"])
def test_a_fresh_network_keeps_the_size_of_the_signal(variant, blind_spot):
    torch.manual_seed(0)
    with torch.no_grad():
        mu, _ = DBSN(1, 32, 8, variant, blind_spot)(torch.rand(1, 1, 32, 32))
    assert 0.02 < mu.std() < 1


def network(variant: str, blind_spot: str = "dilated", channels: int = 8, in_channels: int = 2) -> DBSN:
    net = DBSN(in_channels, channels, 2, variant, blind_spot).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # large biases too: zero padding must be of the activation
    return net


@pytest.mark.goal("G7 injections of NaN", count=INJECTIONS)
@pytest.mark.parametrize("variant, blind_spot, phases", CASES)
def test_nan_never_reaches_the_pixel_it_replaces(variant, blind_spot, phases, rng):
    net = network(variant, blind_spot)
    for _ in range(INJECTIONS):
        h, w = rng.choice(SIZES, 2)
        i, j = rng.integers(h), rng.integers(w)
        x = torch.rand(1, 2, h, w, dtype=torch.double)
        clean = net(x, phases)[0]
        x[:, :, i, j] = float("nan")
        mu = net(x, phases)[0]
        assert torch.equal(mu[:, :, i, j], clean[:, :, i, j]), (h, w, i, j)
        if h > 1 and w > 1:
            assert mu.isnan().any(), "the NaN reached nothing: the network does not look at its neighbours"


@pytest.mark.parametrize("variant, blind_spot, phases", CASES)
def test_jacobian_is_exactly_zero_at_the_pixel_and_local(variant, blind_spot, phases, rng):
    net = network(variant, blind_spot, channels=16, in_channels=1)
    for h, w in ((5, 7), (8, 6)):
        x = torch.rand(1, 1, h, w, dtype=torch.double)
        jacobian = torch.autograd.functional.jacobian(lambda y: net(y, phases)[0], x).reshape(h * w, h * w)
        assert (jacobian.diagonal() == 0).all()
        assert (jacobian != 0).any()


@pytest.mark.parametrize("variant", ["paper", "light"])
def test_features_are_blind_too(variant):
    net = network(variant)
    x = torch.rand(1, 2, 12, 11, dtype=torch.double)
    before = net(x)[1][:, :, 6, 5]
    x[:, :, 6, 5] = float("nan")
    assert torch.equal(net(x)[1][:, :, 6, 5], before)


@pytest.mark.parametrize("variant", ["paper", "light"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (12, 18), (13, 17), (7, 31)])
def test_phases_equal_dilated(variant, size):
    net = network(variant)
    x = torch.rand(2, 2, *size, dtype=torch.double)
    for a, b in zip(net(x, phases=False), net(x, phases=True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "light"])
def test_radius_is_the_receptive_field(variant):
    net = network(variant, channels=16, in_channels=1)
    size = 2 * net.radius + 5
    x = torch.rand(1, 1, size, size, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0][0, 0, size // 2, size // 2], x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert size // 2 - int(rows[0]) <= net.radius and int(rows[-1]) - size // 2 <= net.radius


@pytest.mark.parametrize("k", [3, 5])
def test_masked_conv_equals_a_convolution_with_a_zero_centre(k):
    x, weight, bias = torch.rand(2, 3, 9, 7).double(), torch.rand(4, 3, k * k - 1).double(), torch.rand(4).double()
    full = torch.cat([weight[..., : k * k // 2], torch.zeros(4, 3, 1).double(), weight[..., k * k // 2 :]], -1).unflatten(-1, (k, k))
    expected = F.relu(F.conv2d(x, full, bias, padding=k // 2))
    torch.testing.assert_close(masked_conv2d(x, weight, bias), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_space_to_batch_round_trip_and_meaning(d):
    for h, w in ((1, 1), (6, 6), (7, 11)):
        x = torch.rand(2, 3, h, w)
        phases = space_to_batch(x, d)
        assert torch.equal(batch_to_space(phases, d, h, w), x)
        assert torch.equal(phases[0, :, 0, 0], x[0, :, 0, 0])


def test_full_size_parameter_counts():
    paper, light = (sum(p.numel() for p in DBSN(3, variant=v).parameters()) for v in ("paper", "light"))
    assert 6.4e6 < paper < 6.8e6 and 3.4e6 < light < 3.8e6


def test_plain_has_about_as_many_parameters():
    a, b = (sum(p.numel() for p in DBSN(3, 48, 4, "light", s).parameters()) for s in ("dilated", "plain"))
    assert abs(a - b) / a < 0.05


@pytest.mark.parametrize("wrong", [{"variant": "x"}, {"blind_spot": "x"}, {"channels": 7}, {"modules": 0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        DBSN(**wrong)


def test_masked_weight_of_wrong_shape():
    with pytest.raises(InputError, match=r"k\*k-1"):
        masked_conv2d(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 9))
