import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fastbsn.errors import InputError
from fastbsn.inference.frames import REACH, Frames, Statistics, repair, resolve_axes, resolve_range, scan

TYPICAL = Statistics(0, 1, 0, 0)


def passed_through(frames: Frames):
    """The result of a network that changes nothing, in windows of 5 x 4 pixels."""
    for i in range(frames.count):
        for top in range(0, frames.height, 5):
            for left in range(0, frames.width, 4):
                box = (top, min(top + 5, frames.height), left, min(left + 4, frames.width))
                frames.write(i, box, frames.read(i, box))
    return frames.result()


def sample(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.random(shape)
    return (values * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind in "ui" else values.astype(dtype)


@pytest.mark.parametrize(
    "shape, tensor, expected",
    [
        ((5, 7), False, "YX"),
        ((3, 4), False, "YX"),
        ((5, 7, 3), False, "YXC"),
        ((5, 7, 4), True, "YXC"),
        ((0, 7, 3), False, "YXC"),
        ((5, 7, 1), False, "YXC"),
        ((1, 5, 7), False, "CYX"),
        ((3, 5, 7), True, "CYX"),
        ((2, 3, 5, 7), True, "TCYX"),
        ((2, 1, 5, 7), True, "TCYX"),
    ],
)
def test_axes_that_need_no_name(shape, tensor, expected):
    assert resolve_axes(shape, tensor) == expected


@pytest.mark.parametrize(
    "shape, tensor, texts",
    [
        ((3, 64, 64), False, ["a stack of 3 gray images", "axes='TYX'", "3 channels first", "channel_axis=0"]),
        ((64, 64, 64), False, ["a stack of 64 gray images", "axes='TYX'", "64 channels last", "channel_axis=-1"]),
        ((64, 64, 64), True, ["axes='TYX'", "channel_axis=-1"]),
        ((3, 64, 3), True, ["axes='TYX'", "channel_axis=0", "channel_axis=-1"]),
        ((2, 64, 64, 3), False, ["axes='TYXC'", "axes='TCYX'"]),
        ((2, 3, 64, 4), True, ["axes='TYXC'", "axes='TCYX'"]),
        ((5,), False, ["Y and X"]),
        ((1, 2, 3, 4, 5), True, ["axes="]),
    ],
)
def test_ambiguous_axes_name_the_readings_and_the_arguments(shape, tensor, texts):
    with pytest.raises(InputError) as error:
        resolve_axes(shape, tensor)
    assert all(text in str(error.value) for text in (*texts, str(shape)))


@pytest.mark.parametrize(
    "shape, axis, expected",
    [((3, 5, 7), 0, "CYX"), ((5, 3, 7), 1, "YCX"), ((5, 7, 2), -1, "YXC"), ((2, 5, 7, 3), 3, "ZYXC"), ((2, 3, 5, 7), -3, "ZCYX")],
)
def test_channel_axis(shape, axis, expected):
    assert resolve_axes(shape, False, channel_axis=axis) == expected


@pytest.mark.parametrize("axes", ["YX", "YYX", "TCX", "QYX", "yxc", "", "TYXC"])
def test_wrong_axes_are_an_input_error(axes):
    with pytest.raises(InputError, match="different letters of STCZYX"):
        resolve_axes((3, 4, 5), False, axes)


@pytest.mark.parametrize("arguments", [{"axes": "TYX", "channel_axis": 0}, {"channel_axis": 3}, {"channel_axis": -4}])
def test_contradicting_axes_are_an_input_error(arguments):
    with pytest.raises(InputError, match="channel_axis"):
        resolve_axes((3, 4, 5), False, **arguments)


def test_channel_axis_of_two_axes_is_an_input_error():
    with pytest.raises(InputError, match="3 to 5 axes"):
        resolve_axes((4, 5), False, channel_axis=0)


def test_range_given_stored_and_default():
    assert resolve_range("float32", 7, 5.0, Statistics(0, 1e6, 1, 0)) == 7
    assert resolve_range("uint16", None, 4095.0, TYPICAL) == 4095
    assert [resolve_range(d, None, None, TYPICAL) for d in ("uint8", "uint16", "float16", "float64")] == [255, 65535, 1, 1]


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "255", (0, 255)])
def test_impossible_range_is_an_input_error(bad):
    with pytest.raises(InputError, match="data_range="):
        resolve_range("uint8", bad, None, TYPICAL)


def test_noise_beyond_the_unit_range_is_accepted(rng):
    noisy = rng.random((1, 200, 200)) + rng.normal(0, 55 / 255, (1, 200, 200))
    assert resolve_range("float64", None, None, scan(iter([noisy]))) == 1


@pytest.mark.parametrize("low, high", [(0, 255), (-1, 1), (0, 2), (-1000, 400), (0, 4)])
def test_floats_of_another_range_name_the_observed_values(rng, low, high):
    values = rng.uniform(low, high, (1, 100, 100)).astype(np.float32)
    values[0, 0, :2] = low, high
    with pytest.raises(InputError, match=f"from {low} to {high}.*pass data_range"):
        Frames(values[0], 1)
    assert Frames(values[0], 1, data_range=high - low).scale == high - low


