import copy
import doctest
import json
import pickle
import re

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import fastbsn
from fastbsn import Denoiser, denoiser, models
from fastbsn.errors import BackendError, InputError, WeightsError
from fastbsn.io.image_files import write_image
from fastbsn.nets import NoiseModel
from tests.conftest import photograph
from tests.tiny import tiny_denoiser, tiny_teacher, tiny_unet


def network(d: Denoiser, x: torch.Tensor) -> torch.Tensor:
    """The student itself on [N, C, H, W]."""
    with torch.no_grad():
        return d.networks_["student"](x)


def test_an_array_goes_through_the_network(rng):
    d, x = tiny_denoiser(3), rng.random((33, 20, 3)).astype(np.float32)
    expected = network(d, torch.from_numpy(x).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(d(x), expected, atol=1e-6)
    assert np.abs(d(x) - x).max() > 0.05


def test_integers_are_the_rounded_result_of_their_range(rng):
    d, x = tiny_denoiser(), rng.integers(0, 256, (21, 30), np.uint8)
    y = d(x)
    expected = np.clip(np.rint(255 * d(x / np.float32(255))), 0, 255)
    assert y.dtype == np.uint8 and np.abs(y - expected).max() == 0
    wide = d((x * np.uint16(257)).astype(np.uint16))
    assert np.abs(wide / 257 - 255 * np.clip(d(x / np.float32(255)), 0, 1)).max() < 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tile", [24, (40, 16), "auto"])
def test_a_tiled_image_is_as_exact_as_the_whole(rng, dtype, tile):
    d, x = tiny_denoiser(3, dtype, channels=12), rng.random((100, 61, 3)).astype(np.float32)
    whole, tiled = d(x, tile=None), d(x, tile=tile)
    d.networks_["student"].double()
    exact = network(d, torch.from_numpy(x).double().permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    floor = torch.finfo(getattr(torch, dtype)).eps * np.abs(exact - x).max()
    assert np.abs(tiled - exact).max() <= 2 * np.abs(whole - exact).max() + floor


def test_a_smaller_halo_would_differ(rng):
    d, x = tiny_denoiser(channels=12), rng.random((60, 12)).astype(np.float32)
    whole = d(x, tile=None)
    assert np.abs(d(x, tile=4) - whole).max() < 1e-5
    object.__setattr__(d.prepared_, "radius", d.prepared_.radius - 2 * d.prepared_.multiple)
    assert np.abs(d(x, tile=4) - whole).max() > 1e-5


@pytest.mark.parametrize("kind", ["gaussian", "heteroscedastic", "multivariate"])
@pytest.mark.parametrize("sigma", [True, "posterior"])
def test_teacher_tiles_equal_the_whole_sigma_included(rng, kind, sigma):
    d, x = tiny_teacher(3, kind), rng.random((37, 42, 3)).astype(np.float32)
    y, s = d(x, return_sigma=sigma, tile=None)
    y2, s2 = d(x, return_sigma=sigma, tile=23)
    assert s.shape == x.shape and s.dtype == np.float32 and (s > 0).all()
    np.testing.assert_allclose(y2, y, atol=1e-5)
    np.testing.assert_allclose(s2, s, rtol=1e-4)


def test_a_teacher_gives_the_posterior_mean_of_bayes_rule(rng):
    d, x = tiny_teacher(1), rng.random((30, 24)).astype(np.float32)
    y = torch.from_numpy(x)[None, None]
    with torch.no_grad():
        mu, features = d.networks_["teacher"](y)
        s = d.networks_["noise_model"](y, mu, features)
        vm, vn = s.mu**2, s.n**2
        expected, std = (vn * mu + vm * y) / (vm + vn), (vm * vn / (vm + vn)).sqrt()
    found, noise = d(x, return_sigma=True)
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-6)
    np.testing.assert_allclose(noise, np.full_like(x, s.n.item()), rtol=1e-5)
    np.testing.assert_allclose(d(x, return_sigma="posterior")[1], std[0, 0], rtol=1e-4)


def test_a_teacher_of_correlated_noise_refines_the_whole_image(rng):
    from fastbsn.inference.refine import denoise_correlated

    d, x = tiny_teacher(1, noise="correlated"), rng.random((31, 24)).astype(np.float32)
    with torch.no_grad():
        expected = denoise_correlated(lambda y: d.networks_["teacher"](y)[0], torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(d(x, tile=8), expected[0, 0].detach(), atol=1e-6)


def test_sigma_of_a_student_needs_a_noise_model(rng):
    x = rng.integers(0, 256, (20, 24, 3), np.uint8)
    with pytest.raises(InputError, match="needs a noise model; this model holds student"):
        tiny_denoiser(3)(x, return_sigma=True)
    torch.manual_seed(0)
    model = NoiseModel("gaussian", 3, 8).eval()
    d = Denoiser({"student": tiny_unet(3), "noise_model": model}, device="cpu")
    y, s = d(x, return_sigma=True)
    unit = torch.from_numpy(x).permute(2, 0, 1)[None] / 255
    np.testing.assert_allclose(s, np.full(x.shape, 255 * model.noise(unit).item()), rtol=1e-4)
    with pytest.raises(InputError, match="posterior.*needs a teacher"):
        d(x, return_sigma="posterior")
    with pytest.raises(InputError, match="expected False, True or 'posterior'"):
        d(x, return_sigma="variance")


def test_stacks_are_denoised_frame_by_frame(rng):
    d, stack = tiny_denoiser(), rng.integers(0, 256, (3, 20, 17), np.uint8)
    y = d(stack, axes="TYX")
    for frame, out in zip(stack, y, strict=True):
        np.testing.assert_array_equal(out, d(frame))
    np.testing.assert_array_equal(d(stack.transpose(1, 2, 0), axes="YXT").transpose(2, 0, 1), y)


def test_a_gray_model_takes_colour_channel_by_channel(rng):
    d, x = tiny_denoiser(), rng.random((20, 24, 3)).astype(np.float32)
    y = d(x)
    for c in range(3):
        np.testing.assert_allclose(y[..., c], d(x[..., c]), atol=1e-6)


def test_a_colour_model_takes_gray_with_a_warning(rng):
    d, x = tiny_denoiser(3), rng.random((20, 24)).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="a gray model does better"):
        y = d(x)
    np.testing.assert_allclose(y, d(np.stack([x] * 3, -1)).mean(-1), atol=1e-6)


def test_tensors_and_pil_images_come_back_as_they_came(rng):
    d, x = tiny_denoiser(3), rng.integers(0, 256, (16, 18, 3), np.uint8)
    expected = d(x)
    image = d(Image.fromarray(x))
    assert isinstance(image, Image.Image) and image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)
    tensor = torch.from_numpy(x).permute(2, 0, 1)
    out = d(tensor)
    assert out.dtype == torch.uint8 and out.stride() == tensor.stride()
    np.testing.assert_array_equal(out.permute(1, 2, 0).numpy(), expected)
    np.testing.assert_array_equal(d(tensor[None])[0], out)
    trained = torch.rand(3, 8, 8, requires_grad=True)
    (d(trained).sum() + trained.sum()).backward()  # the result is an ordinary tensor, usable under autograd


