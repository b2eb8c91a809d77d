"""Which part of a picture a tile shows, and at which scale: zoom, aspect, empty margins.

A tile is the whole input, or one of a mosaic's four. Framing draws a window of what an example shows, which may reach
outside it, for all tiles at once. Sizes are decided in pixels of the network's input, whatever the pictures' own sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Objects
from mirilla.boxes import area, clip

Numbers = NDArray[np.float64]

# Maximum enlargement of pixels; beyond it a face is a blur that no camera would produce.
MAX_ENLARGEMENT = 2.5
# Maximum factor by which an object zoom makes a picture smaller than the tile; the rest of the tile is empty.
MAX_SHRINKING = 2.5
# A zoom's window leaves the picture where its object is near the edge in this share of cases; in the others it is
# pushed back.
OVER_THE_EDGE = 0.2
# Stretching of letterboxed pictures, as the natural logarithm of height to width.
ASPECT_JITTER = 0.14
# Squashed pictures are longer by at most this factor; the rest of a panorama is letterboxed.
MAX_SQUASH = 2.2
# The share of letterboxed pictures that are placed at the top left on black, exactly as image_resizer puts them.
AS_THE_RESIZER = 0.5


@dataclass(frozen=True)
class ZoomOut:
    """The picture somewhere in a larger tile (the expansion of SSD, arXiv:1512.02325 §2.2); sides up to `max_factor`
    times as long. Acts on those that no object zoom acted on.
    """

    probability: float = 0.3
    max_factor: float = 2.5


@dataclass(frozen=True)
class ObjectZoom:
    """A window in which a random object gets a side sqrt(w h) between two numbers of input pixels."""

    probability: float = 0.5
    min_px: float = 12.0
    max_px: float = 160.0


@dataclass(frozen=True)
class AspectMix:
    """Letterboxed with a probability, squashed to the network's input otherwise."""

    letterbox_probability: float = 0.5


