"""Crops of a batch; recoloured images: still images of the same things."""

from __future__ import annotations

import pytest
import torch

from fastbsn.errors import InputError
from fastbsn.training import StudentConfig, TeacherConfig, Variety
from fastbsn.training.crops import recolour
from fastbsn.training.imageset import ImageSet
from fastbsn.training.labels import LabelSet
from fastbsn.training.student import StudentTask


def test_every_channel_is_a_tone_curve_of_one_channel():
    x = torch.rand(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    y = recolour(x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1 and not torch.equal(y, x)
    rank = x.clamp(0, 1).flatten(2).argsort(dim=2)
    sources = set()
    for image in range(64):
        for channel in range(3):
            values = [y[image, channel].flatten()[order] for order in rank[image]]  # by rising brightness of each channel
            monotone = [i for i, v in enumerate(values) if (v.diff() >= -1e-6).all() or (v.diff() <= 1e-6).all()]
            assert len(monotone) == 1
            sources.add((channel, *monotone))
    assert len(sources) == 9


def test_pairs_are_recoloured_before_the_noise_comes():
    images = ImageSet.from_arrays([torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0)).numpy()])
    labels = LabelSet(images, [0.1], [0.02], "gaussian", noisy=images, digest="x")

    def batch(share: float) -> tuple[torch.Tensor, ...]:
        task = StudentTask(labels, StudentConfig(batch=8, crop=32, sigma=(10, 10), variety=Variety(recolour=share)), torch.device("cpu"), 0)
        return task.batch(0, torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))

    (_, plain, _), (noisy, recoloured, _) = batch(0.0), batch(0.5)
    same = (plain == recoloured).flatten(1).all(1)
    assert same.any() and not same.all()
    assert (noisy - recoloured).std().item() == pytest.approx(10 / 255, rel=0.05)
    with pytest.raises(InputError, match="recolour=2"):
        Variety(recolour=2)


@pytest.mark.parametrize("config", [StudentConfig, TeacherConfig])
@pytest.mark.parametrize("wrong", [{"crop": 0}, {"crop": -5}, {"batch": 0}])
def test_crops_without_pixels_and_batches_without_crops_are_refused(config, wrong):
    with pytest.raises(InputError, match="at least 1 pixel and 1 crop"):
        config(**wrong)
