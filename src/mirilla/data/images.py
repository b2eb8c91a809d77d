"""Read pictures: the size from the header, and the pixels upright (EXIF rotation applied)."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mirilla.data import heif
from mirilla.data.picture_kinds import HEAD_BYTES, HEIC, kind_of, refuse_raw, unreadable
from mirilla.errors import DataError

EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".jpe",
        ".jfif",
        ".mpo",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
    }
)
# The formats that are read. Pillow knows more, and runs Ghostscript for PostScript, whatever the file is called.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 100_000_000  # of a picture: a file of a few kilobytes can ask for gigabytes
MAX_PIXELS_VARIABLE = "MIRILLA_MAX_PIXELS"
_ORIENTATION = 0x0112
_BROKEN = (  # what Pillow raises for broken pictures, by format
    *(OSError, EOFError, ValueError, TypeError, SyntaxError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, struct.error, Image.DecompressionBombError),
)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """A picture's header.

    Attributes:
        format: "jpeg", "png", ...
        stored_px: (height, width) before the EXIF rotation.
        orientation: EXIF orientation, 1 to 8.
    """

    format: str
    stored_px: tuple[int, int]
    orientation: int

    @property
    def upright_px(self) -> tuple[int, int]:
        """(height, width) after the EXIF rotation."""
        height, width = self.stored_px
        return (width, height) if self.orientation >= 5 else (height, width)


def is_picture_name(name: str) -> bool:
    """Whether a file is a picture by its suffix; '._a.jpg' is not: macOS keeps the metadata of a.jpg in it."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not os.path.basename(name).startswith("._")


def header_of(picture: str | os.PathLike[str] | bytes) -> Header:
    """Read a picture's header only.

    Raises:
        DataError: the file is not a picture that can be read.
        OSError: the file cannot be opened.
    """
    try:
        with open_picture(picture) as image:
            return _header(image)
    except UnidentifiedImageError:
        return Header("heif", heif.size(_heic(picture), _name(picture)), 1)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _broken(picture, error) from error


