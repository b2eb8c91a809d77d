"""The painter on the host: from the numbers of a drawn batch to its pixels, with OpenCV.

An example alone in its input is resampled exactly as the API's resizer does it, in float32 where there are effects.
Tiles are painted in 8 bits throughout: one warp for the picture, averaged where it becomes much smaller, and a fill
around it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.examples import Examples, Pictures, Pixels, Places
from mirilla.batches.noise_pools import cut, uniform_pool
from mirilla.batches.tiles import ANY_COLOUR, MEAN_COLOUR, NOISE, DrawnBatch, Fills, Sampling, sampling

MEAN_SIDE_PX = 128  # of the sample that a mean is taken over
FILL_SAMPLES = 16  # along each side of a picture, for a fill's mean colour

Line = tuple[float, float]  # slope and offset: row or column painted -> row or column of the picture


class HostPainter:
    """Paints one batch; its new pictures and mean colours are computed once.

    Args:
        pictures: of the training set.
    """

    def __init__(self, pictures: Pictures):
        self._pictures = pictures
        self._new: dict[tuple[int, int], Pixels] = {}
        self._means: dict[tuple[int, int], NDArray[np.float32]] = {}

    def paint(self, drawn: DrawnBatch, height: int, width: int) -> NDArray[np.uint8]:
        """(B, height, width, 3)."""
        images = np.zeros((drawn.inputs, height, width, 3), np.uint8)
        inputs, boxes = drawn.tiles.input.tolist(), drawn.tiles.box_px.tolist()
        if drawn.tiles.fills is None:
            for row, (place, (top, left, bottom, right)) in enumerate(zip(inputs, boxes, strict=True)):
                pixels = self.resample(drawn.examples, row, bottom - top, right - left)
                images[place, top:bottom, left:right] = to_uint8(pixels)
            return images
        self._paint_tiles(drawn, drawn.tiles.fills, images)
        if drawn.effects is not None:
            for row in range(drawn.inputs):
                images[row] = drawn.effects.paint(row, images[row])
        return images

    def picture(self, examples: Examples, row: int) -> Pixels:
        """The picture that an example's window refers to."""
        if examples.new_pictures is None:
            return self._pictures[int(examples.picture[row])]
        key = id(examples.new_pictures), row
        if key not in self._new:
            new = examples.new_pictures
            height, width = new.size_px[row].tolist()
            self._new[key] = np.ascontiguousarray(new.change(row, self.resample(new.shown, row, height, width)))
        return self._new[key]

    def resample(self, examples: Examples, row: int, height: int, width: int) -> Pixels:
        """An example as (height, width, 3) pixels: of its picture's type, or float32 where there are effects.

        Bilinear as TensorFlow 1 resizes: pixel i shows i * in / out, without half-pixel centres. Outside the picture
        its edge is repeated, until an effect paints over it.
        """
        shown_height, shown_width = examples.shown_px[row].tolist()
        top, left, _, _ = examples.window[row].tolist()
        turned = bool(examples.turned[row])
        start_y, start_x = (left, top) if turned else (top, left)
        along_y, along_x = (shown_height / height, float(start_y)), (shown_width / width, float(start_x))
        if examples.upside_down[row]:
            along_y = -along_y[0], start_y + shown_height - 1.0
        if examples.mirrored[row]:
            along_x = -along_x[0], start_x + shown_width - 1.0
        pixels = warp(self.picture(examples, row), along_y, along_x, turned, height, width)
        if not examples.effects:
            return pixels
        places = Places(along_y[1] + along_y[0] * np.arange(height), along_x[1] + along_x[0] * np.arange(width), turned)
        pixels = pixels.astype(np.float32)
        for effect in examples.effects:
            pixels = effect.paint(self, row, pixels, places)
        return pixels

    def mean_colour(self, examples: Examples, row: int) -> NDArray[np.float32]:
        """(3,) mean of what an example shows; exact while there are no effects and no padding."""
        key = id(examples), row
        if key not in self._means:
            self._means[key] = self._mean_colour(examples, row)
        return self._means[key]

    def _mean_colour(self, examples: Examples, row: int) -> NDArray[np.float32]:
        top, left, height, width = examples.window[row].tolist()
        tall, wide = examples.size_px[row].tolist()
        if not examples.effects and top >= 0 and left >= 0 and top + height <= tall and left + width <= wide:
            picture = self.picture(examples, row)
            part = np.ascontiguousarray(picture[top : top + height, left : left + width])
            return np.array(cv2.mean(part)[:3], np.float32)
        shown_height, shown_width = examples.shown_px[row].tolist()
        sample = self.resample(examples, row, min(shown_height, MEAN_SIDE_PX), min(shown_width, MEAN_SIDE_PX))
        return sample.mean((0, 1), dtype=np.float32)

    def _paint_tiles(self, drawn: DrawnBatch, fills: Fills, images: NDArray[np.uint8]) -> None:
        tiles, examples = drawn.tiles, drawn.examples
        samples = sampling(examples, tiles)
        columns = (tiles.input, tiles.box_px, samples.rows, samples.columns)
        for row, (place, box, (y0, y1), (x0, x1)) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            top, left, bottom, right = box
            picture = self.picture(examples, row)
            if [y0, x0, y1, x1] != box:
                paint_fill(fills, row, picture, images[place, top:bottom, left:right])
            if y0 < y1 and x0 < x1:
                paint_window(picture, examples, samples, row, images[place, y0:y1, x0:x1])


