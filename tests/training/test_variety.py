"""What a student sees beside labels with white noise: each part is what it says, and as often as asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastbsn.errors import InputError
from fastbsn.training import ImageSet, StudentConfig, Variety
from fastbsn.training.drawings import picture
from fastbsn.training.labels import LabelSet
from fastbsn.training.student import StudentTask

LEVEL = 20 / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(variety: Variety, channels: int = 3, sigma: tuple[float, float] | None = (0.0, 55.0), batch: int = 256) -> StudentTask:
    """Labels of 0.5 everywhere; their noisy images have white noise of LEVEL around 0.3, to be told apart."""
    label = ImageSet.from_arrays([np.full((64, 64, channels), 0.5, np.float32)])
    noisy = 0.3 + LEVEL * np.random.default_rng(0).standard_normal((64, 64, channels), np.float32)
    labels = LabelSet(label, [LEVEL], [0.02], "gaussian", noisy=ImageSet.from_arrays([noisy]))
    config = StudentConfig(channels=6, depth=1, batch=batch, crop=16, sigma=sigma, variety=variety)
    return StudentTask(labels, config, torch.device("cpu"), 0)


def test_noisy_images_get_the_noise_that_is_missing_and_the_label_as_target():
    y, x, level = task(Variety(recorrupted=0.5)).batch(0, seeded(), seeded())
    again = y.mean((1, 2, 3)) < 0.4
    assert torch.all(x[~again] == 0.5)
    torch.testing.assert_close(y[again].std((1, 2, 3)), level[again].flatten(), rtol=0.15, atol=0)
    assert level[again].min() > LEVEL
    above = (1 - 20 / 55) * 0.5  # where the level drawn is above that of the image, half of the pairs
    assert float(again.float().mean()) == pytest.approx(above, abs=4 * (above * (1 - above) / 256) ** 0.5)
    assert y[~again].std((1, 2, 3)).min() < 5 / 255  # the others start from the label, at any level


def test_noise_of_a_recorrupted_pair_is_independent_and_its_target_unbiased():
    """Over the noise of the image too: what remains of it in the input says nothing about the target's."""
    clean, label, own = torch.full((4000, 1, 16, 16), 0.3), torch.full((4000, 1, 16, 16), 0.5), torch.full((4000, 1, 1, 1), LEVEL)
    n = torch.randn(clean.shape, generator=seeded(1))
    for sigma in (30 / 255, 55 / 255):
        y, x = Variety(recorrupted=1.0).recorrupt(clean + LEVEL * n, label, own, torch.full_like(own, sigma), seeded())
        part = (0.5 - float(x.mean())) / 0.2  # of the noisy target; the rest is the label's
        assert 0.05 < part < 0.9 and float(y.std()) == pytest.approx(sigma, rel=0.01)
        alike = float(torch.corrcoef(torch.stack([(y - 0.3).flatten(), x.flatten()]))[0, 1])
        assert abs(alike) < 5 / clean.numel() ** 0.5
    assert part > 0.5  # the further from its own level, the more of the image itself


def test_noise_added_to_noisy_images_is_independent_over_the_channels():
    y, *_ = task(Variety(recorrupted=1.0, correlated=1.0), sigma=(40, 55), batch=64).batch(0, seeded(), seeded())
    alike = torch.corrcoef(y.transpose(0, 1).flatten(1))[0, 1]
    assert y.mean() < 0.4 and abs(float(alike)) < 5 / (y.numel() / 3) ** 0.5


def test_a_level_below_that_of_the_image_never_starts_from_it():
    y, *_ = task(Variety(recorrupted=1.0), sigma=(10, 10)).batch(0, seeded(), seeded())
    assert y.mean((1, 2, 3)).min() > 0.4