def test_sparse_counts_are_not_taken_for_unit_values():
    values = np.zeros((50, 50), np.float32)
    values[3, 4] = 500
    with pytest.raises(InputError, match="from 0 to 500"):
        Frames(values, 1)


def test_other_integers_need_a_range():
    with pytest.raises(InputError, match="int16 values from -3 to 9.*data_range"):
        Frames(np.array([[-3, 9]], np.int16), 1)


def test_scan_counts_what_is_not_finite(monkeypatch):
    monkeypatch.setattr("fastbsn.inference.ranges._BAND", 7)
    x = np.array([[0.0, np.nan, 2.0], [np.inf, -1.0, 0.5], [0.1, 0.2, -np.inf]])[None]
    assert scan(iter([x, x])) == Statistics(-1.0, 2.0, 2 / 6, 6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float16", "float32", "float64"])
def test_an_unchanged_image_comes_back(rng, dtype):
    x = sample(rng, dtype, (11, 13, 3))
    frames = Frames(x, 3, data_range=np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 1.0)
    y = passed_through(frames)
    assert type(y) is np.ndarray and y.dtype == x.dtype and y.shape == x.shape
    if dtype in ("int32", "uint32", "float64"):
        np.testing.assert_allclose(y.astype(float), x.astype(float), rtol=1e-6)
    else:
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_dtype(dtype):
    x = torch.rand(3, 9, 7)
    x = (x * 200).to(dtype) if not dtype.is_floating_point else x.to(dtype)
    y = passed_through(Frames(x, 3, data_range=1.0 if dtype.is_floating_point else 255))
    assert y.dtype == dtype and torch.allclose(y.double(), x.double(), rtol=1e-6)


def test_gradients_are_not_tracked():
    frames = Frames(torch.rand(3, 4, 5, requires_grad=True), 3)
    assert not passed_through(frames).requires_grad


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2),
    "strided": lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_alike_and_not_modified(rng, layout):
    x = LAYOUTS[layout](sample(rng, "uint16", (10, 12, 3)))
    x.flags.writeable = False
    before = x.copy()
    y = passed_through(Frames(x, 3))
    assert y.dtype == x.dtype and y.flags.writeable
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "axes, shape", [("TYX", (4, 6, 5)), ("ZCYX", (2, 3, 6, 5)), ("YXTC", (6, 5, 2, 3)), ("STCZYX", (2, 1, 3, 2, 4, 5)), ("XY", (5, 6))]
)
def test_stacks_keep_their_axes(rng, axes, shape):
    x = sample(rng, "uint8", shape)
    frames = Frames(x, 3 if "C" in axes else 1, axes)
    assert frames.count == np.prod([n for a, n in zip(axes, shape, strict=True) if a in "STZ"], dtype=int)
    assert (frames.height, frames.width) == (shape[axes.index("Y")], shape[axes.index("X")])
    np.testing.assert_array_equal(passed_through(frames), x)


def test_integers_are_rounded_and_clipped():
    frames = Frames(np.zeros((1, 5), np.uint8), 1)
    frames.write(0, (0, 1, 0, 5), torch.tensor([[[[-0.2, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0]]]]))
    assert frames.result().tolist() == [[0, 0, 1, 255, 255]]


def test_floats_are_not_clipped_but_half_precision_stays_finite():
    for dtype, top in ((np.float32, 700.0), (np.float16, 65504.0)):
        frames = Frames(np.zeros((1, 2), dtype), 1, data_range=100 if dtype == np.float32 else 60000)
        frames.write(0, (0, 1, 0, 2), torch.tensor([[[[-0.5, 7.0]]]]))
        assert frames.result().tolist() == [[-50.0 if dtype == np.float32 else -30000.0, top]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "I", "F"])
@pytest.mark.filterwarnings("ignore:a gray image")
def test_pil_modes(rng, mode, channels):
    depth = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode)
    array = sample(rng, {"I;16": "uint16", "I": "int32", "F": "float32"}.get(mode, "uint8"), (6, 7, depth) if depth else (6, 7))
    image = Image.fromarray(array)
    assert image.mode == mode
    image.info["dpi"] = (72, 72)
    frames = Frames(image, channels, data_range=2**31 if mode == "I" else None)
    y = passed_through(frames)
    assert y.mode == mode and y.size == image.size and y.info == image.info
    np.testing.assert_allclose(np.asarray(y).astype(float), array.astype(float), rtol=1e-6)


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "HSV"])
def test_other_pil_modes_say_how_to_convert(mode):
    with pytest.raises(InputError, match="convert"):
        Frames(Image.new(mode, (4, 4)), 3)


