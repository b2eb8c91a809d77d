"""Resizing in numpy and by the compiled kernel, against the original's outputs and against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla import resize
from mirilla.boxes import Letterbox
from mirilla.kernels.lazy import Compiled
from mirilla.parallel import in_order


@pytest.fixture(params=["numpy", "kernel"])
def way(request, monkeypatch):
    """Each test with this runs twice; the kernel from the first photo on."""
    if request.param == "kernel":
        pytest.importorskip("numba")
        from mirilla.kernels import resize as resize_kernel

        used = []
        monkeypatch.setattr(resize_kernel, "write", counted(resize_kernel.write, used))
        monkeypatch.setattr(resize, "_KERNEL", Compiled("mirilla.kernels.resize", "write", 1))
        yield request.param
        assert used
    else:
        monkeypatch.setattr(resize._KERNEL, "get", lambda: None)
        yield request.param


def counted(function, calls):
    def call(*arguments):
        calls.append(1)
        return function(*arguments)

    return call


def test_resizing_equals_tensorflows_bit_for_bit(way, shared):
    with (
        np.load(shared / "data/odapi/images.npz") as images,
        np.load(shared / "data/odapi/infer_b24.npz") as file,
    ):
        for tag in ("other_480x640", "other_411x233"):
            pixels, box = resize.to_input(images[tag], 256, 256)
            np.testing.assert_array_equal(pixels, file[f"{tag}|Preprocessor.sub"][0])
            assert box == Letterbox.squash()


def test_resizing_worked_by_hand():
    image = np.array([[[0], [10], [20], [30]]], np.uint8).repeat(2, 0)
    assert resize.bilinear(image, 1, 2)[0, :, 0].tolist() == [0, 20]
    assert resize.bilinear(image, 2, 8)[0, :, 0].tolist() == [0, 5, 10, 15, 20, 25, 30, 30]


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(100, 50, 64, 32), (50, 100, 32, 64), (64, 64, 64, 64), (3, 400, 1, 64), (128, 33, 64, 16)],
)
def test_letterbox_is_at_the_top_left_on_black(way, height, width, rows, columns):
    """33 columns of 128 rows at half size are 16.5: halves go to the even side, as tf.round has it."""
    image = np.full((height, width, 3), 255, np.uint8)
    pixels, box = resize.to_input(image, 64, 64, keep_aspect_ratio=True)
    assert (pixels[:rows, :columns] == 1).all()
    assert (pixels[rows:] == -1).all()
    assert (pixels[:, columns:] == -1).all()
    assert (box.scale_y, box.scale_x) == (rows / 64, columns / 64)


def naive_resize(image, height, width):
    """TensorFlow's legacy bilinear resize, pixel by pixel, in its own order and in float32."""
    one = np.float32
    out = np.empty((height, width, image.shape[2]), np.float32)
    source = image.astype(np.float32)
    scale_y, scale_x = one(image.shape[0]) / one(height), one(image.shape[1]) / one(width)
    for i in range(height):
        y = one(i) * scale_y
        top = min(int(y), image.shape[0] - 1)
        bottom, down = min(top + 1, image.shape[0] - 1), y - one(top)
        for j in range(width):
            x = one(j) * scale_x
            left = min(int(x), image.shape[1] - 1)
            right, across = min(left + 1, image.shape[1] - 1), x - one(left)
            upper = source[top, left] + (source[top, right] - source[top, left]) * across
            lower = source[bottom, left] + (source[bottom, right] - source[bottom, left]) * across
            out[i, j] = upper + (lower - upper) * down
    return out


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"),
    [(30, 40, 16, 16), (67, 45, 32, 32), (20, 200, 64, 32), (41, 23, 30, 30), (5, 7, 33, 64), (70, 64, 70, 64)],
)
def test_all_implementations_give_the_same_bits(way, rows, columns, height, width):
    """Columns first in whole numbers (the first two), and rows first in float32."""
    image = np.random.default_rng(rows).integers(0, 256, (rows, columns, 3), np.uint8)
    expected = naive_resize(image, height, width)
    for given in (image, np.ascontiguousarray(image[..., ::-1])[..., ::-1]):  # the second is not contiguous
        np.testing.assert_array_equal(resize.bilinear(given, height, width), expected)
        normalised = expected * resize.SCALE - resize.OFFSET
        given.flags.writeable = False  # as Pillow's are
        for out in (resize.empty(height, width), np.empty((height, width, 3), np.float32)):
            pixels, _ = resize.to_input(given, height, width, out=out)
            assert pixels is out
            np.testing.assert_array_equal(pixels, normalised)
    np.testing.assert_array_equal(resize.bilinear(image.astype(np.float64), height, width), expected)


@pytest.mark.parametrize("seed", range(40))
def test_any_size_has_the_same_bits(way, seed):
    """Odd sizes, far larger and far smaller, letterboxed: columns need not fill the kernel's sixteen lanes."""
    random = np.random.default_rng(seed)
    rows, columns = random.integers(1, 120, 2)
    height, width = random.integers(1, 90, 2)
    image = random.integers(0, 256, (rows, columns, 3), np.uint8)
    pixels, box = resize.to_input(image, height, width, keep_aspect_ratio=True)
    rows, columns = round(box.scale_y * height), round(box.scale_x * width)
    expected = np.full((height, width, 3), -1, np.float32)
    expected[:rows, :columns] = naive_resize(image, rows, columns) * resize.SCALE - resize.OFFSET
    np.testing.assert_array_equal(pixels, expected)


def test_a_reused_buffer_keeps_nothing_of_the_photo_before(way):
    out = resize.empty(32, 32)
    resize.to_input(np.full((40, 40, 3), 255, np.uint8), 32, 32, out=out)
    resize.to_input(np.full((40, 20, 3), 255, np.uint8), 32, 32, keep_aspect_ratio=True, out=out)
    assert (out[:, :16] == 1).all()
    assert (out[:, 16:] == -1).all()


def test_threads_resize_at_the_same_time(way):
    images = [np.random.default_rng(i).integers(0, 256, (50 + i % 3, 70, 3), np.uint8) for i in range(24)]
    for image, made in zip(images, in_order(lambda image: resize.bilinear(image, 32, 48), images, 4), strict=True):
        np.testing.assert_array_equal(made, naive_resize(image, 32, 48))
