"""Pictures as they come over the kit's protocol: JPEG, or raw planes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError

MOST_PIXELS = 32_000_000  # of one picture: more than the kit's camera gives, and 96 MB once decoded


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """A JPEG -> (H, W, 3); grey becomes three equal channels; the EXIF rotation is not applied.

    Raises:
        DataError: it is no JPEG, is cut short, or has more than MOST_PIXELS.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.width * image.height > MOST_PIXELS:  # known from the header, before anything is decoded
                raise DataError(f"the picture has {image.width}x{image.height} pixels; at most {MOST_PIXELS} are read.")
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"the picture has more than {MOST_PIXELS} pixels.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"not a whole JPEG picture: {error}.") from error


def from_planes(data: bytes, height: int, width: int, depth: int) -> NDArray[np.uint8]:
    """Raw planes, red then green then blue, or one grey plane -> (H, W, 3).

    Raises:
        DataError: the sizes are not those of the data.
    """
    if depth not in (1, 3) or height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise DataError(
            f"a raw picture of height {height}, width {width} and depth {depth}; the rule is "
            f"positive sides, at most {MOST_PIXELS} pixels and a depth of 1 or 3."
        )
    if len(data) != height * width * depth:
        raise DataError(
            f"{len(data)} bytes for {depth} planes of {height}x{width}; {height * width * depth} are needed."
        )
    planes = np.frombuffer(data, np.uint8).reshape(depth, height, width)
    return np.ascontiguousarray(np.broadcast_to(planes, (3, height, width)).transpose(1, 2, 0))
