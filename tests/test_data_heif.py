"""HEIC and AVIF photos, and files that are no pictures."""

from __future__ import annotations

import base64
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from mirilla.data import images, read_dataset
from mirilla.data.convert import convert
from mirilla.errors import DataError

# Written by libheif: four colours, 64x48 px, with a quarter turn: shown as 48x64, blue and red above, white and green
# below.
PHOTO = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAIkAAgAAAAACdQABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh"
    "cAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA"
    "AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAALVtZGF0AAAAhSgBrxOA5TH3/7f5P9+jP8kyZk6gxC/7oD7qxL+h"
    "9LEG46eJ85Q/w1D/J6Igo0Jnn/5a7dXMFx2JPUQUN50vd6iuKlkkweq90cSQmw6tz89YBI5JnW+l9IgglZptIAtRNYhIXVw4IpHf"
    "3dql4AOO0L6MsiRF7OZjf9Ym7KSqncnBwQ1FZ34AAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)
COLOURS = [[(30, 30, 220), (220, 30, 30)], [(230, 230, 230), (30, 200, 30)]]


def _colours(rgb):
    height, width = rgb.shape[:2]
    return [[rgb[int(y * height), int(x * width)] for x in (0.2, 0.8)] for y in (0.2, 0.8)]


def test_heic_photos_are_read_upright_whatever_their_suffix(tmp_path):
    pytest.importorskip("pi_heif")
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    assert images.header_of(PHOTO) == images.Header("heif", (64, 48), 1)
    for photo in (PHOTO, tmp_path / "a.jpg"):
        assert images.size_of(photo) == images.decoded_size(photo) == (64, 48)
        np.testing.assert_allclose(_colours(images.decode_rgb(photo)), COLOURS, atol=4)


def test_heic_photos_in_a_data_set_become_png_in_records(tmp_path):
    pytest.importorskip("pi_heif")
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    (tmp_path / "set/images/IMG_1.HEIC").write_bytes(PHOTO)
    (tmp_path / "set/labels/IMG_1.txt").write_text("0 0.5 0.25 0.5 0.25\n")
    found = read_dataset(tmp_path / "set")
    assert [(s.filename, s.height_px, s.width_px) for s in found.samples] == [("IMG_1.HEIC", 64, 48)]
    convert(found, tmp_path / "records", "tfrecord")
    (sample,) = read_dataset(tmp_path / "records").samples
    assert images.header_of(sample.encoded()).format == "png"
    np.testing.assert_allclose(sample.boxes_yxyx, [[0.125, 0.25, 0.375, 0.75]], atol=1e-6)


def test_without_the_extra_a_heic_photo_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"HEIC photo, as iPhones take them.*pi-heif(.|\n)*mirilla\[heif\]"):
        images.size_of(PHOTO)


@pytest.mark.parametrize(
    "content",
    [
        PHOTO[:40],
        PHOTO[:-100],
        PHOTO.replace(b"Exif", b"E\xffif", 1),  # crashes pi-heif
        PHOTO.replace(b"hvcC", b"hvcD"),
    ],
)
def test_a_broken_heic_photo_is_an_error(content):
    pytest.importorskip("pi_heif")
    with pytest.raises(DataError, match=r"HEIC photo is broken"):
        images.decode_rgb(content)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_photos_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.avif", exif=exif.tobytes())
    assert images.size_of(tmp_path / "a.avif") == (64, 48)
    assert images.decode_rgb(tmp_path / "a.avif").shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "macOS metadata"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "a video"),
        (b"zzz", "match no known format"),
    ],
)
def test_what_a_file_is_that_is_no_picture(content, message):
    with pytest.raises(DataError, match=message):
        images.header_of(content)


@pytest.mark.parametrize("read", [images.header_of, images.decode_rgb])
def test_a_raw_file_is_refused_although_it_has_a_preview(tmp_path, read):
    Image.new("RGB", (16, 12)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    with pytest.raises(DataError, match="camera's raw file"):
        read(tmp_path / "a.NEF")


def test_the_decoder_of_heic_starts_without_numpy():
    code = "import sys, mirilla.data.heif; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_names_of_pictures():
    names = ("a.JPG", "x/b.heic", "._a.jpg", "x/._a.jpg", "a.nef", "jpg")
    assert [images.is_picture_name(name) for name in names] == [True, True, False, False, False, False]
