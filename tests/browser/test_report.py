"""The reports of `denoise --report` and `fit`, opened in a browser."""

from __future__ import annotations

import pytest

from fastbsn.commands import main
from tests.browser.conftest import errors

pytestmark = pytest.mark.browser

COLUMN = """
const x = arguments[0], image = document.elementsFromPoint(x, document.querySelector('[alt$=after]').getBoundingClientRect().top + 20)
  .find(e => e.tagName == 'IMG');
return image.alt.split(', ').pop()
"""


def top_picture(driver, x: float) -> str:
    """Which of the two pictures lies on top, `x` pixels from the left side of the first."""
    left = driver.execute_script("return document.querySelector('[alt$=after]').getBoundingClientRect().left")
    return driver.execute_script(COLUMN, left + x)


def move(driver, value: int) -> None:
    driver.execute_script(
        "const s = document.querySelector('input[type=range]'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", value
    )


def test_slider_uncovers_the_other_picture(chromium, noisy_folder, tmp_path):
    assert main(["denoise", str(noisy_folder), "-o", str(tmp_path / "out"), "--report", "--device", "cpu"]) == 0
    chromium.get((tmp_path / "out/report.html").as_uri())
    assert chromium.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth == i.width && i.width == 56)")
    assert chromium.execute_script("return document.images.length") == 12
    assert (top_picture(chromium, 14), top_picture(chromium, 42)) == ("before", "after")
    move(chromium, 0)
    assert top_picture(chromium, 14) == "after"
    move(chromium, 100)
    assert top_picture(chromium, 42) == "before"
    assert len(chromium.find_elements("css selector", "#images tr")) == 7
    assert not errors(chromium)


def test_training_report_shows_curves_and_pictures(chromium, noisy_folder, tmp_path):
    student = tmp_path / "s.safetensors"
    assert main(["fit", str(noisy_folder), "-o", str(student), "--steps", "4"]) == 0
    chromium.get((tmp_path / "s.safetensors.run/report.html").as_uri())
    assert "2 steps" in chromium.find_element("id", "facts").text
    assert len(chromium.find_elements("css selector", ".fastbsn-slider")) == 4
    assert not errors(chromium)
