"""From pixels to a network's input, as the emulator does it (how the bonnet resizes is not known)."""

from __future__ import annotations

import io
import warnings

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here, before anything is decoded
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(f"the picture has {image.width}x{image.height} pixels; "
                                    f"at most {MOST_PIXELS} are read.")
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a whole JPEG picture: {error}.") from error


def from_planes(data: bytes, height: int, width: int, depth: int) -> NDArray[np.uint8]:
    """Raw planes, red then green then blue, or one grey plane -> (H, W, 3).

    Raises:
        DataError: the sizes are not those of the data.
    """
    if depth not in (1, 3) or height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise DataError(f"a raw picture of height {height}, width {width} and depth {depth}; the rule is "
                        f"positive sides, at most {MOST_PIXELS} pixels and a depth of 1 or 3.")
    if len(data) != height * width * depth:
        raise DataError(f"{len(data)} bytes for {depth} planes of {height}x{width}; "
                        f"{height * width * depth} are needed.")
    planes = np.frombuffer(data, np.uint8).reshape(depth, height, width)
    return np.ascontiguousarray(np.broadcast_to(planes, (3, height, width)).transpose(1, 2, 0))


def resize(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear resize (H, W, C) -> (height, width, C) float32, with the corners' grid of TensorFlow 1.

    Output pixel i looks at i * input side / output side, without averaging when a photo shrinks: the
    preprocessing that the detectors were trained with.
    """
    if rgb.shape[:2] == (height, width):
        return rgb.astype(np.float32)
    top, bottom, down = _neighbours(rgb.shape[0], height)
    left, right, across = _neighbours(rgb.shape[1], width)

    def row(lines: NDArray[np.int64]) -> NDArray:
        part = rgb[lines]
        start = part[:, left].astype(np.float32)
        return start + (part[:, right] - start) * across[None, :, None]

    upper = row(top)
    return (upper + (row(bottom) - upper) * down[:, None, None]).astype(np.float32, copy=False)


def _neighbours(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    at = (np.arange(wanted, dtype=np.float32) * np.float32(size / wanted)).astype(np.float32)
    low = np.minimum(at.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def normalise(pixels: NDArray, mean: float, stddev: float) -> NDArray[np.float32]:
    """(pixel - mean) / stddev, float32."""
    return (pixels.astype(np.float32, copy=False) - np.float32(mean)) / np.float32(stddev)
