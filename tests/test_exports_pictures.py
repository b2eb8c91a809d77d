"""The pictures that choose the ranges of integers: too few, alike or flat ones are refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mirilla import shipped
from mirilla.cli.main import main
from mirilla.exports import pictures
from mirilla.model import card as cards

PHOTO = np.asarray(Image.open(shipped.PHOTO).convert("RGB").resize((64, 64)))


def data_set(folder: Path, photos: list[np.ndarray]) -> Path:
    """A CSV data set of photos, one face in each."""
    folder.mkdir()
    lines = ["file,width,height,x1,y1,x2,y2,label"]
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(folder / f"{i:02}.png")
        lines.append(f"{i:02}.png,{photo.shape[1]},{photo.shape[0]},10,10,40,40,face")
    (folder / "annotations.csv").write_text("\n".join(lines))
    return folder


def moved(count: int) -> list[np.ndarray]:
    return [np.roll(PHOTO, 4 * i, axis=1) for i in range(count)]


@pytest.mark.parametrize(
    ("photos", "parts"),
    [
        (moved(6), ["3 pictures are too few", "At least 8 different ones"]),
        ([PHOTO] * 40, ["20 pictures are too few", "19 of them equal another one"]),
        ([np.clip(PHOTO, 0, 254) + np.uint8(i % 2) for i in range(40)], ["19 of them equal another one"]),
        ([np.full_like(PHOTO, 6 * i) for i in range(40)], ["20 of them show one colour only, for example "]),
        ([*moved(8), *[np.full_like(PHOTO, 6 * i) for i in range(40)]], ["show one colour only"]),
    ],
)
def test_pictures_that_show_no_ranges_are_refused(photos, parts, tmp_path, capsys):
    folder = data_set(tmp_path / "set", photos)
    assert main(["export", "shipped", "--to", "tflite-int8", "--calibrate", str(folder), "--out", f"{tmp_path}/o"]) == 1
    message = capsys.readouterr().err
    assert all(part in message for part in parts), message
    assert "--calibrate" in message
    assert not (tmp_path / "o").exists()


def test_few_pictures_do_for_files_without_integers(tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    folder = data_set(tmp_path / "set", moved(6))
    assert main(["export", "shipped", "--to", "tflite", "--calibrate", str(folder), "--out", f"{tmp_path}/o"]) == 0
    assert "(3 pictures)" in capsys.readouterr().out


def test_missing_pictures_are_named(tmp_path, capsys):
    folder = data_set(tmp_path / "set", moved(16))
    for i in range(10):
        (folder / f"{i:02}.png").unlink()
    assert main(["export", "shipped", "--to", "tflite-int8", "--calibrate", str(folder), "--out", f"{tmp_path}/o"]) == 1
    said = capsys.readouterr()
    assert "10 pictures are left out, first " in said.out
    assert "00.png" in said.out
    assert "too few" in said.err


def test_a_sketch_is_the_mean_of_its_fields():
    photo = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    wanted = photo.reshape(8, 2, 8, 3, 3).astype(float).mean((1, 3))
    np.testing.assert_allclose(pictures.sketch(photo), wanted, rtol=1e-6)


def test_different_pictures_pass():
    card = cards.load(shipped.default_weights().parent / cards.FILE_NAME, shipped.default_weights())
    samples = [
        pictures.Sample(_png(photo), f"{i}.png", 64, 64, np.zeros((0, 4)), ()) for i, photo in enumerate(moved(8))
    ]
    assert pictures.calibration_pixels(samples, card).shape == (8, 256, 256, 3)


def _png(photo: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    return stream.getvalue()
