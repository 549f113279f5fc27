"""The report: one file that needs no other, its figures, and what it does with images of every kind."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from fastbsn.commands import main
from fastbsn.report import Curve, Report
from fastbsn.report.curve import HEIGHT, WIDTH, draw
from fastbsn.report.page import PICTURES
from fastbsn.report.view import noise_found, picture, view
from tests.conftest import photograph


def addresses(html: str) -> list[str]:
    """Everything that a page loads or leads to."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset"))
    parser.feed(html)
    return found + re.findall(r"url\(|@import", html)


def test_page_is_self_contained_and_escapes_names(tmp_path, rng):
    page = Report("<i>Title</i>", {"model": "a & b"}, [Curve("teacher", [50, 100, 150], [0.3, 0.2, 0.1])])
    x = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    page.add("<script>alert(1)</script>.png", x, x, "YXC", 1.5)
    page.fail("b.png: truncated")
    page.write(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert len(addresses(html)) == 2 and all(a.startswith("data:image/jpeg;base64,") for a in addresses(html))
    assert "<script" not in html and "<i>" not in html and "&lt;script&gt;" in html and "a &amp; b" in html
    assert "b.png: truncated" in html and "<polyline" in html and "1.50" in html


@pytest.mark.parametrize("dtype, white", [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_noise_is_found_in_the_units_of_the_image(dtype, white, rng):
    noisy = (photograph(rng, 600, 700) + rng.normal(0, 0.05, (600, 700))) * white
    noisy = noisy.astype(dtype) if dtype == "float32" else np.rint(np.clip(noisy, 0, white)).astype(dtype)
    assert noise_found(noisy[..., None]) == pytest.approx(0.05 * white, rel=0.06)


@pytest.mark.parametrize(
    "shape, axes, expected",
    [
        ((5, 6), "YX", (5, 6, 1)),
        ((5, 6, 4), "YXC", (5, 6, 3)),
        ((2, 5, 6), "CYX", (5, 6, 1)),
        ((3, 5, 6), "TYX", (5, 6, 1)),
        ((3, 2, 3, 5, 6), "TZCYX", (5, 6, 3)),
        ((6, 5), "XY", (5, 6, 1)),
    ],
)
def test_one_picture_of_any_array(shape, axes, expected):
    x = np.arange(np.prod(shape)).reshape(shape)
    found = picture(x, axes)
    assert found.shape == expected
    if axes == "TYX":
        assert np.array_equal(found[..., 0], x[1])  # the middle


def test_shown_as_it_is_or_from_darkest_to_brightest(rng):
    x = rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)
    assert np.array_equal(view(x, x).before, x)
    dark = rng.uniform(1000, 1100, (50, 60, 1)).astype(np.uint16)
    shown = view(dark, dark)
    assert shown.after.shape == (50, 60) and shown.after.min() == 0 and shown.after.max() == 255
    flat = np.full((4, 5, 1), np.nan, np.float32)
    assert not view(flat, np.zeros_like(flat)).before.any()


def test_curve_fits_its_box_and_short_ones_are_left_out():
    steps = np.arange(1, 2001)
    drawing = draw(Curve("teacher", steps, np.where(steps < 10, 1e6, 1 / steps)))
    x, y = np.array([p.split(",") for p in drawing.line.split()], float).T
    assert x[0] == 0 and x[-1] == WIDTH and (np.diff(x) > 0).all() and y.min() == 0 and y.max() == HEIGHT
    assert (np.diff(y) >= 0).all()  # the loss falls
    assert float(drawing.up[-1][1]) < 1  # outliers do not set the scale
    assert draw(Curve("student", [50], [0.1])) is None


def test_denoise_report_lists_all_and_shows_the_first(tmp_path, rng, capsys):
    for i in range(PICTURES + 2):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"in/{i:02}.png"), rng.integers(0, 255, (16, 18), dtype=np.uint8))
    (tmp_path / "in/bad.png").write_bytes((tmp_path / "in/00.png").read_bytes()[:60])
    command = ["denoise", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--report", "--device", "cpu"]
    assert main(command) == 1
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("<tr><td>") == PICTURES + 2 and html.count('class="fastbsn-slider"') == PICTURES
    assert "bad.png" in html and f"The first {PICTURES} of {PICTURES + 2}" in html
    (tmp_path / "in/bad.png").unlink()
    assert main(command) == 0  # everything is there: the page of what was done stays
    assert (tmp_path / "out/report.html").read_text() == html
