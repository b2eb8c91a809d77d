"""What a batch's inputs are made of: tiles that show windows of examples, and fills around these.

An input is one tile, or the four of a mosaic. This is the whole drawn batch: numbers only, which a painter on the host
or on the GPU turns into pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Objects
from mirilla.batches.noise_pools import random_starts
from mirilla.batches.photo_effects import DrawnEffects
from mirilla.boxes import Letterbox
from mirilla.model.spec import ModelSpec

QUARTERS = 4  # tiles of a mosaic: top left, top right, bottom left, bottom right
# What surrounds a picture that does not fill its tile, and its share of all fills.
MEAN_COLOUR, ANY_COLOUR, BLACK, NOISE = range(4)
FILL_SHARES = (0.4, 0.2, 0.3, 0.1)
MAX_SKIPPED = 4.0  # pixels are averaged where more than these would become one, even in tiles that are not `averaged`
AVERAGED_FROM = 2.0  # the same for tiles that are


@dataclass(frozen=True)
class Fills:
    """kind: (T,) MEAN_COLOUR (of the picture), ANY_COLOUR, BLACK or NOISE. colour: (T, 3) for ANY_COLOUR. noise_start:
    (T, 2) row and column of the uniform pool that noise is cut from.
    """

    kind: NDArray[np.int64]
    colour: NDArray[np.uint8]
    noise_start: NDArray[np.int64]


def draw_fills(draws: Draws, black: NDArray[np.bool_], tile_px: NDArray[np.int64]) -> Fills:
    """Fills of random kinds for tiles of these sizes (T, 2); black where they have to be (T,)."""
    numbers = draws.fractions(6)
    kind = np.searchsorted(np.cumsum(FILL_SHARES[:-1]), numbers[:, 0], "right")
    colour = (numbers[:, 1:4] * 256).astype(np.uint8)
    return Fills(np.where(black, BLACK, kind), colour, random_starts(numbers[:, 4:], tile_px))


@dataclass(frozen=True)
class Tiles:
    """T tiles, those of an input one after the other.

    input: (T,) which of the batch's inputs. quarter: (T,) which of a mosaic's tiles; 0 for a whole input.
    box_px: (T, 4) int64 top, left, bottom, right in pixels of the input.
    window: (T, 4) float64 top, left, height, width in pixels of what the example shows; may reach outside it.
    averaged: (T,) whether pixels are averaged where several become one, rather than some skipped.
    fills: None where nothing can be outside the examples; the input is black outside its tiles.
    centred: whether enlarged pixels keep their centres, where TensorFlow 1's resizer keeps their corners.
    """

    input: NDArray[np.int64]
    quarter: NDArray[np.int64]
    box_px: NDArray[np.int64]
    window: NDArray[np.float64]
    averaged: NDArray[np.bool_]
    fills: Fills | None
    centred: bool


@dataclass(frozen=True)
class DrawnBatch:
    """A drawn batch of B inputs.

    examples: T rows, one for each tile. objects: normalised to the inputs, `example` is the input.
    """

    inputs: int
    examples: Examples
    tiles: Tiles
    objects: Objects
    effects: DrawnEffects | None


def whole_inputs(examples: Examples, spec: ModelSpec) -> DrawnBatch:
    """Every example alone in its input, squashed or letterboxed exactly as the API's image_resizer does it."""
    count, input_px = len(examples), np.array([spec.height_px, spec.width_px])
    places = [Letterbox.squash()] * count
    if spec.keep_aspect_ratio:
        sizes = examples.shown_px.tolist()
        places = [Letterbox.fit(height, width, spec.height_px, spec.width_px) for height, width in sizes]
    scale = np.array([(place.scale_y, place.scale_x) for place in places]).reshape(-1, 2)
    zeros = np.zeros((count, 2))
    box_px = np.concatenate([zeros, np.rint(scale * input_px)], 1).astype(np.int64)
    window = np.concatenate([zeros, examples.shown_px.astype(np.float64)], 1)
    inputs, false = np.arange(count), np.zeros(count, bool)
    tiles = Tiles(inputs, 0 * inputs, box_px, window, false, None, centred=False)
    boxes = examples.objects.boxes_yxyx * np.tile(scale, 2)[examples.objects.example]
    return DrawnBatch(count, examples, tiles, examples.with_boxes(boxes).objects, None)


@dataclass(frozen=True)
class Sampling:
    """Where the pixels of T tiles come from.

    rows, columns: (T, 2) first and end of those of the input that show the picture; outside them there is the fill.
    along_y, along_x: (T, 2) slope and offset: row or column of the input -> row or column of the picture; for a turned
    example, rows of the input are columns of the picture.
    level: (T,) how often the picture is halved by averaging first.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    along_y: NDArray[np.float64]
    along_x: NDArray[np.float64]
    level: NDArray[np.int64]


def sampling(examples: Examples, tiles: Tiles) -> Sampling:
    """Bilinear sampling as TensorFlow 1 resizes: pixel i shows i * in / out, without half-pixel centres."""
    size = tiles.box_px[:, 2:] - tiles.box_px[:, :2]
    first, scale = tiles.window[:, :2], tiles.window[:, 2:] / np.maximum(size, 1)
    shown, corner = examples.shown_px, tiles.box_px[:, :2]
    if tiles.centred:  # a pixel is seen if its centre is in the picture
        begin = np.clip(np.ceil(-first / scale - 0.5), 0, size).astype(np.int64)
        end = np.clip(np.ceil((shown - first) / scale - 0.5), 0, size).astype(np.int64)
    else:
        begin, end = np.zeros_like(size), size
    offset = first - corner * scale + (np.minimum(scale - 1, 0) / 2 if tiles.centred else 0)
    backwards = np.stack([examples.upside_down, examples.mirrored], 1)
    start = np.where(examples.turned[:, None], examples.window[:, 1::-1], examples.window[:, :2])
    offset = np.where(backwards, shown - 1 - offset, offset) + start
    slope = np.where(backwards, -scale, scale)
    skips = np.where(tiles.averaged, AVERAGED_FROM, MAX_SKIPPED)
    excess = np.sqrt(scale.prod(1)) / skips
    level = np.where(excess >= 1, np.floor(np.log2(np.maximum(excess, 1))) + 1, 0).astype(np.int64)
    seen = np.stack([corner + begin, corner + end], 2)  # (T, axis, 2)
    along = np.stack([slope, offset], 2)
    return Sampling(seen[:, 0], seen[:, 1], along[:, 0], along[:, 1], level if tiles.centred else np.zeros_like(level))
