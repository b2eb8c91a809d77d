"""From a photo to a network's input, to the bit as TensorFlow's legacy bilinear resize does it.

Output pixel i looks at i * input side / output side, without half-pixel centres and without averaging when a
photo shrinks (ResizeBilinear with align_corners and half_pixel_centers false). Other resizers give other
scores.

numpy does it; where Numba is installed, a compiled kernel (`mirilla.kernels.resize`) does from a process's
KERNEL_FROM-th photo on, with the same bits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mirilla.boxes import Letterbox
from mirilla.kernels.lazy import Compiled
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE

SCALE, OFFSET = np.float32(INPUT_SCALE), np.float32(-INPUT_OFFSET)  # normalised = SCALE * pixel - OFFSET


KERNEL_FROM = 64  # photos: a folder or a film, where the time to import Numba no longer counts
_KERNEL = Compiled("mirilla.kernels.resize", "write", KERNEL_FROM)


def empty(height: int, width: int, channels: int = 3) -> NDArray[np.float32]:
    """(height, width, channels) in memory channel by channel, as engines read it without a transposition."""
    return np.empty((channels, height, width), np.float32).transpose(1, 2, 0)


def bilinear(image: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Resize (H, W, C) of any number type -> (height, width, C) float32."""
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    out = empty(height, width, image.shape[2])
    _write(image, out, normalise=False)
    return out


def to_input(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    keep_aspect_ratio: bool = False,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Letterbox]:
    """A photo as the network takes it.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        height, width: of the network's input.
        keep_aspect_ratio: False squashes the photo; True lays it at the top left, and black beside it.
        out: (height, width, 3) float32, written to and returned; fastest as `empty` makes it, which is the default.

    Returns:
        (height, width, 3) float32 in [-1, 1], and where the photo lies in it.
    """
    pixels = empty(height, width, image.shape[2]) if out is None else out
    if not keep_aspect_ratio:
        _write(image, pixels, normalise=True)
        return pixels, Letterbox.squash()
    box = Letterbox.fit(image.shape[0], image.shape[1], height, width)
    rows, columns = round(box.scale_y * height), round(box.scale_x * width)
    pixels[rows:] = pixels[:, columns:] = -OFFSET  # black
    _write(image, pixels[:rows, :columns], normalise=True)
    return pixels, box


def _write(image: NDArray, out: NDArray[np.float32], *, normalise: bool) -> None:
    """Resize into `out` (height, width, C), which may be any view."""
    height, width = out.shape[:2]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        kernel = _KERNEL.get()
        if kernel is not None and out.strides[1] == out.itemsize:
            kernel(
                np.ascontiguousarray(image).reshape(len(image), -1),
                *_neighbours(image.shape[0], height),
                *_neighbours(image.shape[1], width),
                _NORMALISED if normalise else _AS_IT_IS,
                out.transpose(2, 0, 1),
            )
            return
    if image.shape[:2] == (height, width):
        out[...] = image
        if normalise:
            out *= SCALE
            out -= OFFSET
        return
    plans = _LOCAL.__dict__.setdefault("plans", OrderedDict())
    key = (*image.shape, image.dtype.str, height, width)
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = _Plan(image.shape, image.dtype, height, width)
        if len(plans) > PLANS:
            plans.popitem(last=False)
    else:
        plans.move_to_end(key)
    plan.write(image, out, normalise)


_NORMALISED, _AS_IT_IS = np.array([SCALE, OFFSET]), np.array([1, 0], np.float32)


PLANS = 8  # sizes of photos whose plans a thread keeps
BLOCK = 64  # output rows at once: what is worked on stays in the second-level cache
_LOCAL = threading.local()


class _Plan:
    """What is the same for all photos of one size: which pixels are read, and memory to work in.

    TensorFlow interpolates along rows first, in float32. Where no fraction has more than 8 bits, as with every
    photo that goes to 256, 128 or 64 pixels, nothing is ever rounded (a pixel's 8 bits and two fractions fit
    float32's 24), so every way of computing gives the same bits. Then columns go first, in whole numbers of
    1/256, unless the photo is much wider than the input: that reads a photo's rows as they lie.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, height: int, width: int):
        rows, columns, channels = shape
        top, bottom, down = _neighbours(rows, height)
        left, right, across = _neighbours(columns, width)
        values = np.arange(channels)[:, None]  # channel by channel, as `empty` lays them
        self.left, self.right = ((one * channels + values).reshape(-1) for one in (left, right))
        self.across = np.tile(across, channels)
        eight_bits = dtype == np.uint8 and not any((one * 256 % 1).any() for one in (down, across))
        self.columns_first = eight_bits and columns <= 3 * width
        if self.columns_first:
            share = (down * 256).astype(np.uint16)
            above, below = 256 - share, share
        else:
            above, below = down, down
        parts = [slice(i, i + BLOCK) for i in range(0, height, BLOCK)]
        self.blocks = [
            (part, np.concatenate([top[part], bottom[part]]), np.concatenate([above[part], below[part]])[:, None])
            for part in parts
        ]
        most = 2 * min(BLOCK, height)
        self.lines = np.empty((most, columns * channels), dtype)
        self.wide = np.empty((most if self.columns_first else 0, columns * channels), np.uint16)
        self.taken = np.empty((most, width * channels), np.uint16 if self.columns_first else dtype)
        self.start, self.end = np.empty((2, most, width * channels), np.float32)

    def write(self, image: NDArray, out: NDArray[np.float32], normalise: bool) -> None:
        source = image.reshape(image.shape[0], -1)
        scale = SCALE if normalise else np.float32(1)
        for rows, index, down in self.blocks:
            lines = source.take(index, axis=0, out=self.lines[: len(index)], mode="clip")
            if self.columns_first:
                made = self._columns_first(lines, down)
                made *= scale / 256  # a power of two: the product has the same bits as in two steps
            else:
                made = self._rows_first(lines, down)
                if normalise:
                    made *= scale
            made = made.reshape(len(made), out.shape[2], -1).transpose(0, 2, 1)
            if normalise:
                np.subtract(made, OFFSET, out=out[rows])
            else:
                out[rows] = made

    def _rows_first(self, lines: NDArray, down: NDArray) -> NDArray[np.float32]:
        """`lines` holds the upper neighbours of a block's rows, then the lower ones."""
        half = len(lines) // 2
        between = self._across(lines)
        return _between(between[:half], between[half:], down[:half])

    def _columns_first(self, lines: NDArray, down: NDArray) -> NDArray[np.float32]:
        wide, half = self.wide[: len(lines)], len(lines) // 2
        wide[...] = lines
        wide *= down
        wide[:half] += wide[half:]
        return self._across(wide[:half])

    def _across(self, lines: NDArray) -> NDArray[np.float32]:
        """Interpolate along rows."""
        start, end, taken = (one[: len(lines)] for one in (self.start, self.end, self.taken))
        start[...] = lines.take(self.left, axis=1, out=taken, mode="clip")
        end[...] = lines.take(self.right, axis=1, out=taken, mode="clip")
        return _between(start, end, self.across)


def _between(start: NDArray[np.float32], end: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """start + (end - start) * share, in TensorFlow's order; written over `end`."""
    end -= start
    end *= share
    end += start
    return end


@lru_cache(maxsize=64)
def _neighbours(side: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For every output pixel: the pixels before and after it, and how far it lies from the first."""
    scale = np.float32(side) / np.float32(out)
    place = np.arange(out, dtype=np.float32) * scale
    before = np.minimum(np.floor(place).astype(np.int64), side - 1)
    return before, np.minimum(before + 1, side - 1), place - before.astype(np.float32)
