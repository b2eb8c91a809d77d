"""From a photo to a network's input, to the bit as TensorFlow's legacy bilinear resize does it.

Output pixel i looks at i * input side / output side, without half-pixel centres and without averaging when a
photo shrinks (ResizeBilinear with align_corners and half_pixel_centers false). Other resizers give other
scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirilla.boxes import Letterbox
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE

SCALE, OFFSET = np.float32(INPUT_SCALE), np.float32(-INPUT_OFFSET)  # normalised = SCALE * pixel - OFFSET


def bilinear(image: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Resize (H, W, C) of any number type -> (height, width, C) float32."""
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    top, bottom, down = _neighbours(image.shape[0], height)
    left, right, across = _neighbours(image.shape[1], width)
    across, down = across[None, :, None], down[:, None, None]

    def rows(index: NDArray[np.int64]) -> NDArray[np.float32]:
        lines = image[index]
        start = lines[:, left].astype(np.float32)
        end = lines[:, right].astype(np.float32)
        end -= start
        end *= across
        end += start
        return end

    upper, lower = rows(top), rows(bottom)
    lower -= upper
    lower *= down
    lower += upper
    return lower


def to_input(
    image: NDArray[np.uint8], height: int, width: int, *, keep_aspect_ratio: bool = False
) -> tuple[NDArray[np.float32], Letterbox]:
    """A photo as the network takes it.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        height, width: of the network's input.
        keep_aspect_ratio: False squashes the photo; True lays it at the top left, and black beside it.

    Returns:
        (height, width, 3) float32 in [-1, 1], and where the photo lies in it.
    """
    if keep_aspect_ratio:
        box = Letterbox.fit(image.shape[0], image.shape[1], height, width)
        pixels = np.zeros((height, width, image.shape[2]), np.float32)
        rows, columns = round(box.scale_y * height), round(box.scale_x * width)
        pixels[:rows, :columns] = bilinear(image, rows, columns)
    else:
        box = Letterbox.squash()
        pixels = bilinear(image, height, width)
    pixels *= SCALE
    pixels -= OFFSET
    return pixels, box


def _neighbours(side: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For every output pixel: the pixels before and after it, and how far it lies from the first."""
    scale = np.float32(side) / np.float32(out)
    place = np.arange(out, dtype=np.float32) * scale
    before = np.minimum(np.floor(place).astype(np.int64), side - 1)
    return before, np.minimum(before + 1, side - 1), place - before.astype(np.float32)