@dataclass(frozen=True)
class Framing:
    """Draws the windows of T tiles.

    input_px: (height, width) of the network's input, which a squashed picture takes the aspect of.
    letterbox: whether pictures are letterboxed where there is no `aspect`.
    """

    input_px: tuple[int, int]
    letterbox: bool
    object_zoom: ObjectZoom | None = None
    zoom_out: ZoomOut | None = None
    aspect: AspectMix | None = None

    def __call__(
        self, draws: Draws, examples: Examples, tile_px: NDArray[np.int64], is_part: NDArray[np.bool_]
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """Windows (T, 4): top, left, height, width in whole pixels of what the examples show.

        Args:
            tile_px: (T, 2) height and width of the tiles.
            is_part: (T,) whether a tile is a part of its input, in which not all of a picture need be seen.

        Returns:
            The windows, and which of them have the resizer's own black around the picture (T,).
        """
        size_px = examples.shown_px.astype(np.float64)
        root = np.sqrt(self._stretch(draws, size_px))
        fit = np.maximum(size_px[:, 0] / (tile_px[:, 0] * root), size_px[:, 1] * root / tile_px[:, 1])
        closer = np.maximum(fit * 2.0 ** -draws.one(), np.minimum(fit, 1 / MAX_ENLARGEMENT))
        scale, as_it_is = np.where(is_part, closer, fit), ~is_part
        if self.zoom_out is not None:
            acts = draws.bernoulli(self.zoom_out.probability)
            scale = np.where(acts, scale * draws.one(1, self.zoom_out.max_factor), scale)
            as_it_is &= ~acts
        if self.aspect is not None:
            as_it_is &= draws.bernoulli(AS_THE_RESIZER)
        span = _span(scale, root, tile_px)
        start = np.where(as_it_is[:, None], 0.0, _anywhere(draws.uniform(2), span, size_px))
        window = np.concatenate([start, span], 1)
        if self.object_zoom is not None:
            acts = draws.bernoulli(self.object_zoom.probability)
            zoomed = _zoom(draws, examples, tile_px, root, fit, self.object_zoom)
            window, as_it_is = np.where(acts[:, None], zoomed, window), as_it_is & ~acts
        return window, as_it_is

    def _stretch(self, draws: Draws, size_px: Numbers) -> Numbers:
        """(T,) picture pixels per input pixel downwards, divided by those across."""
        aspect = (size_px[:, 0] / self.input_px[0]) / (size_px[:, 1] / self.input_px[1])
        squash = np.clip(aspect, 1 / MAX_SQUASH, MAX_SQUASH)
        if self.aspect is None:
            return np.ones(len(size_px)) if self.letterbox else squash
        jittered = np.exp(draws.one(-ASPECT_JITTER, ASPECT_JITTER))
        return np.where(draws.bernoulli(self.aspect.letterbox_probability), jittered, squash)


def seen_through(examples: Examples, window: Numbers, min_share: Numbers) -> Objects:
    """The examples' objects as windows (T, 4) show them, cut at the edges, boxes normalised to the window.

    Objects with less than `min_share` (T,) of their area left are ignored, those with nothing left dropped.
    """
    objects = examples.objects
    size_px = np.tile(examples.shown_px, 2)[objects.example]
    start, span = np.tile(window[:, :2], 2)[objects.example], np.tile(window[:, 2:], 2)[objects.example]
    boxes = (objects.boxes_yxyx * size_px - start) / span
    cut = np.asarray(clip(boxes), np.float64)
    share = area(cut) / np.maximum(area(boxes), 1e-12)
    ignore = objects.ignore | (share < min_share[objects.example])
    objects = replace(objects, boxes_yxyx=cut, ignore=ignore)
    seen = share > 0
    return objects if seen.all() else objects.take(seen)


def _span(scale: Numbers, root: Numbers, tile_px: NDArray[np.int64]) -> Numbers:
    """(T, 2) height and width of windows, from picture pixels per pixel of the tile."""
    return np.maximum(np.rint(np.stack([scale * root, scale / root], 1) * tile_px), 1)


def _anywhere(fractions: Numbers, span: Numbers, size_px: Numbers) -> Numbers:
    """Starts (T, 2) of windows inside the picture, or around it."""
    low, high = np.minimum(size_px - span, 0), np.maximum(size_px - span, 0)
    return low + np.floor(fractions * (high - low + 1))


def _zoom(
    draws: Draws, examples: Examples, tile_px: NDArray[np.int64], root: Numbers, fit: Numbers, zoom: ObjectZoom
) -> Numbers:
    """Windows (T, 4) of an object zoom; of a picture without objects, any part of it."""
    size_px = examples.shown_px.astype(np.float64)
    smallest, largest = np.minimum(1 / MAX_ENLARGEMENT, fit), fit * MAX_SHRINKING
    span = _span(np.maximum(fit * 4.0 ** -draws.one(), smallest), root, tile_px)
    without = np.concatenate([_anywhere(draws.uniform(2), span, size_px), span], 1)
    boxes, chosen = _random_boxes(draws, examples)
    boxes = boxes * np.tile(size_px, 2)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    side = np.sqrt(sides.prod(1))
    # the object has to fit, and the picture's pixels have to suffice
    fits = 1.1 * sides / np.stack([root, 1 / root], 1) / tile_px
    smallest = np.maximum(smallest, fits.max(1))
    largest = np.maximum(largest, smallest)
    scale = side / np.exp(draws.one(np.log(zoom.min_px), np.log(zoom.max_px)))
    # drawn again within what is possible, so that sizes do not pile up at a bound
    low = np.clip(side / np.minimum(zoom.max_px, side / smallest), smallest, largest)
    high = np.clip(side / np.maximum(zoom.min_px, side / largest), smallest, largest)
    again = np.exp(draws.one(np.log(np.minimum(low, high)), np.log(np.maximum(low, high))))
    scale = np.where((scale >= smallest) & (scale <= largest), scale, again)
    span = _span(scale, root, tile_px)
    first, last = np.ceil(boxes[:, 2:]) - span, np.floor(boxes[:, :2])
    over = draws.bernoulli(OVER_THE_EDGE)[:, None]
    first = np.where(over, first, np.maximum(first, np.minimum(size_px - span, 0)))
    last = np.where(over, last, np.minimum(last, np.maximum(size_px - span, 0)))
    start = first + np.floor(draws.uniform(2) * np.maximum(last - first + 1, 1))
    return np.where(chosen[:, None], np.concatenate([start, span], 1), without)


def _random_boxes(draws: Draws, examples: Examples) -> tuple[Numbers, NDArray[np.bool_]]:
    """A box (T, 4) of each example's objects that are not ignored, cut at the picture, and whether it has any (T,)."""
    objects = examples.objects
    learnt = np.flatnonzero(~objects.ignore)
    owner = objects.example[learnt]
    counts = np.bincount(owner, minlength=len(examples))
    index = np.searchsorted(owner, np.arange(len(examples))) + draws.integers(0, counts)
    boxes = np.zeros((len(examples), 4))
    has_any = counts > 0
    boxes[has_any] = clip(objects.boxes_yxyx[learnt[index[has_any]]])
    return boxes, has_any
