"""Muon: orthogonal updates for convolutions, Adam for the rest."""

import pytest
import torch

from fastbsn.training.muon import DECAY, RATIO, Muon, is_matrix, orthogonalize


@pytest.mark.parametrize("shape", [(32, 288), (96, 48), (3, 96, 64)])
def test_singular_values_become_about_one(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x))
    assert values.shape == torch.linalg.svdvals(x).shape and 0.5 < values.min() and values.max() < 1.3
    assert torch.equal(orthogonalize(torch.zeros(shape)), torch.zeros(shape))


def test_which_parameters_are_matrices():
    assert is_matrix(torch.empty(48, 48, 3, 3)) and is_matrix(torch.empty(96, 96, 24))
    assert not any(is_matrix(torch.empty(shape)) for shape in ((48,), (48, 3, 3, 3), (3, 32, 3, 3), (64, 64)))


def test_the_rest_is_adam():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    a, b = Muon([ours], lr=0.01), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99))
    for _ in range(20):
        ours.grad = theirs.grad = torch.randn(5, generator=generator)
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rate", [0.02, torch.tensor(0.02)])
def test_a_matrix_moves_by_its_rate_whatever_the_size_of_the_gradient(rate):
    moved = []
    for factor in (1.0, 1e-4):
        p = torch.nn.Parameter(torch.zeros(32, 32, 3, 3))
        p.grad = factor * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
        Muon([p], lr=rate).step()
        moved.append(p.detach().flatten(1))
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-2, atol=1e-4)
    assert torch.linalg.svdvals(moved[0]).mean().item() == pytest.approx(0.02 * RATIO, rel=0.25)


def test_what_the_data_do_not_use_decays():
    p, q = (torch.nn.Parameter(torch.ones(shape)) for shape in ((32, 32, 3, 3), (32,)))
    optimizer = Muon([p, q], lr=0.01)
    for _ in range(10):
        p.grad, q.grad = torch.zeros_like(p), torch.zeros_like(q)
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full_like(p, (1 - 0.01 * RATIO * DECAY) ** 10))
    assert torch.equal(q.detach(), torch.ones(32))


def test_groups_have_rates_of_their_own_and_move_by_them():
    parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer = Muon([{"params": [p]} for p in parameters], lr=torch.tensor(0.01))
    for group, p, rate in zip(optimizer.param_groups, parameters, (0.1, 0.0), strict=True):
        group["lr"].fill_(rate)
        p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(parameters[0].detach(), torch.full((3,), -0.1))
    assert torch.equal(parameters[1], torch.zeros(3))


def test_loaded_state_is_on_the_device_of_its_parameter():
    p = torch.nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = Muon([p])
    state = {"step": torch.tensor(5.0), "mean": torch.zeros(3), "square": torch.zeros(3)}
    optimizer.load_state_dict({"state": {0: state}, "param_groups": optimizer.state_dict()["param_groups"]})
    assert all(value.device == p.device for value in optimizer.state[p].values())


def test_a_convolution_is_learned_in_any_memory_layout():
    torch.manual_seed(0)
    target, x = torch.nn.Conv2d(32, 32, 3, padding=1), torch.randn(4, 32, 8, 8)
    final = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        net = torch.nn.Conv2d(32, 32, 3, padding=1).to(memory_format=layout)
        optimizer, losses = Muon(net.parameters(), lr=5e-3), []
        for step in range(60):
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 60)
            optimizer.zero_grad()
            loss = (net(x) - target(x)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 50
        final.append(losses[-1])
    assert final[0] == pytest.approx(final[1], rel=1e-2)
