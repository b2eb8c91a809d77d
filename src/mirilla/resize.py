"""Resize photos to a network's input like TensorFlow's legacy bilinear resize, bit for bit.

Output pixel i samples the photo at i * input side / output side, without half-pixel centres and without averaging
when a photo shrinks (ResizeBilinear with align_corners and half_pixel_centers false). Other resizers give other
scores.

The implementation is numpy. If Numba is installed, a compiled kernel (`mirilla.kernels.resize`) replaces it from a
process's KERNEL_FROM-th photo on; the results are identical.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mirilla.boxes import Letterbox
from mirilla.kernels.lazy import Compiled
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE

SCALE, OFFSET = np.float32(INPUT_SCALE), np.float32(-INPUT_OFFSET)  # normalised = SCALE * pixel - OFFSET
KERNEL_FROM = 64  # photos; from here on, the time to import Numba is small compared with the work
MAX_RESAMPLERS = 8  # sizes of photos whose resampler a thread keeps
BLOCK_ROWS = 64  # output rows computed at once, so that a block stays in the second-level cache

Floats = NDArray[np.float32]
_NORMALISED, _UNCHANGED = np.array([SCALE, OFFSET]), np.array([1, 0], np.float32)  # scale and offset
_KERNEL: Compiled[Callable[..., None]] = Compiled("mirilla.kernels.resize", "write", KERNEL_FROM)


def empty(height: int, width: int, channels: int = 3) -> Floats:
    """(height, width, channels), stored channel by channel: engines read it without a transposition."""
    return np.empty((channels, height, width), np.float32).transpose(1, 2, 0)


def bilinear(image: NDArray, height: int, width: int) -> Floats:
    """Resize (H, W, C) of any number type to (height, width, C) float32."""
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
    out: Floats | None = None,
) -> tuple[Floats, Letterbox]:
    """Resize and normalise a photo for the network.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        height, width: of the network's input.
        keep_aspect_ratio: False squashes the photo; True places it at the top left, on black.
        out: (height, width, 3) float32, written to and returned; fastest if made by `empty`, the default.

    Returns:
        (height, width, 3) float32 in [-1, 1], and the photo's place in it.
    """
    pixels = empty(height, width, image.shape[2]) if out is None else out
    if not keep_aspect_ratio:
        _write(image, pixels, normalise=True)
        return pixels, Letterbox.squash()
    letterbox = Letterbox.fit(image.shape[0], image.shape[1], height, width)
    rows, columns = round(letterbox.scale_y * height), round(letterbox.scale_x * width)
    pixels[rows:] = pixels[:, columns:] = -OFFSET  # black
    _write(image, pixels[:rows, :columns], normalise=True)
    return pixels, letterbox


def _write(image: NDArray, out: Floats, *, normalise: bool) -> None:
    """Resize into `out` (height, width, C), which may be a view."""
    height, width = out.shape[:2]
    photo = image.dtype == np.uint8 and image.shape[2] == 3
    kernel = _KERNEL.get() if photo and out.strides[1] == out.itemsize else None
    if kernel is not None:
        kernel(
            np.ascontiguousarray(image).reshape(len(image), -1),
            *_neighbours(image.shape[0], height),
            *_neighbours(image.shape[1], width),
            _NORMALISED if normalise else _UNCHANGED,
            out.transpose(2, 0, 1),
        )
    elif image.shape[:2] == (height, width):
        out[...] = image
        if normalise:
            out *= SCALE
            out -= OFFSET
    else:
        _RESAMPLERS.get(image, height, width).write(image, out, normalise)


class _Resampler:
    """Resizes photos of one size: holds the indices of the pixels to read, and working memory.

    TensorFlow interpolates along rows first, in float32. If no fraction has more than 8 bits, as for every photo
    that is resized to 256, 128 or 64 pixels, nothing is ever rounded (a pixel's 8 bits and two fractions fit
    float32's 24), so every order of operations gives the same bits. Then columns are interpolated first, in
    integers of 1/256, unless the photo is much wider than the input: that reads rows of the photo in order.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, height: int, width: int):
        rows, columns, channels = shape
        top, bottom, down = _neighbours(rows, height)
        left, right, across = _neighbours(columns, width)
        offsets = np.arange(channels)[:, None]  # the output is stored channel by channel, as by `empty`
        self.left, self.right = ((index * channels + offsets).reshape(-1) for index in (left, right))
        self.across = np.tile(across, channels)
        exact = dtype == np.uint8 and not any((fraction * 256 % 1).any() for fraction in (down, across))
        self.columns_first = exact and columns <= 3 * width
        if self.columns_first:
            fraction = (down * 256).astype(np.uint16)
            above, below = 256 - fraction, fraction
        else:
            above, below = down, down
        self.blocks = []
        for first in range(0, height, BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            lines = np.concatenate([top[block], bottom[block]])
            self.blocks.append((block, lines, np.concatenate([above[block], below[block]])[:, None]))
        line_count = 2 * min(BLOCK_ROWS, height)
        self.lines = np.empty((line_count, columns * channels), dtype)
        self.wide = np.empty((line_count if self.columns_first else 0, columns * channels), np.uint16)
        self.taken = np.empty((line_count, width * channels), np.uint16 if self.columns_first else dtype)
        self.start, self.end = np.empty((2, line_count, width * channels), np.float32)

    def write(self, image: NDArray, out: Floats, normalise: bool) -> None:
        source = image.reshape(image.shape[0], -1)
        scale = SCALE if normalise else np.float32(1)
        for rows, index, down in self.blocks:
            lines = source.take(index, axis=0, out=self.lines[: len(index)], mode="clip")
            if self.columns_first:
                resized = self._columns_first(lines, down)
                resized *= scale / 256  # a power of two: the product has the same bits as in two steps
            else:
                resized = self._rows_first(lines, down)
                resized *= scale
            resized = resized.reshape(len(resized), out.shape[2], -1).transpose(0, 2, 1)
            if normalise:
                np.subtract(resized, OFFSET, out=out[rows])
            else:
                out[rows] = resized

    def _rows_first(self, lines: NDArray, down: NDArray) -> Floats:
        """Interpolate along rows, then columns; `lines` are the upper neighbours of a block's rows, then the lower."""
        half = len(lines) // 2
        across = self._across(lines)
        return _interpolate(across[:half], across[half:], down[:half])

    def _columns_first(self, lines: NDArray, down: NDArray) -> Floats:
        """256 times the result, exactly."""
        wide, half = self.wide[: len(lines)], len(lines) // 2
        wide[...] = lines
        wide *= down
        wide[:half] += wide[half:]
        return self._across(wide[:half])

    def _across(self, lines: NDArray) -> Floats:
        """Interpolate along rows."""
        start, end, taken = (memory[: len(lines)] for memory in (self.start, self.end, self.taken))
        start[...] = lines.take(self.left, axis=1, out=taken, mode="clip")
        end[...] = lines.take(self.right, axis=1, out=taken, mode="clip")
        return _interpolate(start, end, self.across)


class _Resamplers(threading.local):
    """The thread's resamplers, the most recently used last."""

    def __init__(self):
        self.by_size: OrderedDict[tuple[int | str, ...], _Resampler] = OrderedDict()

    def get(self, image: NDArray, height: int, width: int) -> _Resampler:
        key = (*image.shape, image.dtype.str, height, width)
        resampler = self.by_size.get(key)
        if resampler is None:
            resampler = self.by_size[key] = _Resampler(image.shape, image.dtype, height, width)
            if len(self.by_size) > MAX_RESAMPLERS:
                self.by_size.popitem(last=False)
        else:
            self.by_size.move_to_end(key)
        return resampler


_RESAMPLERS = _Resamplers()


def _interpolate(start: Floats, end: Floats, fraction: Floats) -> Floats:
    """start + (end - start) * fraction, in TensorFlow's order of operations; overwrites `end`."""
    end -= start
    end *= fraction
    end += start
    return end


@lru_cache(maxsize=64)
def _neighbours(side: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For every output pixel: the indices of the pixels before and after it, and the fraction of the way between."""
    scale = np.float32(side) / np.float32(out)
    position = np.arange(out, dtype=np.float32) * scale
    before = np.minimum(np.floor(position).astype(np.int64), side - 1)
    return before, np.minimum(before + 1, side - 1), position - before.astype(np.float32)
