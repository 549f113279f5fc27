"""`fastbsn app` as a person uses it: a picture dropped, the slider, strength, saving, a truncated file."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.browser.conftest import errors
from tests.conftest import photograph

pytestmark = pytest.mark.browser
WAIT = 120  # seconds, on a busy machine


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "fastbsn", "app", "--port", "0", "--no-browser", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield found[0]
        server.terminate()


@pytest.fixture
def photo(tmp_path: Path, rng) -> Path:
    x = photograph(rng, 420, 560, 3)
    path = tmp_path / "drawn.png"
    cv2.imwrite(str(path), np.rint(np.clip(x + rng.normal(0, 25 / 255, x.shape), 0, 1) * 255).astype(np.uint8))
    return path


def until(condition) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.2)


def text(driver, name: str) -> str:
    found = driver.find_elements("id", name)  # an empty field is not on the page
    return found[0].text if found else ""


def upload(driver, file: Path) -> None:
    until(lambda: driver.find_elements("css selector", "#files input[type=file]"))
    driver.find_element("css selector", "#files input[type=file]").send_keys(str(file))


def loaded(driver) -> bool:
    script = "const i = [...document.querySelectorAll('#view img')]; return i.length == 2 && i.every(x => x.complete && x.naturalWidth)"
    return driver.execute_script(script)


def test_upload_slide_save(chromium, address, photo, tmp_path):
    chromium.get(address)
    upload(chromium, photo)
    until(lambda: loaded(chromium))
    assert "drawn.png: uint8 420 x 560 x 3" in text(chromium, "facts")
    assert 23 < float(re.search(r"noise found: ([\d.]+)", text(chromium, "facts"))[1]) < 27
    sizes = "return [...document.querySelectorAll('#view img')].map(i => [i.naturalWidth, i.width, i.naturalHeight, i.height])"
    assert chromium.execute_script(sizes) == [[560, 560, 420, 420]] * 2  # 100 %
    range_ = chromium.find_element("css selector", "#view input[type=range]")
    for value in (25, 75):
        chromium.execute_script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", range_, value)
        clip = chromium.execute_script("return getComputedStyle(document.querySelector('#view img:nth-of-type(2)')).clipPath")
        assert float(re.findall(r"[\d.]+", clip)[-1]) == pytest.approx(560 * value / 100, abs=1)
    until(lambda: chromium.find_elements("css selector", "#save:not([disabled])"))
    chromium.execute_script("document.querySelector('#save').click()")
    saved = tmp_path / "downloads/drawn-denoised.png"
    until(saved.exists)
    before, after = cv2.imread(str(photo)), cv2.imread(str(saved), cv2.IMREAD_UNCHANGED)
    assert after.shape == before.shape and after.dtype == np.uint8 and np.std(after.astype(float) - before) > 15
    foreign = chromium.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert not [url for url in foreign if not url.startswith((address, "data:", "blob:"))]


def test_truncated_file_is_a_sentence_and_a_good_one_follows(chromium, address, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo.read_bytes()[:5000])
    chromium.get(address)
    upload(chromium, bad)
    until(lambda: "truncated" in text(chromium, "facts"))
    assert text(chromium, "facts").startswith("bad.png") and "Traceback" not in chromium.page_source
    assert not chromium.find_elements("css selector", "#view img, #save:not([disabled])")
    chromium.get(address)
    upload(chromium, photo)
    until(lambda: loaded(chromium))
    assert not errors(chromium)
