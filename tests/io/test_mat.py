"""SIDD and DND files, on small ones of the same structure; only checked numeric arrays are read."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io

from fastbsn.errors import FileFormatError, InputError
from fastbsn.io import mat
from fastbsn.io.mat import read_dnd, read_mat, read_sidd


@pytest.mark.parametrize("key", mat.SIDD_KEYS)
@pytest.mark.parametrize("compressed", [False, True])
def test_sidd_blocks(tmp_path, rng, key, compressed):
    blocks = rng.integers(0, 256, (2, 3, 8, 7, 3), np.uint8)
    scipy.io.savemat(tmp_path / f"{key}.mat", {key: blocks}, do_compression=compressed)
    back = read_sidd(tmp_path / f"{key}.mat")
    assert back.dtype == np.uint8 and np.array_equal(back, blocks)


def test_sidd_files_of_another_kind_are_refused(tmp_path, rng):
    key = mat.SIDD_KEYS[0]
    path = tmp_path / f"{key}.mat"
    blocks = rng.integers(0, 256, (2, 3, 8, 7, 3), np.uint8)
    cells = np.empty((2, 3), object)
    cells.fill(blocks[0, 0])
    for contents in ({"other": blocks}, {key: blocks.astype(float)}, {key: blocks[0]}, {key: blocks[..., :2]}, {key: cells}, {key: "text"}):
        scipy.io.savemat(path, contents)
        with pytest.raises(FileFormatError, match="expected .*(as uint8|images, blocks)"):
            read_sidd(path)
    with pytest.raises(InputError):
        read_sidd(tmp_path / "blocks.mat")
    with pytest.raises(InputError):
        read_sidd(tmp_path / f"{mat.SIDD_KEYS[1]}.mat")


def test_truncated_and_too_large_arrays_are_refused(tmp_path, rng):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": rng.integers(0, 256, (4, 5), np.uint8)})
    data = path.read_bytes()
    assert read_mat(path, "x", "uint8", 20).shape == (4, 5)
    with pytest.raises(FileFormatError, match="at most 19 bytes"):
        read_mat(path, "x", "uint8", 19)
    for cut in range(0, len(data) - 8, 3):
        path.write_bytes(data[:cut])
        with pytest.raises(FileFormatError):
            read_mat(path, "x", "uint8")


def dnd(folder, images: list[np.ndarray], boxes: list[list[tuple[int, int, int, int]]]) -> None:
    """As MATLAB writes version 7.3: arrays transposed, boxes behind references."""
    (folder / "images_srgb").mkdir(parents=True)
    for i, image in enumerate(images, 1):
        with h5py.File(folder / "images_srgb" / f"{i:04d}.mat", "w") as file:
            file["InoisySRGB"] = image.T
    with h5py.File(folder / "info.mat", "w") as file:
        references = file.create_dataset("info/boundingboxes", (1, len(boxes)), h5py.ref_dtype)
        for i, corners in enumerate(boxes):
            file[f"#refs#/{i}"] = np.array(corners, float).T
            references[0, i] = file[f"#refs#/{i}"].ref


def test_dnd_crops(tmp_path, rng):
    images = [rng.random((20, 30, 3), np.float32), rng.random((25, 15, 3), np.float32)]
    boxes = [[(1, 1, 8, 9), (13, 22, 20, 30)], [(3, 2, 10, 15), (25, 15, 25, 15)]]
    dnd(tmp_path, images, boxes)
    crops = list(read_dnd(tmp_path))
    assert [c[:2] for c in crops] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for (image, crop, pixels), (top, left, bottom, right) in zip(crops, sum(boxes, []), strict=True):
        assert pixels.dtype == np.float32
        assert np.array_equal(pixels, images[image - 1][top - 1 : bottom, left - 1 : right]), (image, crop)


@pytest.mark.parametrize("box", [(0, 1, 8, 8), (1, 1, 21, 8), (1, 1, 8, 31), (9, 1, 8, 8), (-5, -5, 3, 3)])
def test_dnd_boxes_outside_the_image_are_refused(tmp_path, rng, box):
    dnd(tmp_path, [rng.random((20, 30, 3), np.float32)], [[box]])
    with pytest.raises(FileFormatError, match="crop 1"):
        list(read_dnd(tmp_path))


def test_dnd_data_in_other_files_and_wrong_arrays_are_refused(tmp_path, rng):
    image = rng.random((20, 30, 3), np.float32)
    dnd(tmp_path, [image], [[(1, 1, 8, 8)]])
    path = tmp_path / "images_srgb" / "0001.mat"
    (tmp_path / "secret").write_bytes(bytes(4 * 1800))
    for make in (
        lambda f: f.create_dataset("InoisySRGB", (3, 30, 20), "f4", external=[(str(tmp_path / "secret"), 0, 7200)]),
        lambda f: f.create_dataset("InoisySRGB", data=image[..., 0]),
        lambda f: f.create_dataset("InoisySRGB", data=image),
        lambda f: f.create_dataset("InoisySRGB", (3, 2**20, 2**20), "f4", chunks=(1, 64, 64)),
        lambda f: f.create_dataset("InoisySRGB", data=[[["text"]]]),
        lambda f: f.create_dataset("other", data=image.T),
    ):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(FileFormatError, match="0001.mat"):
            list(read_dnd(tmp_path))
    path.write_bytes(b"text")
    with pytest.raises(FileFormatError, match="damaged HDF5"):
        list(read_dnd(tmp_path))
    path.unlink()
    with pytest.raises(InputError):
        list(read_dnd(tmp_path))


def test_the_error_without_the_optional_package_says_what_to_install():
    with pytest.raises(InputError, match="pip install h5py"):
        mat.require("no_such_module", "h5py")
