"""The web page in headless Chromium: photos, a camera, controls."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers_chromium import PROGRAM, Chromium
from helpers_targets import NO_PICTURES, PHOTO, shipped_source, with_halves, zoo_source
from mirilla import shipped
from mirilla.detect.detector import Detector
from mirilla.detect.models import source_network
from mirilla.labels import LabelMap
from mirilla.targets.target import Source
from mirilla.targets.web import web_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
]
MARKUP = "<b>Ann & Bob</b></script>"
CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
_PIXELS = """(() => {
  let text = "";
  for (const value of shown.photo.data) text += String.fromCharCode(value);
  return [shown.photo.width, shown.photo.height, btoa(text)];
})()"""


def write_page(path: Path, source: Source) -> Path:
    path.write_bytes(web_file.build(source, NO_PICTURES)[web_file.FILE])
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "model.html", shipped_source())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


def opened(browser: Chromium, page: Path, *photos: Path) -> Chromium:
    """The browser with the page and, if there are any, the first photo."""
    browser.resize(1100, 900)
    browser.open(page.as_uri())
    browser.wait("document.body && document.body.dataset.ready")
    if photos:
        browser.choose("#files", *photos)
        browser.wait("shown !== null")
    return browser


def pixels(browser: Chromium) -> np.ndarray:
    """The picture that the page detected in: (H, W, 3) uint8."""
    width, height, content = browser.value(_PIXELS)
    return np.frombuffer(base64.b64decode(content), np.uint8).reshape(height, width, 4)[..., :3].copy()


def require_detections(browser: Chromium, photo: np.ndarray, threshold: float, source: Source | None = None) -> None:
    """Compare what the page shows with the model, once with its weights in 16 bits and once with those in 32."""
    source = source or shipped_source()
    set_threshold(browser, threshold)
    found = browser.value("shown.detections")
    wanted = Detector(source.card, source_network(with_halves(source)))(photo, threshold)
    assert len(found) == len(wanted) > 0
    np.testing.assert_allclose([one["score"] for one in found], wanted.scores, atol=5e-5)
    np.testing.assert_allclose([one["box"] for one in found], wanted.boxes_yxyx, atol=5e-5)
    best = Detector(source.card, source_network(source))(photo, threshold)
    np.testing.assert_allclose(found[0]["score"], best.scores[0], atol=1e-3)
    np.testing.assert_allclose(found[0]["box"], best.boxes_yxyx[0], atol=1e-3)


def set_threshold(browser: Chromium, value: float) -> None:
    browser.value(f'at("threshold").value = {value}; at("threshold").dispatchEvent(new Event("input")); 1')


def test_a_photo_has_the_detectors_boxes(browser, page):
    opened(browser, page, shipped.PHOTO)
    np.testing.assert_array_equal(pixels(browser), PHOTO)
    for threshold in (0.1, 0.55):
        require_detections(browser, PHOTO, threshold)
    assert "ms" in browser.value('at("status").textContent')
    assert "face, score 0.83" in browser.value('at("found").textContent')
    assert [address for address in browser.requests if not address.startswith("file:")] == []
    assert browser.errors == []


def test_a_photo_of_odd_size_turned_by_exif_and_transparent(browser, page, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO[:417, :301]).save(tmp_path / "turned.png", exif=exif)
    opened(browser, page, tmp_path / "turned.png")
    photo = np.ascontiguousarray(np.rot90(PHOTO[:417, :301], -1))
    np.testing.assert_array_equal(pixels(browser), photo)
    require_detections(browser, photo, 0.1)


def test_a_letterboxed_photo(browser, tmp_path):
    source = shipped_source()
    spec = replace(source.card.spec, keep_aspect_ratio=True)
    source = replace(source, card=replace(source.card, spec=spec))
    Image.fromarray(PHOTO[:333]).save(tmp_path / "wide.png")
    opened(browser, write_page(tmp_path / "model.html", source), tmp_path / "wide.png")
    require_detections(browser, PHOTO[:333], 0.1, source)


def test_several_classes_with_markup_in_their_labels(browser, tmp_path):
    source = zoo_source("kit-s8", 3)
    labels = LabelMap.from_names([f"{MARKUP}{i}" for i in range(3)])
    source = replace(source, card=replace(source.card, labels=labels, name=MARKUP))
    opened(browser, write_page(tmp_path / "model.html", source), shipped.PHOTO)
    assert browser.value("document.title") == MARKUP
    assert browser.value('document.querySelector("h1").textContent') == MARKUP
    assert f"{MARKUP}2, score" in browser.value('at("found").textContent')
    assert browser.value('document.querySelectorAll("b, img").length') == 0
    assert browser.errors == []


def test_photos_one_after_the_other_by_keyboard(browser, page, tmp_path):
    (tmp_path / "broken.jpg").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    opened(browser, page, shipped.PHOTO, tmp_path / "broken.jpg")
    assert browser.value('at("position").textContent') == "1 of 2"
    browser.value('at("threshold").focus(); 1')
    before = browser.value('at("threshold").value')
    browser.press("ArrowRight")
    assert float(browser.value('at("threshold").value')) == pytest.approx(float(before) + 0.01)
    browser.value('at("next").focus(); 1')
    browser.press("Enter")
    browser.wait('at("status").classList.contains("error")')
    assert browser.value('at("status").textContent').startswith("broken.jpg: this browser cannot read")
    browser.press("Enter")
    browser.wait('at("position").textContent === "1 of 2" && !at("status").classList.contains("error")')
    browser.choose("#files", tmp_path / "notes.txt")
    browser.wait('at("status").textContent === "None of these files is a picture."')


def test_dropped_photos(browser, page):
    opened(browser, page)
    content = base64.b64encode(shipped.PHOTO.read_bytes()).decode()
    browser.value(
        f'''{{
          const data = new DataTransfer();
          data.items.add(new File([bytesOf("{content}")], "dropped.jpg", {{ type: "image/jpeg" }}));
          document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, bubbles: true, cancelable: true }}));
        }} 1'''
    )
    browser.wait("shown !== null")
    require_detections(browser, PHOTO, 0.55)


@pytest.mark.parametrize(("width", "height", "dark"), [(1100, 900, False), (360, 740, True)])
def test_the_page_fits(browser, page, width, height, dark):
    opened(browser, page, shipped.PHOTO)
    browser.resize(width, height, dark=dark)
    browser.wait(f"innerWidth === {width}")
    assert browser.value("document.documentElement.scrollWidth") <= width
    back = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(level) for level in back.strip("rgb()").split(",")) < 200) == dark
    for name in ("camera", "choose", "threshold"):
        low, high = browser.value(
            f'[at("{name}").getBoundingClientRect().left, at("{name}").getBoundingClientRect().right]'
        )
        assert 0 <= low < high <= width


def test_without_a_camera(browser, page):
    opened(browser, page)
    browser.value('at("camera").click(); 1')
    browser.wait('at("status").classList.contains("error")')
    assert browser.value('at("status").textContent').startswith("No camera: ")


def test_a_served_page_asks_for_itself_only(browser, page):
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "localhost"]
    with subprocess.Popen(
        command, cwd=page.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = re.search(r" port (\d+) ", server.stdout.readline())
            assert port is not None
            browser.requests.clear()
            browser.open(f"http://localhost:{port[1]}/{page.name}")
            browser.wait("document.body && document.body.dataset.ready")
            browser.choose("#files", shipped.PHOTO)
            browser.wait("shown !== null")
            require_detections(browser, PHOTO, 0.55)
        finally:
            server.terminate()
            _, log = server.communicate()
    assert re.findall(r'"(\w+ \S+) HTTP', log) == [f"GET /{page.name}"]
    assert browser.errors == []


def write_video(path: Path, photo: np.ndarray, frames: int = 30) -> None:
    """A video that shows a photo: YUV4MPEG2, 4:2:0, limited range."""
    y, blue, red = np.moveaxis(np.asarray(Image.fromarray(photo).convert("YCbCr"), np.float64), -1, 0)
    planes = [16 + y * 219 / 255, *(128 + (c[::2, ::2] - 128) * 224 / 255 for c in (blue, red))]
    frame = b"FRAME\n" + b"".join(np.rint(plane).astype(np.uint8).tobytes() for plane in planes)
    height, width = photo.shape[:2]
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F30:1 Ip C420jpeg\n".encode() + frame * frames)


def test_a_camera(page, tmp_path):
    write_video(tmp_path / "cam.y4m", PHOTO[:480])
    switches = (*CAMERA, f"--use-file-for-fake-video-capture={tmp_path / 'cam.y4m'}")
    with Chromium(tmp_path / "profile", switches) as browser:
        opened(browser, page)
        browser.value('at("camera").click(); at("camera").click(); 1')  # the second one starts again
        browser.wait("times.length >= 20")
        browser.value('at("camera").click(); 1')  # stop
        photo = pixels(browser)
        assert photo.shape == (480, 512, 3)
        assert np.abs(photo.astype(int) - PHOTO[:480]).mean() < 3
        require_detections(browser, photo, 0.1)
        (best, *_) = Detector.load()(PHOTO[:480], 0.5).boxes_yxyx
        np.testing.assert_allclose(browser.value("shown.detections[0].box"), best, atol=0.03)
        assert "ms" in browser.value('at("status").textContent')
        assert [address for address in browser.requests if not address.startswith("file:")] == []
        assert browser.errors == []
        browser.value('at("camera").click(); 1')
        browser.wait("stream !== null")
        browser.choose("#files", shipped.PHOTO)  # ends the camera
        browser.wait("stream === null && shown.photo.height === 512")
        assert browser.value('at("camera").textContent') == "Camera"
        require_detections(browser, PHOTO, 0.55)
