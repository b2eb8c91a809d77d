"""The file of `tflite-detect` as Frigate and picamera2 read it, by their published sources; our own code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers_targets import PHOTO, calibration_pictures, shipped_source
from mirilla import shipped
from mirilla.detect.detector import Detector
from mirilla.targets import table

litert = pytest.importorskip("ai_edge_litert.interpreter")
TARGET = table.target("tflite-detect")
FRIGATE_ROWS, FRIGATE_MIN_SCORE = 20, 0.4
PICAMERA2_MIN_SCORE = 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("detect")
    for name, content in TARGET.build(shipped_source(), calibration_pictures()).items():
        (made / name).write_bytes(content)
    return made


def labels(path: Path) -> dict[int, str]:
    """picamera2's example takes lines of a number and a name; Frigate takes these and plain names."""
    lines = path.read_text("utf-8").splitlines()
    return {int(number): name for number, name in (line.split(maxsplit=1) for line in lines)}


def in_frigate(path: Path, picture: np.ndarray) -> np.ndarray:
    """Rows of class, score, ymin, xmin, ymax, xmax, as the detectors `cpu` and `edgetpu` return them (model_type ssd).

    Both set the first input to the frame's uint8 (1, height, width, 3) RGB and take boxes, classes, scores and count
    in the order of the outputs. `edgetpu` also looks for the boxes by their rank, and tells the scores from the classes
    by the first of them: a whole number is a class.
    """
    interpreter = litert.Interpreter(model_path=str(path), num_threads=3)
    interpreter.allocate_tensors()
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    assert entry["dtype"] == np.uint8
    assert [len(output["shape"]) for output in outputs] == [3, 2, 2, 1]
    interpreter.set_tensor(entry["index"], picture[None])
    interpreter.invoke()
    boxes, classes, scores, count = (interpreter.get_tensor(output["index"])[0] for output in outputs)
    if count:
        assert classes[0] % 1 == 0
        assert scores[0] % 1 != 0
    rows = np.zeros((FRIGATE_ROWS, 6), np.float32)
    for i in range(min(int(count), FRIGATE_ROWS)):
        if scores[i] < FRIGATE_MIN_SCORE:
            break
        rows[i] = [classes[i], scores[i], *boxes[i]]
    return rows


def in_picamera2(path: Path, picture: np.ndarray) -> list[tuple[int, float, float, float, float, float]]:
    """Class, score, top, left, bottom, right; outputs by position, float inputs as (pixel - 127.5) / 127.5."""
    interpreter = litert.Interpreter(model_path=str(path), num_threads=4)
    interpreter.allocate_tensors()
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    _, height, width, _ = entry["shape"]
    resized = np.asarray(Image.fromarray(picture).resize((width, height)))[None]
    if entry["dtype"] == np.float32:
        resized = (resized.astype(np.float32) - 127.5) / 127.5
    interpreter.set_tensor(entry["index"], resized)
    interpreter.invoke()
    boxes, classes, scores, count = (interpreter.get_tensor(output["index"]) for output in outputs)
    return [
        (int(classes[0][i]), float(scores[0][i]), *(float(side) for side in boxes[0][i]))
        for i in range(int(count[0]))
        if scores[0][i] > PICAMERA2_MIN_SCORE
    ]


def test_frigate_finds_the_face(folder):
    assert TARGET.run is not None
    detector = Detector(shipped_source().card, TARGET.run(folder / TARGET.file, shipped_source().card))
    for picture in calibration_pictures():
        rows, wanted = in_frigate(folder / TARGET.file, picture), detector(picture, FRIGATE_MIN_SCORE)
        found = rows[rows[:, 1] > 0]
        assert len(found) == min(len(wanted), FRIGATE_ROWS)
        np.testing.assert_allclose(found[:, 1], wanted.scores, atol=1e-6)
        np.testing.assert_allclose(found[:, 2:].clip(0, 1), wanted.boxes_yxyx.clip(0, 1), atol=1e-5)
    size = shipped_source().graph.input_shape
    best = in_frigate(folder / TARGET.file, np.asarray(Image.fromarray(PHOTO).resize((size[1], size[0]))))[0]
    assert labels(folder / "labelmap.txt")[int(best[0])] == "face"
    assert_on_face(best[2:])


@pytest.mark.parametrize("level", [0, 128, 255])
def test_frigate_finds_nothing_in_an_even_picture(folder, level):
    rows = in_frigate(folder / TARGET.file, np.full(shipped_source().graph.input_shape, level, np.uint8))
    assert not rows.any()


def test_picamera2_finds_and_names_the_face(folder):
    grey = np.repeat(np.asarray(Image.fromarray(PHOTO).convert("L"))[..., None], 3, 2)  # its low-resolution stream
    label, _, *box = in_picamera2(folder / TARGET.file, grey)[0]  # the best
    assert labels(folder / "labelmap.txt")[label] == "face"
    assert_on_face(box)


def test_the_pages_configuration_fits_the_file(folder):
    page = (Path(__file__).parents[1] / "docs/boards.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(detectors:.*?)```", page, re.DOTALL)
    written = yaml.safe_load(block)
    model, card = written["model"], shipped_source().card
    assert (folder / Path(model["path"]).name).is_file()
    assert set(labels(folder / Path(model["labelmap_path"]).name).values()) == {*written["objects"]["track"]}
    assert (model["height"], model["width"]) == (card.spec.height_px, card.spec.width_px)
    assert written["objects"]["filters"]["face"]["threshold"] == card.threshold
    for name in re.findall(r"real_time_with_labels.py --model (\S+) --label (\S+)`", page)[0]:
        assert (folder / name).is_file()


def assert_on_face(box_yxyx) -> None:
    top, left, bottom, right = box_yxyx
    low_y, low_x, high_y, high_x = shipped.PHOTO_FACE_YXYX
    assert low_y < (top + bottom) / 2 < high_y
    assert low_x < (left + right) / 2 < high_x
