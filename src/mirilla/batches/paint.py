"""A window of a view drawn into a field of the network's input: one warp for the picture, a fill around it.

Unlike `view.resample`, which is exact to what the API's input does, this draws in 8 bits throughout, averages
where pictures become much smaller, and only touches the pixels that are seen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.crop import Window
from mirilla.batches.example import View

POOL_PX = 640  # side of the pools that random pixels are cut from
# What surrounds a picture that does not fill its field, as shares of all fills.
MEAN_COLOUR, ANY_COLOUR, BLACK, NOISE = range(4)
FILL_SHARES = (0.4, 0.2, 0.3, 0.1)
FILL_ENDS = tuple(np.cumsum(FILL_SHARES).tolist())
MOST_SKIPPED = 4.0  # pixels are averaged where more than these would become one, even where it is not asked for


@dataclass(frozen=True)
class Fill:
    """What lies around a picture: a colour (3,), black at first, or noise about it.

    noise: (row, column) at which the noise is cut from its pool.
    """

    colour: tuple[int, int, int] = (0, 0, 0)
    noise: tuple[int, int] | None = None

    @classmethod
    def random(cls, rng: np.random.Generator, view: View) -> Fill:
        """A fill of a kind drawn by FILL_SHARES; the mean colour is that of a sparse sample of the picture."""
        kind, noise = int(np.searchsorted(FILL_ENDS, rng.random(), "right")), rng.integers(0, POOL_PX, 2)
        if kind == MEAN_COLOUR:
            sample = view.picture[:: max(view.picture.shape[0] // 16, 1), :: max(view.picture.shape[1] // 16, 1)]
            red, green, blue = sample.reshape(-1, 3).mean(0)
            return cls((int(red), int(green), int(blue)))
        if kind == ANY_COLOUR:
            red, green, blue = rng.integers(0, 256, 3)
            return cls((int(red), int(green), int(blue)))
        return cls() if kind == BLACK else cls(noise=(int(noise[0]), int(noise[1])))

    def paint(self, field: NDArray[np.uint8]) -> None:
        if self.noise is None and self.colour == (0, 0, 0):
            field[:] = 0
        elif self.noise is None:
            field[:] = np.tile(np.array(self.colour, np.uint8), field.shape[1]).reshape(1, -1, 3)  # row by row
        else:
            field[:] = from_pool(uniform_pool(), self.noise, field.shape[0], field.shape[1])


@functools.cache
def uniform_pool() -> NDArray[np.uint8]:
    """(POOL_PX, POOL_PX, 3), every value as likely."""
    return np.random.default_rng(0).integers(0, 256, (POOL_PX, POOL_PX, 3), dtype=np.uint8)


def from_pool(pool: NDArray[np.uint8], at: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) cut from a pool; what is larger than the pool repeats it."""
    tall, wide = pool.shape[:2]
    if height <= tall and width <= wide:
        y, x = at[0] % (tall - height + 1), at[1] % (wide - width + 1)
        return pool[y : y + height, x : x + width]
    rows, columns = (np.arange(height) + at[0]) % tall, (np.arange(width) + at[1]) % wide
    return pool[rows[:, None], columns]