@pytest.mark.parametrize(("sigma", "noisier"), [(15, 0.0), (50, 0.26)])
def test_pairs_start_from_images_below_the_level_and_the_rather_the_less_noise_their_targets_have(sigma, noisier):
    """Noise of variance 25 and 476 upon the targets, where a student is left with an error of 225: weights of 0.90 and 0.32."""
    labels = ImageSet.from_arrays([np.full((64, 64), value, np.float32) for value in (0.2, 0.8)])
    found = LabelSet(labels, [5 / 255, 20 / 255], [0.0, 0.0], "gaussian", noisy=labels)
    config = StudentConfig(channels=6, depth=1, batch=400, crop=16, sigma=(sigma, sigma), variety=Variety(recorrupted=1.0))
    y, *_ = StudentTask(found, config, torch.device("cpu"), 0).batch(0, seeded(), seeded())
    assert float((y.mean((1, 2, 3)) > 0.5).float().mean()) == pytest.approx(noisier, abs=0.09)


def test_weak_noise_is_as_frequent_as_asked_for():
    *_, level = task(Variety(weak=0.4), sigma=(10, 55)).batch(0, seeded(), seeded())
    weak = level.flatten() < 5 / 255
    assert float(weak.float().mean()) == pytest.approx(0.4, abs=0.13) and level[~weak].min() > 10 / 255
    assert float(level[weak].mean()) == pytest.approx(2.5 / 255, rel=0.2)


def test_recorrupted_pairs_need_levels():
    images = ImageSet.from_arrays([np.zeros((32, 32), np.float32)])
    labels = LabelSet(images, [0.0], [0.0], "unknown", noisy=images)
    with pytest.raises(InputError, match="level of each image"):
        StudentTask(labels, StudentConfig(sigma=(0, 55), variety=Variety(recorrupted=0.5)), torch.device("cpu"), 0)


def test_noise_of_the_channels_is_alike_by_all_parts():
    z = Variety(correlated=1.0).noise(torch.Size((400, 3, 24, 24)), seeded())
    assert z.std((1, 2, 3)).mean() == pytest.approx(1, abs=0.02)
    alike = torch.stack([torch.corrcoef(i.flatten(1))[0, 1] for i in z])
    assert (alike > 0.99).float().mean() == pytest.approx(0.2, abs=0.08) and alike.min() < 0.1
    assert alike[alike < 0.99].median() == pytest.approx(0.5, abs=0.1)
    assert Variety(correlated=1.0).noise(torch.Size((2, 1, 8, 8)), seeded()).equal(Variety().noise(torch.Size((2, 1, 8, 8)), seeded()))


def test_constant_areas_are_the_same_in_input_and_target():
    y, x, _ = task(Variety(framed=1.0), sigma=(30, 30), batch=64).batch(0, seeded(), seeded())
    area = (y == x).all(1)
    assert area.flatten(1).any(1).all() and float(area.float().mean()) > 0.05
    assert (y - x)[~area[:, None].expand_as(x)].std() == pytest.approx(30 / 255, rel=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_pictures_take_the_place_of_labels(channels):
    y, x, _ = task(Variety(drawn=0.5), channels, (10, 10)).batch(0, seeded(), seeded())
    drawn = (x != 0.5).flatten(1).any(1)
    assert float(drawn.float().mean()) == pytest.approx(0.5, abs=0.13)
    assert x.min() >= 0 and x.max() <= 1 and (y - x).std() == pytest.approx(10 / 255, rel=0.02)


def test_drawn_pictures_are_decided_by_the_seed_and_differ():
    pictures = [picture(48, np.random.default_rng(seed)) for seed in range(40)]
    assert all(p.shape == (48, 48, 3) and p.dtype == np.float32 and 0 <= p.min() and p.max() <= 1 for p in pictures)
    assert np.array_equal(pictures[3], picture(48, np.random.default_rng(3)))
    assert len({p.tobytes() for p in pictures}) == 40
    assert sum(np.ptp(p, axis=2).max() < 1e-6 for p in pictures) < 25 and sum(p.std() > 0.1 for p in pictures) > 15
