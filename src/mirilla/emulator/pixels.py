"""Pictures in the formats of the kit's protocol: JPEG, or raw planes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError

MAX_PIXELS = 32_000_000  # more than a picture of the kit's camera has; 96 MB when decoded


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to (H, W, 3); grey becomes three equal channels. The EXIF rotation is not applied.

    Raises:
        DataError: the bytes are not a JPEG or are cut short, or the picture has more than MAX_PIXELS.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:  # from the header, before decoding
                raise DataError(
                    f"the picture has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are allowed."
                )
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"the picture has more than {MAX_PIXELS} pixels.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"not a complete JPEG: {error}.") from error


def from_planes(data: bytes, height: int, width: int, depth: int) -> NDArray[np.uint8]:
    """(H, W, 3) from raw planes: red, green and blue, or a single grey plane.

    Raises:
        DataError: the sizes do not match the data.
    """
    if depth not in (1, 3) or height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise DataError(
            f"a raw picture of height {height}, width {width} and depth {depth}; the rule is positive sides, at most "
            f"{MAX_PIXELS} pixels and a depth of 1 or 3."
        )
    expected = height * width * depth
    if len(data) != expected:
        raise DataError(f"{len(data)} bytes for {depth} planes of {height}x{width}; {expected} are needed.")
    planes = np.frombuffer(data, np.uint8).reshape(depth, height, width)
    return np.ascontiguousarray(np.broadcast_to(planes, (3, height, width)).transpose(1, 2, 0))