def draw(view: View, window: Window, field: NDArray[np.uint8], fill: Fill, smooth: bool = True) -> None:
    """Draw a window (top, left, height, width) of what a view shows over all of a field (H, W, 3).

    The view has a picture of uint8, no effects, and shows nothing from outside its picture (`drawable`).
    Sampling is that of TensorFlow 1's resizer where pixels become fewer, and centred where they become more:
    its lean to the lower right would grow with the enlargement, which no detector's input has.

    Args:
        smooth: average where several pixels become one, rather than skip some, as the API's resizer does.
    """
    top, left, height, width = window
    tall, wide = view.size_px
    scale_y, scale_x = height / field.shape[0], width / field.shape[1]
    rows, columns = _seen(top, scale_y, tall, field.shape[0]), _seen(left, scale_x, wide, field.shape[1])
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        fill.paint(field)
        return
    if rows != (0, field.shape[0]) or columns != (0, field.shape[1]):
        fill.paint(field)
    along_y = _along(top, scale_y, rows[0], tall, view.orientation.upside_down)
    along_x = _along(left, scale_x, columns[0], wide, view.orientation.mirrored)
    size = rows[1] - rows[0], columns[1] - columns[0]
    picture, offset, factor = _halved(view, along_y, along_x, size, smooth)
    if view.orientation.turned:
        along_y, along_x = _moved(along_y, offset[1], factor), _moved(along_x, offset[0], factor)
        matrix = np.array([[0, along_y[0], along_y[1]], [along_x[0], 0, along_x[1]]])
    else:
        along_y, along_x = _moved(along_y, offset[0], factor), _moved(along_x, offset[1], factor)
        matrix = np.array([[along_x[0], 0, along_x[1]], [0, along_y[0], along_y[1]]])
    shown = field[rows[0] : rows[1], columns[0] : columns[1]]
    cv2.warpAffine(
        picture,
        matrix,
        (size[1], size[0]),
        dst=shown,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def drawable(view: View) -> View:
    """The view itself if `draw` can take it, else one of a new picture, with all that was noted done."""
    top, left, height, width = view.window
    tall, wide = view.picture.shape[:2]
    inside = top >= 0 and left >= 0 and top + height <= tall and left + width <= wide
    if inside and not view.effects and view.picture.dtype == np.uint8:
        return view
    return view.flattened().in_bytes()


def _seen(start: int, scale: float, side: int, out: int) -> tuple[int, int]:
    """First and last but one of the field's rows or columns whose centres lie in the picture."""
    first, last = (int(np.ceil((edge - start) / scale - 0.5)) for edge in (0, side))
    return min(max(first, 0), out), min(max(last, 0), out)


def _along(start: int, scale: float, first: int, side: int, backwards: bool) -> tuple[float, float]:
    """(slope, offset): field row or column i from `first` on -> row or column of what is shown."""
    offset = start + first * scale + min(scale - 1, 0.0) / 2
    return (-scale, side - 1 - offset) if backwards else (scale, offset)


def _moved(along: tuple[float, float], offset: int, factor: int) -> tuple[float, float]:
    """The same in a picture cut off at `offset` and made smaller by a factor."""
    return along[0] / factor, (along[1] - offset - (factor - 1) / 2) / factor


def _halved(
    view: View, along_y: tuple[float, float], along_x: tuple[float, float], size: tuple[int, int], smooth: bool
) -> tuple[NDArray[np.uint8], tuple[int, int], int]:
    """The picture from the pixel on that the view starts at, halved by averaging until about a pixel or two
    become one; where it starts in what is shown (in the picture's directions), and by which factor it is smaller.
    """
    top, left, height, width = view.window
    many = np.sqrt(abs(along_y[0] * along_x[0]))
    factor = 1
    while many / factor >= (2.0 if smooth else MOST_SKIPPED):
        factor *= 2
    if factor == 1:
        return np.ascontiguousarray(view.picture), (-top, -left), 1
    spans = []
    down, across = (along_x, along_y) if view.orientation.turned else (along_y, along_x)
    counts = size[::-1] if view.orientation.turned else size
    for (slope, offset), count, side in zip((down, across), counts, (height, width), strict=True):
        ends = sorted((offset, offset + slope * (count - 1)))
        low = min(max(int(ends[0]) - factor, 0), side - 1)
        many_px = max((min(int(ends[1]) + 2 * factor, side) - low) // factor * factor, 0)
        spans.append((low, many_px))
    (y, tall), (x, wide) = spans
    if tall < factor or wide < factor:  # too few pixels to average
        return np.ascontiguousarray(view.picture), (-top, -left), 1
    part = view.picture[top + y : top + y + tall, left + x : left + x + wide]
    part = cv2.resize(part, (wide // factor, tall // factor), interpolation=cv2.INTER_AREA)
    return part, (y, x), factor
