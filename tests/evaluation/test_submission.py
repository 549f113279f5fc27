"""Submissions read back as the servers' MATLAB would see them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.io

from fastbsn.errors import FileFormatError, InputError
from fastbsn.evaluation.submission import bundle_dnd, submit_dnd, submit_sidd, write_dnd_crop, write_sidd
from tests.io.test_mat import dnd


def test_sidd(tmp_path, rng):
    blocks = rng.integers(0, 256, (4, 3, 16, 16, 3), np.uint8)
    write_sidd(tmp_path / "SubmitSrgb.mat", blocks, 1.5, {"MethodName": "fastbsn", "Authors": "A, B"})
    back = scipy.io.loadmat(tmp_path / "SubmitSrgb.mat")
    cells = back["DenoisedBlocksSrgb"]
    assert cells.dtype == object and cells.shape == (4, 3)
    for i in np.ndindex(4, 3):
        assert cells[i].dtype == np.uint8 and np.array_equal(cells[i], blocks[i])
    assert back["TimeMPSrgb"].item() == 1.5
    assert back["OptionalData"]["MethodName"].item().item() == "fastbsn"
    assert os.listdir(tmp_path) == ["SubmitSrgb.mat"]
    for wrong in (blocks[0], blocks.astype(np.float32), blocks[..., :1]):
        with pytest.raises(InputError):
            write_sidd(tmp_path / "b.mat", wrong, 1.5)


def test_dnd(tmp_path, rng):
    crops = {(i, k): rng.random((8, 9, 3)) for i in (1, 2) for k in (1, 2, 3)}
    for (i, k), crop in crops.items():
        write_dnd_crop(tmp_path, i, k, crop)
    assert scipy.io.whosmat(tmp_path / "0002_03.mat") == [("Idenoised_crop", (8, 9, 3), "single")]
    target = bundle_dnd(tmp_path, images=2, crops=3)
    assert target == tmp_path / "bundled" and sorted(os.listdir(target)) == ["0001.mat", "0002.mat"]
    for i in (1, 2):
        back = scipy.io.loadmat(target / f"{i:04d}.mat")
        cells = back["Idenoised"].ravel()
        assert len(cells) == 3 and back["israw"].item() == 0 and back["eval_version"].item() == "1.0"
        for k, cell in enumerate(cells, 1):
            assert cell.dtype == np.float32 and np.array_equal(cell, crops[i, k].astype(np.float32))
    (tmp_path / "0002_03.mat").write_bytes(b"text")
    with pytest.raises(FileFormatError, match="0002_03.mat"):
        bundle_dnd(tmp_path, images=2, crops=3)
    (tmp_path / "0002_03.mat").unlink()
    with pytest.raises(InputError, match="0002_03.mat"):
        bundle_dnd(tmp_path, images=2, crops=3)
    with pytest.raises(InputError):
        write_dnd_crop(tmp_path, 1, 1, crops[1, 1][..., 0])


def test_a_denoiser_makes_a_whole_submission(tmp_path, rng):
    blocks = rng.integers(0, 250, (2, 3, 16, 16, 3), np.uint8)
    path = tmp_path / "BenchmarkNoisyBlocksSrgb.mat"
    scipy.io.savemat(path, {"BenchmarkNoisyBlocksSrgb": blocks})
    assert submit_sidd(lambda x: x + 1, path, tmp_path / "SubmitSrgb.mat") == 6
    back = scipy.io.loadmat(tmp_path / "SubmitSrgb.mat")
    assert np.array_equal(back["DenoisedBlocksSrgb"][1, 2], blocks[1, 2] + 1) and back["TimeMPSrgb"].item() > 0

    images = [rng.random((20, 24, 3)).astype(np.float32) for _ in range(2)]
    dnd(tmp_path / "dnd", images, [[(1, 1, 8, 9), (5, 5, 12, 13)]] * 2)
    assert submit_dnd(lambda x: x * 2, tmp_path / "dnd", tmp_path / "out") == 4
    cells = scipy.io.loadmat(tmp_path / "out" / "bundled" / "0002.mat")["Idenoised"].ravel()
    assert len(cells) == 2 and cells[1].max() <= 1
    np.testing.assert_allclose(cells[0], np.clip(2 * images[1][:8, :9], 0, 1), rtol=1e-6)