def test_12_bit_data_without_a_range_is_warned_of(rng):
    d, x = tiny_denoiser(), rng.integers(0, 4096, (16, 18), np.uint16)
    with pytest.warns(RuntimeWarning, match="data_range=4095"):
        d(x)
    np.testing.assert_allclose(d(x, data_range=4095), np.clip(np.rint(4095 * d(x / np.float32(4095))), 0, None), atol=1)


def test_a_result_that_is_not_finite_is_an_error():
    net = tiny_unet()
    torch.nn.init.constant_(net.out.bias, torch.inf)
    with pytest.raises(InputError, match="not finite"):
        Denoiser({"student": net}, device="cpu")(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize("tile", ["big", 1.5, (8, 8, 8), 0, (0, 8), -3])
def test_impossible_tiles_are_an_input_error(tile):
    with pytest.raises(InputError, match="tile="):
        tiny_denoiser()(np.zeros((16, 16), np.uint8), tile=tile)


def test_progress_counts_pixels(capsys):
    tiny_denoiser()(np.zeros((3, 16, 16), np.uint8), axes="TYX", tile=8, progress=True)
    assert "768/768" in capsys.readouterr().err
    tiny_denoiser()(np.zeros((16, 16), np.uint8))
    assert capsys.readouterr().err == ""


def test_save_and_load_give_the_same_object(tmp_path, rng):
    d = Denoiser({"student": tiny_unet(3)}, {"noise": "gaussian", "data_ranges": {"uint16": 4095.0}}, device="cpu", dtype="float32")
    x = rng.integers(0, 4096, (20, 24, 3), np.uint16)
    d.save(tmp_path / "student.safetensors")
    d.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["networks"]["student"] == {
        "in_channels": 3,
        "channels": 6,
        "depth": 2,
    }
    for source in (tmp_path / "student.safetensors", str(tmp_path / "model")):
        loaded = Denoiser.from_pretrained(source, device="cpu", dtype="float32")
        assert loaded.header_ == d.header_ and loaded.data_ranges == {"uint16": 4095.0}
        np.testing.assert_array_equal(loaded(x), d(x))
        np.testing.assert_array_equal(loaded(x), d(x, data_range=4095))


def test_bundled_weights_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    tiny_denoiser().save(tmp_path / "gray-tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    assert Denoiser.from_pretrained("gray-tiny").channels == 1
    for name in ("gray", "gray-tiny.safetensor", "../gray-tiny", "missing.safetensors", "."):
        with pytest.raises(InputError, match=re.escape(f"{name}: not a bundled model (gray-tiny)")):
            Denoiser.from_pretrained(name)


@pytest.mark.parametrize("file", sorted(models.WEIGHTS.glob("*.safetensors")), ids=lambda f: f.stem)
def test_bundled_models_denoise_what_they_are_for(rng, file):
    d = Denoiser.from_pretrained(file.stem, device="cpu")
    clean = photograph(rng, 96, 96, d.channels)
    noisy = clean + rng.normal(0, 25 / 255, clean.shape)
    assert ((d(noisy) - clean) ** 2).mean() < ((noisy - clean) ** 2).mean() / 4


def test_weights_of_neither_student_nor_teacher_are_refused():
    with pytest.raises(WeightsError, match="expected 'student'"):
        Denoiser({"noise_model": NoiseModel("gaussian", 1, 8)})
    with pytest.raises(WeightsError, match="no networks"):
        Denoiser({})
    with pytest.raises(BackendError, match="backend='cuda'"):
        Denoiser({"student": tiny_unet()}, device="cpu", backend="cuda")


@pytest.mark.parametrize(
    "call", [lambda d: d(np.zeros((4, 4), np.uint8)), lambda d: d.save("a"), lambda d: d.save_pretrained("a"), lambda d: d.export("a")]
)
def test_before_fit_every_use_says_what_to_do(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not fitted; call fit"):
        call(Denoiser())
    assert "not fitted" in repr(Denoiser()) and not list(tmp_path.iterdir())


def test_fit_makes_a_denoiser_that_can_be_saved(tmp_path, rng):
    noisy = [(4095 * np.clip(photograph(rng, 40, 44) + rng.normal(0, 0.1, (40, 44)), 0, 1)).astype(np.uint16) for _ in range(2)]
    d = Denoiser(device="cpu")
    assert d.fit(noisy, steps=2, data_range=4095, progress=False, workdir=tmp_path) is d
    assert d.channels == 1 and d.data_ranges == {"uint16": 4095.0} and set(d.networks_) == {"student", "noise_model"}
    assert {"teacher.safetensors", "student.safetensors"} <= {p.name for p in tmp_path.iterdir()}
    y, sigma = d(noisy[0], return_sigma=True)
    assert y.dtype == np.uint16 and np.isfinite(sigma).all()
    d.save(tmp_path / "all.safetensors")
    np.testing.assert_array_equal(Denoiser.from_pretrained(tmp_path / "all.safetensors", device="cpu")(noisy[0]), y)


@pytest.mark.parametrize("kind", ["folder", "stack", "pil"])
def test_fit_takes_folders_stacks_and_pil(tmp_path, rng, monkeypatch, kind):
    images = rng.integers(0, 256, (2, 24, 20), np.uint8)
    seen = []
    monkeypatch.setattr("fastbsn.training.fit", lambda images, **k: seen.extend(images.images) or (_ for _ in ()).throw(KeyboardInterrupt))
    for i, image in enumerate(images):
        write_image(tmp_path / f"{i}.png", image)
    source = {"folder": tmp_path, "stack": images, "pil": [Image.fromarray(x) for x in images]}[kind]
    with pytest.raises(KeyboardInterrupt):
        Denoiser(device="cpu").fit(source, axes="TYX" if kind == "stack" else None, steps=1)
    assert len(seen) == 2 and all(np.array_equal(a[0], b) for a, b in zip(seen, images, strict=True))


def test_fit_takes_one_file_a_page_at_a_time(tmp_path, rng):
    stack = rng.integers(0, 256, (3, 20, 24), np.uint8)
    tifffile.imwrite(tmp_path / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    write_image(tmp_path / "one.png", stack[0])
    for name, count in (("movie.tif", 3), ("one.png", 1)):
        assert Denoiser(device="cpu").fit(tmp_path / name, steps=2, progress=False).header_["images"] == count
    with pytest.raises(InputError, match="missing.tif"):
        Denoiser(device="cpu").fit(tmp_path / "missing.tif", steps=2, progress=False)


def test_fit_takes_floats_in_the_units_of_a_camera(rng):
    wide = [(65535 * rng.random((20, 24))).astype(np.float32) for _ in range(2)]
    with pytest.raises(InputError, match="pass data_range"):
        Denoiser(device="cpu").fit(wide, steps=2, progress=False)
    d = Denoiser(device="cpu").fit(wide, steps=2, data_range=65535, progress=False)
    unit = Denoiser(device="cpu").fit([x / np.float32(65535) for x in wide], steps=2, progress=False)
    np.testing.assert_allclose(d(wide[0]) / 65535, unit(wide[0] / np.float32(65535)), atol=1e-5)


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=["deepcopy", "pickle"])
def test_copies_do_the_same_and_are_their_own(copies, rng):
    x = rng.integers(0, 256, (20, 24, 3), np.uint8)
    for d in (tiny_denoiser(3), tiny_teacher(3), Denoiser({"student": tiny_unet(3)}, {"data_ranges": {"uint8": 200.0}}, "cpu")):
        other = copies(d)
        assert repr(other) == repr(d) and other.header_ == d.header_
        np.testing.assert_array_equal(other(x), d(x))
        assert not {p.data_ptr() for n in d.networks_.values() for p in n.parameters()} & {
            p.data_ptr() for n in other.networks_.values() for p in n.parameters()
        }
    assert "not fitted" in repr(copies(Denoiser(dtype="float32"))) and copies(Denoiser(dtype="float32")).dtype == "float32"


class Denoised(torch.utils.data.Dataset):
    """Images that a Denoiser cleans where they are loaded."""

    def __init__(self, d: Denoiser, images: np.ndarray):
        self.d, self.images = d, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.d(self.images[i]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on one core
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_works_in_the_workers_of_a_data_loader(method, rng):
    d, images = tiny_denoiser(), rng.random((4, 16, 18)).astype(np.float32)
    expected = torch.from_numpy(np.stack([d(x) for x in images]))
    loader = torch.utils.data.DataLoader(Denoised(d, images), batch_size=2, num_workers=2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), expected)


def test_numpy_counts_are_sizes_of_tiles(rng):
    d, x = tiny_denoiser(), rng.random((40, 30)).astype(np.float32)
    np.testing.assert_array_equal(d(x, tile=np.int64(16)), d(x, tile=16))
    np.testing.assert_array_equal(d(x, tile=(np.int32(16), np.uint8(8))), d(x, tile=(16, 8)))


def test_the_names_of_the_bundled_models_are_listed():
    assert fastbsn.list_models() == sorted(fastbsn.list_models()) and {"gray-awgn", "color-awgn"} <= set(fastbsn.list_models())
    assert doctest.testmod(models) == (0, 2)


def test_public_names_are_lazy_and_complete():
    assert set(fastbsn.__all__) <= set(dir(fastbsn))
    assert all(getattr(fastbsn, name) is not None for name in fastbsn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastbsn.nothing


def test_the_example_in_the_documentation_runs():
    failed, attempted = doctest.testmod(denoiser)
    assert attempted >= 3 and failed == 0
