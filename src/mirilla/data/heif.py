"""HEIC photos, decoded by pi-heif (the extra 'heif') in a process of its own.

A damaged HEIC file can crash its decoder, and with it the process: here only the child ends, and the photo is an error.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from mirilla.data import isolated
from mirilla.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_REMEDY = "Replace the file, or remove it from the data set."


def size(content: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a HEIC photo upright, from its header.

    Raises:
        DataError: pi-heif is not installed, or the photo is broken.
    """
    return _run("size", content, name)[0]


def pixels(content: bytes, name: str) -> Image.Image:
    """A HEIC photo upright, in RGB.

    Raises:
        DataError: as `size`.
    """
    from PIL import Image

    (height, width), raw = _run("pixels", content, name)
    if len(raw) != height * width * 3:
        raise DataError(f"{name}: the HEIC photo is broken (its decoder stopped).", _REMEDY)
    return Image.frombytes("RGB", (width, height), raw)


def _run(what: str, content: bytes, name: str) -> tuple[tuple[int, int], bytes]:
    """(height, width) and the pixels, from a child process."""
    if importlib.util.find_spec("pi_heif") is None:
        raise DataError(
            f"{name}: a HEIC photo, as iPhones take them. It needs the package 'pi-heif', which is not installed.",
            "pip install 'mirilla[heif]', or save the photos as JPEG.",
        )
    try:
        line, _, raw = isolated.run(__name__, what, content=content).partition(b"\n")
    except isolated.ChildError as error:
        raise DataError(f"{name}: the HEIC photo is broken ({error}).", _REMEDY) from error
    height, width = map(int, line.split())
    return (height, width), raw


def _child(what: str) -> None:
    """Read a photo from standard input; write 'height width' and, if asked for, its pixels to standard output."""
    import io

    isolated.limit_memory()
    from pi_heif import HeifImageFile, options

    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    try:
        image = HeifImageFile(io.BytesIO(sys.stdin.buffer.read()))
        raw = image.convert("RGB").tobytes() if what == "pixels" else b""
    except Exception as error:
        sys.exit(str(error) or type(error).__name__)
    sys.stdout.buffer.write(f"{image.height} {image.width}\n".encode() + raw)


if __name__ == "__main__":
    _child(sys.argv[1])