def warp(
    picture: Pixels,
    along_y: Line,
    along_x: Line,
    turned: bool,
    height: int,
    width: int,
    out: NDArray[np.uint8] | None = None,
) -> Pixels:
    """(height, width, 3) pixels of a picture, bilinear; rows of a turned one are the picture's columns."""
    if turned:
        matrix = np.array([[0, along_y[0], along_y[1]], [along_x[0], 0, along_x[1]]])
    else:
        matrix = np.array([[along_x[0], 0, along_x[1]], [0, along_y[0], along_y[1]]])
    return cv2.warpAffine(
        picture,
        matrix,
        (width, height),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def paint_window(
    picture: NDArray[np.uint8], examples: Examples, samples: Sampling, row: int, out: NDArray[np.uint8]
) -> None:
    """Paint what a tile shows of its picture over all of `out`, the rows and columns of the input that show it."""
    turned, factor = bool(examples.turned[row]), 2 ** int(samples.level[row])
    height, width = out.shape[:2]
    slope_y, offset_y = samples.along_y[row].tolist()
    slope_x, offset_x = samples.along_x[row].tolist()
    along_y = slope_y, offset_y + slope_y * int(samples.rows[row, 0])
    along_x = slope_x, offset_x + slope_x * int(samples.columns[row, 0])
    if factor > 1:
        top, left, window_height, window_width = examples.window[row].tolist()
        down, across = ((along_x, width), (along_y, height)) if turned else ((along_y, height), (along_x, width))
        y, tall = _span(*down, factor, top, window_height)
        x, wide = _span(*across, factor, left, window_width)
        if tall >= factor and wide >= factor:  # else there are too few pixels to average
            part = picture[y : y + tall, x : x + wide]
            picture = np.asarray(
                cv2.resize(part, (wide // factor, tall // factor), interpolation=cv2.INTER_AREA), np.uint8
            )
            start_y, start_x = (x, y) if turned else (y, x)
            along_y, along_x = _in_part(along_y, start_y, factor), _in_part(along_x, start_x, factor)
    warp(picture, along_y, along_x, turned, height, width, out)


def _span(along: Line, count: int, factor: int, start: int, side: int) -> tuple[int, int]:
    """First and number of the rows or columns of the picture to average, a multiple of the factor."""
    slope, offset = along
    ends = sorted((offset, offset + slope * (count - 1)))
    low = min(max(int(ends[0]) - factor, start), start + side - 1)
    return low, max((min(int(ends[1]) + 2 * factor, start + side) - low) // factor * factor, 0)


def _in_part(along: Line, start: int, factor: int) -> Line:
    """The same line in a part of the picture that begins at `start` and was made smaller by a factor."""
    return along[0] / factor, (along[1] - start - (factor - 1) / 2) / factor


def paint_fill(fills: Fills, row: int, picture: NDArray[np.uint8], tile: NDArray[np.uint8]) -> None:
    """Paint a fill over all of a tile (H, W, 3)."""
    kind = fills.kind[row]
    if kind == NOISE:
        y, x = fills.noise_start[row].tolist()
        tile[:] = cut(uniform_pool(), (y, x), *tile.shape[:2])
        return
    colour = np.zeros(3, np.uint8)
    if kind == MEAN_COLOUR:
        step_y, step_x = (max(side // FILL_SAMPLES, 1) for side in picture.shape[:2])
        colour = picture[::step_y, ::step_x].reshape(-1, 3).mean(0).astype(np.uint8)
    elif kind == ANY_COLOUR:
        colour = fills.colour[row]
    tile[:] = np.tile(colour, tile.shape[1]).reshape(1, -1, 3)  # row by row


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """Rounded, and cut at 0 and 255."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