def test_axes_of_a_pil_image_are_an_input_error():
    with pytest.raises(InputError, match="PIL"):
        Frames(Image.new("L", (4, 4)), 1, axes="YX")


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 4), bool),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), object),
        np.ma.masked_array(np.zeros((4, 4), np.uint8)),
        torch.zeros(4, 4, dtype=torch.int64),
        torch.zeros(4, 4).to_sparse(),
        [[1.0, 2.0]],
        "image.png",
        None,
    ],
)
def test_what_is_not_an_image_is_an_input_error(x):
    with pytest.raises(InputError, match="expected|masked"):
        Frames(x, 1)


def test_alpha_is_copied_and_channels_become_a_batch(rng):
    x = sample(rng, "uint8", (5, 6, 4))
    for channels, batch in ((3, 1), (1, 3)):
        frames = Frames(x, channels)
        assert frames.batch == batch
        box = (0, 5, 0, 6)
        frames.write(0, box, torch.zeros_like(frames.read(0, box)))
        assert not frames.result()[..., :3].any()
        np.testing.assert_array_equal(frames.result()[..., 3], x[..., 3])


def test_four_channels_first_are_data_for_a_gray_model_and_raw_for_a_model_of_four(rng):
    x = sample(rng, "uint8", (4, 5, 6))
    assert Frames(x, 1, "CYX").batch == 4
    assert Frames(x, 4, "CYX").read(0, (0, 5, 0, 6)).shape == (1, 4, 5, 6)


def test_gray_for_a_colour_model_is_repeated_and_averaged(rng):
    x = sample(rng, "float32", (5, 6))
    frames = Frames(x, 3)
    y = frames.read(0, (0, 5, 0, 6))
    assert frames.replicated and y.shape == (1, 3, 5, 6)
    frames.write(0, (0, 5, 0, 6), y * torch.tensor([0.5, 1.0, 1.5]).view(3, 1, 1))
    np.testing.assert_allclose(frames.result(), x, rtol=1e-6)


def test_channels_that_the_model_cannot_take_are_an_input_error():
    with pytest.raises(InputError, match="make 2 channels; this model takes 3"):
        Frames(np.zeros((5, 6, 2), np.uint8), 3, channel_axis=-1)


def test_sigma_has_the_shape_and_units_of_the_input():
    frames = Frames(np.zeros((6, 5, 4), np.uint16), 3)
    frames.write_sigma(0, (0, 6, 0, 5), torch.full((1, 1, 6, 5), 0.5))
    sigma = frames.sigma()
    assert sigma.dtype == np.float32 and sigma.shape == (6, 5, 4)
    assert (sigma[..., :3] == 32767.5).all() and not sigma[..., 3].any()


def test_training_images_keep_full_range_integers_and_scale_the_rest(rng):
    x = sample(rng, "uint16", (5, 6, 3))
    np.testing.assert_array_equal(Frames(x, None).image(0), x)
    np.testing.assert_allclose(Frames(x, None, data_range=4095).image(0), x / np.float32(4095), rtol=1e-6)
    assert Frames(x, None, "TYX").image(0).shape == (6, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_repair_fills_with_neighbours(value):
    x = torch.full((2, 9, 9), 0.25)
    x[0, 3:6, 2:5] = value
    x[1, 0, 0] = value
    assert (repair(x) == 0.25).all()
    assert repair(torch.full((1, 4, 4), value)).eq(0).all()


def test_repair_changes_nothing_else_and_ignores_what_is_far():
    x = torch.rand(1, 3 * REACH, 5)
    x[0, 0:2, 1] = torch.nan
    far = x.clone()
    far[0, REACH + 2 :] = 7
    bad = ~x.isfinite()
    assert torch.equal(repair(x)[~bad], x[~bad])
    assert torch.equal(repair(x)[bad], repair(far)[bad])


def test_a_window_is_repaired_as_in_the_whole_image(rng):
    x = rng.random((120, 90)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    x[40:80, 30:60] = np.inf
    frames = Frames(x, 1)
    whole = frames.read(0, (0, 120, 0, 90))
    for _ in range(20):
        top, left = int(rng.integers(100)), int(rng.integers(70))
        assert torch.equal(frames.read(0, (top, top + 20, left, left + 20)), whole[..., top : top + 20, left : left + 20])


def test_policies_for_pixels_that_are_not_finite():
    x = np.full((6, 6), 0.5)
    x[1, 2], x[3, 3] = np.nan, -np.inf
    with pytest.raises(InputError, match="2 pixels are NaN or infinite"):
        Frames(x, 1, nonfinite="raise")
    np.testing.assert_array_equal(passed_through(Frames(x, 1)), np.full((6, 6), 0.5))
    np.testing.assert_array_equal(passed_through(Frames(x, 1, nonfinite="keep")), x)
    with pytest.raises(InputError, match="expected one of repair"):
        Frames(x, 1, nonfinite="ignore")


def test_nothing_is_copied_or_warned_for_an_empty_array():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((0, 5), (5, 0), (0, 0), (0, 7, 3)):
            frames = Frames(np.zeros(shape, np.float32), 3)
            assert frames.count == 0 and frames.result().shape == shape and frames.sigma().shape == shape
