"""Pictures of every kind: size from the header, pixels upright."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers_data import picture, rotated
from mirilla.data import images
from mirilla.errors import DataError


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "L"),
        ("PNG", "LA"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
        ("TIFF", "RGB"),
        ("PPM", "RGB"),
    ],
)
def test_every_kind_becomes_rgb(format, mode):
    content = picture(20, 30, format, mode)
    pixels = images.decode_rgb(content)
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert images.size_of(content) == images.decoded_size(content) == (20, 30)
    want = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(pixels, want)


def test_sixteen_bits_keep_the_high_byte():
    out = io.BytesIO()
    Image.fromarray(np.array([[0, 0x1234], [0xABCD, 0xFFFF]], np.uint16)).save(out, "PNG")
    assert images.decode_rgb(out.getvalue())[..., 0].tolist() == [[0, 0x12], [0xAB, 0xFF]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_as_pillow_shows_it(orientation, format):
    content = rotated(orientation, format=format)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    got = images.decode_rgb(content)
    np.testing.assert_array_equal(got, want)
    assert images.size_of(content) == got.shape[:2] == ((30, 20) if orientation >= 5 else (20, 30))
    assert images.decoded_size(content) == got.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(orientation):
    stored = np.zeros((20, 30), np.uint8)
    stored[4:10, 6:9] = 255
    shown = Image.fromarray(stored)
    if orientation > 1:
        shown = shown.transpose(images._TRANSPOSE[orientation])
    pixels = np.asarray(shown)
    rows, columns = np.nonzero(pixels)
    want = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / [
        *pixels.shape,
        *pixels.shape,
    ]
    box = np.array([[4 / 20, 6 / 30, 10 / 20, 9 / 30]])
    turned = images.to_upright(box, orientation)
    np.testing.assert_allclose(turned[0], want)
    np.testing.assert_allclose(images.to_stored(turned, orientation), box)


def test_exif_chunk_behind_the_pixels_of_a_png():
    import struct
    import zlib

    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    content = picture(format="PNG")
    content = (
        content[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[-12:]
    )
    assert images.size_of(content) == (30, 20)
    assert images.decode_rgb(content).shape == (30, 20, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        picture(200, 200)[:700],
        picture(200, 200, "PNG")[:-200],
        picture()[:8],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 30,
    ],
    ids=["empty", "text", "jpeg-cut", "png-cut", "jpeg-head", "png-zeros"],
)
def test_broken_pictures_are_data_errors(content, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg") as caught:
        images.decode_rgb(path)
    assert caught.value.remedy
    with pytest.raises(DataError) as same:
        images.decoded_size(path)
    assert str(same.value) == str(caught.value)


def test_missing_picture(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        images.decode_rgb(tmp_path / "no.jpg")
    with pytest.raises(DataError, match="cannot be opened"):
        images.size_of(tmp_path / "no.jpg")