def size_of(picture: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(height_px, width_px) of a picture after its EXIF rotation, from the header only.

    Raises:
        DataError: the file is missing, or is not a picture that can be read.
    """
    try:
        return header_of(picture).upright_px
    except OSError as error:
        raise DataError(
            f"{_name(picture)}: the picture cannot be opened: {os.strerror(error.errno or 0)}.",
            "Check the path and the file's permissions.",
        ) from error


def decode_rgb(picture: str | os.PathLike[str] | bytes) -> NDArray[np.uint8]:
    """Decode a picture upright.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is dropped, as TensorFlow drops it.

    Args:
        picture: encoded bytes (JPEG, PNG, ...), or the path of a file.

    Returns:
        (H, W, 3) uint8, after the EXIF rotation.

    Raises:
        DataError: the file is missing, truncated, broken, or not a picture.
    """
    with _loaded(picture) as (image, header):
        rgb = _rgb(image, picture)
        if header.orientation in _TRANSPOSE:
            rgb = rgb.transpose(_TRANSPOSE[header.orientation])
        return np.array(rgb, np.uint8)


def decoded_size(picture: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(height_px, width_px) of the array that `decode_rgb` returns, with the same errors; no array is made."""
    with _loaded(picture) as (image, header):
        if image.mode != "RGB":
            image = _rgb(image, picture)
        return (image.width, image.height) if header.orientation >= 5 else (image.height, image.width)


@contextlib.contextmanager
def _loaded(picture: str | os.PathLike[str] | bytes) -> Iterator[tuple[Image.Image, Header]]:
    """A fully decoded picture; all errors become a DataError."""
    try:
        with _open_any(picture) as image:
            header = _header(image)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
                yield image, header
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{_name(picture)}: no such file.", "Check the path.") from error
    except PermissionError as error:
        raise DataError(f"{_name(picture)}: the picture may not be read.", "Change its permissions.") from error
    except _BROKEN as error:
        raise _broken(picture, error) from error


def _broken(picture: object, error: Exception) -> DataError:
    return DataError(
        f"{_name(picture)}: the picture is broken or cut short ({error}).",
        "Replace the file, or remove it from the data set.",
    )


def to_upright(boxes_yxyx: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """Boxes (N, 4) normalised to the stored picture -> normalised to the picture turned by EXIF `orientation`."""
    return _turned(boxes_yxyx, orientation)


def to_stored(boxes_yxyx: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    """The inverse of `to_upright`."""
    return _turned(boxes_yxyx, {6: 8, 8: 6}.get(orientation, orientation))


def _turned(boxes: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    y0, x0, y1, x1 = boxes.T
    columns = {
        2: (y0, 1 - x1, y1, 1 - x0),
        3: (1 - y1, 1 - x1, 1 - y0, 1 - x0),
        4: (1 - y1, x0, 1 - y0, x1),
        5: (x0, y0, x1, y1),
        6: (x0, 1 - y1, x1, 1 - y0),  # shown after a quarter turn clockwise
        7: (1 - x1, 1 - y1, 1 - x0, 1 - y0),
        8: (1 - x1, y0, 1 - x0, y1),
    }.get(orientation)
    return boxes.copy() if columns is None else np.stack(columns, 1)


def _open_any(picture: str | os.PathLike[str] | bytes) -> Image.Image:
    """Open a picture; a HEIC photo is decoded."""
    try:
        return open_picture(picture)
    except UnidentifiedImageError:
        content = _heic(picture)
        require_size(*heif.size(content, _name(picture)), _name(picture))
        return heif.pixels(content, _name(picture))


def _heic(picture: str | os.PathLike[str] | bytes) -> bytes:
    """The bytes of a HEIC photo.

    Raises:
        DataError: it is something else.
    """
    if isinstance(picture, bytes):
        head, size = picture[:HEAD_BYTES], len(picture)
    else:
        with open(picture, "rb") as file:
            head, size = file.read(HEAD_BYTES), os.path.getsize(picture)
    if kind_of(head) != HEIC:
        raise unreadable(head, size, _name(picture))
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def open_picture(picture: str | os.PathLike[str] | bytes) -> Image.Image:
    """Open a picture of one of the formats that are read; its pixels are not decoded yet.

    Raises:
        DataError: the header cannot be used, or the picture is too large.
        UnidentifiedImageError: it is something else.
        OSError: the file cannot be opened.
    """
    refuse_raw(picture)
    source = io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(source, formats=_readable_formats())
    except UnidentifiedImageError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{_name(picture)}: the picture's header cannot be used ({error}).",
            "Replace the file with a smaller or intact one.",
        ) from error
    require_size(image.height, image.width, _name(picture))
    return image


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    """_FORMATS without those that this Pillow does not have."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def require_size(height_px: int, width_px: int, name: str) -> None:
    """Refuse a picture with too many pixels; the environment variable MIRILLA_MAX_PIXELS replaces the limit.

    Raises:
        DataError: it has more.
    """
    try:
        limit = int(os.environ.get(MAX_PIXELS_VARIABLE, MAX_PIXELS))
    except ValueError:
        limit = MAX_PIXELS
    if height_px * width_px > limit:
        raise DataError(
            f"{name}: {width_px} x {height_px} pixels; at most {limit:,} are read.",
            f"Make the picture smaller, or set {MAX_PIXELS_VARIABLE} to a higher number of pixels.",
        )


def _header(image: Image.Image) -> Header:
    name = (image.format or "heif").lower()
    name = {"mpo": "jpeg"}.get(name, name)
    orientation = 1
    if name == "tiff":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()  # Pillow turns TIFF pictures upright itself
    else:
        exif = image.info.get("exif") or (_png_exif(image) if name == "png" else None)
        if exif:
            orientation = _orientation(exif)
    return Header(name, (image.height, image.width), orientation)


def _orientation(exif: bytes) -> int:
    """The orientation tag of an EXIF block (TIFF 6.0 layout, after an optional 'Exif\\0\\0'); 1 if it has none."""
    try:
        data = Image.Exif()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data.load(exif)
            value = int(data.get(_ORIENTATION, 1))
    except Exception:
        return 1  # viewers ignore a broken EXIF block too
    return value if 1 <= value <= 8 else 1


def _png_exif(image: Image.Image) -> bytes | None:
    """The eXIf chunk of a PNG, which may follow the pixels; they are not decoded."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    position = file.tell()
    try:
        file.seek(8)
        while True:
            head = file.read(8)
            if len(head) < 8:
                return None
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(length)
            if kind == b"IEND":
                return None
            file.seek(length + 4, os.SEEK_CUR)
    finally:
        file.seek(position)


def _rgb(image: Image.Image, picture: object) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey (Pillow's I;16 or I): keep the high byte, as libpng does
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8), "L").convert("RGB")
    if image.mode == "F":
        raise DataError(
            f"{_name(picture)}: floating-point pictures are not supported.",
            "Save it as an 8-bit JPEG or PNG.",
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _name(picture: object) -> str:
    return f"picture of {len(picture)} bytes" if isinstance(picture, bytes) else str(picture)
