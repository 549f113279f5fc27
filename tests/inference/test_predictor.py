"""Networks on tensors: what an estimate holds for each kind of model, levels of the noise, and how an image is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn.errors import WeightsError
from fastbsn.inference.frames import SAMPLE, Frames
from fastbsn.inference.predictor import Predictor
from fastbsn.nets import NoiseModel, noise_level
from tests.tiny import tiny_teacher, tiny_unet


def teacher(kind: str = "gaussian", noise: str | None = None) -> Predictor:
    d = tiny_teacher(3, kind, noise)
    return Predictor(d.networks_, noise or kind, "cpu", "reference")


def predictors() -> list[tuple[Predictor, bool, bool]]:
    """Every kind of model, whether it knows the noise, and whether it knows its own error."""
    student = {"student": tiny_unet(3)}
    return [
        (Predictor(student, device="cpu"), False, False),
        (Predictor(student | {"noise_model": NoiseModel("heteroscedastic", 3, 8)}, device="cpu"), True, False),
        (teacher("gaussian"), True, True),
        (teacher("multivariate"), True, True),
        (teacher(noise="correlated"), False, False),
    ]


def test_an_estimate_holds_what_the_model_knows():
    y = torch.rand(2, 3, 20, 24)
    for p, noise, error in predictors():
        with torch.no_grad():
            found = p.estimate(y)
        assert (p.gives_noise, p.gives_error) == (noise, error) == (found.noise is not None, found.error is not None)
        assert found.image.shape == y.shape and all(torch.broadcast_to(s, y.shape).min() > 0 for s in found[1:] if s is not None)


def test_a_batch_is_estimated_image_by_image():
    y, p = torch.rand(3, 3, 20, 24), teacher()
    level = torch.tensor([0.05, 0.1, 0.2])[:, None, None, None]
    with torch.no_grad():
        together, alone = p.estimate(y, level), [p.estimate(y[i : i + 1], level[i : i + 1]) for i in range(3)]
    for a, b in zip(together[:2], zip(*(e[:2] for e in alone), strict=True), strict=True):
        torch.testing.assert_close(a, torch.cat(b))


def test_tensors_are_denoised_without_leaving_their_type():
    x = (255 * torch.rand(3, 30, 26)).to(torch.uint8)
    for p, noise, _ in predictors():
        frames = Frames(x, p.channels, "CYX")
        p.run(frames, sigma=noise)
        result = frames.result()
        assert isinstance(result, torch.Tensor) and result.dtype == torch.uint8 and result.shape == x.shape and not torch.equal(result, x)


def test_the_level_is_that_of_the_whole_frame_and_spread_over_a_large_one():
    p, rng = teacher(), np.random.default_rng(0)
    small = torch.from_numpy(rng.normal(0.5, 0.1, (3, 60, 50)).astype(np.float32))
    assert p.levels(Frames(small, 3, "CYX", data_range=1.0))[0].item() == pytest.approx(noise_level(small), rel=1e-6)
    side = 2 * SAMPLE
    large = 0.5 + torch.from_numpy(rng.normal(0, 0.1, (3, side, side)).astype(np.float32))
    assert p.levels(Frames(large, 3, "CYX", data_range=1.0))[0].item() == pytest.approx(0.1, rel=0.02)
    assert teacher("heteroscedastic").levels(Frames(small, 3, "CYX", data_range=1.0)) == []


def test_tiles_are_cut_as_asked_and_never_for_refinement():
    frames = Frames(torch.zeros(3, 90, 70), 3, "CYX", data_range=1.0)
    assert teacher().grid(frames, 40).tile == (40, 40) and teacher().grid(frames, (30, 20)).tile == (30, 20)
    assert teacher().grid(frames, None).tile == teacher(noise="correlated").grid(frames, 40).tile == (90, 70)


def test_the_networks_given_are_copied_and_left_as_they_are():
    y, networks = torch.rand(1, 3, 20, 24), tiny_teacher(3, "heteroscedastic").networks_
    for net in networks.values():
        net.train()
    p = Predictor(networks, "heteroscedastic", "cpu", "reference")
    with torch.no_grad():
        before = p.estimate(y)
        for net in networks.values():
            assert net.training
            for w in net.parameters():
                w.zero_()
        after = p.estimate(y)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_other_networks_are_refused():
    with pytest.raises(WeightsError, match="the weights hold noise_model; expected 'student'"):
        Predictor({"noise_model": NoiseModel("gaussian", 1, 8)})
