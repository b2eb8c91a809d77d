"""Picture files as a source of frames for the kit's program."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mirilla.board.kit.bonnet import Frame
from mirilla.board.kit.errors import KitError
from mirilla.board.kit.pictures import MAX_SIDE_PX, Pictures, find_pictures, read_picture, to_jpeg


def corners(height: int = 20, width: int = 40) -> Image.Image:
    """A picture whose corners are red, green, blue and white, clockwise from the top left."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, width // 2 :] = (0, 0, 255)
    pixels[height // 2 :, : width // 2] = (255, 255, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(tmp_path: Path, orientation: int):
    """The picture is transposed as Pillow's own exif_transpose does."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    corners().save(path, exif=exif, quality=95, subsampling=0)
    picture = read_picture(str(path), False, 256, 256)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert picture.size_px == expected.shape[:2]
    if orientation == 1:
        assert picture.content == path.read_bytes()  # unchanged
    else:
        np.testing.assert_array_equal(np.asarray(picture.content), expected)


@pytest.mark.parametrize(
    ("size", "canvas", "scale_yx"),
    [((40, 20), (40, 40), (0.5, 1.0)), ((20, 40), (40, 40), (1.0, 0.5)), ((30, 30), (30, 30), (1.0, 1.0))],
)
def test_letterbox_border(tmp_path: Path, size: tuple[int, int], canvas: tuple[int, int], scale_yx):
    Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "a.jpg")
    picture = read_picture(str(tmp_path / "a.jpg"), True, 256, 256)
    assert (picture.content.size, picture.scale_yx) == (canvas, scale_yx)
    assert picture.size_px == (size[1], size[0])
    assert picture.content.getpixel((0, 0)) == (9, 9, 9)
    if scale_yx != (1.0, 1.0):
        assert picture.content.getpixel((canvas[0] - 1, canvas[1] - 1)) == (0, 0, 0)


def test_large_pictures_are_reduced(tmp_path: Path):
    Image.new("RGB", (4 * MAX_SIDE_PX, MAX_SIDE_PX)).save(tmp_path / "a.png")
    picture = read_picture(str(tmp_path / "a.png"), False, 256, 256)
    assert picture.content.size == (MAX_SIDE_PX, MAX_SIDE_PX // 4)
    assert picture.size_px == (MAX_SIDE_PX, 4 * MAX_SIDE_PX)


def test_other_files(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read_picture(str(tmp_path / "a.jpg"), False, 256, 256)
    (tmp_path / "notes.txt").write_text("")
    assert find_pictures(str(tmp_path)) == [str(tmp_path / "a.jpg")]
    with pytest.raises(KitError, match="no such file or folder"):
        find_pictures(str(tmp_path / "none"))


class Bonnet:
    """Keeps what it gets, and detects nothing."""

    def __init__(self):
        self.sent = []

    def image_frame(self, picture, scale_yx):
        self.sent.append(picture)
        return Frame([], 1, 256, 256, picture, None)


@pytest.mark.parametrize("once", [True, False])
def test_order_and_repetition(tmp_path: Path, once: bool):
    for name, grey in (("b.png", 1), ("a.png", 2)):
        Image.new("L", (8, 6), grey).save(tmp_path / name)
    (tmp_path / "aa.png").write_bytes(b"broken")
    log: list[str] = []
    source = Pictures(str(tmp_path), SimpleNamespace(letterbox=False, height=256, width=256), once, log.append)
    bonnet, live = Bonnet(), []
    frames = [source.read(bonnet, live.append) for _ in range(4)]
    assert [frame and frame.name for frame in frames] == ["a.png", None, "b.png", None if once else "a.png"]
    assert [(frame.height, frame.width) for frame in frames if frame] == [(6, 8)] * len(bonnet.sent)
    assert [jpeg[:2] for jpeg in live] == [b"\xff\xd8"] * len(bonnet.sent)
    assert len(log) == 1
    assert "aa.png: cannot be read as a picture" in log[0]
    with Image.open(io.BytesIO(source.jpeg(frames[0]))) as image:
        assert image.size == (8, 6)


def test_to_jpeg_keeps_jpeg():
    assert to_jpeg(b"\xff\xd8 any bytes") == b"\xff\xd8 any bytes"
