"""Which part of a picture a field of the network's input shows, and at which scale: zoom, aspect, empty margins.

A field is the whole input, or one tile of a mosaic. Framing draws a window of the picture, which may reach
outside it; the pixels follow in one go (`field`). Sizes are decided in pixels of the network's input, whatever
the picture's own are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mirilla.batches.crop import Window
from mirilla.batches.example import View
from mirilla.batches.paint import Fill
from mirilla.boxes import area, clip

# Pixels of a picture may be enlarged so much; beyond it a face is a blur that no camera would deliver.
MOST_ENLARGEMENT = 2.5
# A zoom makes a picture at most so much smaller than it would fill the field: the rest is empty.
MOST_SHRINKING = 2.5
# Objects with less of their area left by a zoom's window are ignored: a chin alone is no face to learn, nor is
# it background.
LEAST_SHARE = 0.3
# A zoom's window leaves the picture where its object stands near the edge; mostly it is pushed back.
OVER_THE_EDGE = 0.2
# Stretching of letterboxed pictures, as the natural logarithm of height to width.
ASPECT_JITTER = 0.14
# Squashed pictures are longer by at most this factor; the rest of a panorama is letterboxed.
MOST_SQUASH = 2.2
# The share of letterboxed pictures that lie at the top left on black, exactly as image_resizer puts them.
AS_THE_RESIZER = 0.5


@dataclass(frozen=True)
class ZoomOut:
    """The picture somewhere in a larger field (the expansion of SSD, arXiv:1512.02325 §2.2); sides up to `most`
    times as long. Acts on those that no object zoom acted on.
    """

    probability: float = 0.3
    most: float = 2.5


@dataclass(frozen=True)
class ObjectZoom:
    """A window in which an object drawn at random gets a side sqrt(w h) between two numbers of input pixels."""

    probability: float = 0.5
    least_px: float = 12.0
    most_px: float = 160.0


@dataclass(frozen=True)
class AspectMix:
    """Letterboxed with a probability, squashed to the network's input otherwise."""

    letterbox_probability: float = 0.5


@dataclass(frozen=True)
class Framing:
    """Draws the windows.

    input_px: (height, width) of the network's input, which a squashed picture takes the aspect of.
    letterbox: what happens without `aspect`.
    """

    input_px: tuple[int, int]
    letterbox: bool
    object_zoom: ObjectZoom | None = None
    zoom_out: ZoomOut | None = None
    aspect: AspectMix | None = None

    def __call__(
        self, rng: np.random.Generator, view: View, field_px: tuple[int, int], tile: bool
    ) -> tuple[Window, Fill]:
        """A window (top, left, height, width) in pixels of what the view shows, and what lies around the picture.

        Args:
            field_px: (height, width) of the field that the window fills.
            tile: whether the field is a part of the input; a whole picture need not be seen in it.
        """
        letterbox = self.letterbox
        if self.aspect is not None:
            letterbox = rng.random() < self.aspect.letterbox_probability
        stretch = self._stretch(rng, view.size_px, letterbox)
        fit = _fit(view.size_px, field_px, stretch)
        if self.object_zoom is not None and rng.random() < self.object_zoom.probability:
            window = _zoom(rng, view, field_px, stretch, fit, self.object_zoom)
            return window, _fill(rng, view, window)
        scale, plain = fit, True
        if tile:
            scale, plain = max(fit * 2.0 ** -rng.random(), min(fit, 1 / MOST_ENLARGEMENT)), False
        if self.zoom_out is not None and rng.random() < self.zoom_out.probability:
            scale, plain = scale * rng.uniform(1, self.zoom_out.most), False
        height, width = _window_size(scale, stretch, field_px)
        if plain and (self.aspect is None or rng.random() < AS_THE_RESIZER):
            return (0, 0, height, width), Fill()
        top, left = (_anywhere(rng, *sides) for sides in zip((height, width), view.size_px, strict=True))
        window = top, left, height, width
        return window, _fill(rng, view, window)

    def _stretch(self, rng: np.random.Generator, size_px: tuple[int, int], letterbox: bool) -> float:
        """Picture pixels per input pixel downwards, divided by those across."""
        if not letterbox:
            squash = (size_px[0] / self.input_px[0]) / (size_px[1] / self.input_px[1])
            return float(np.clip(squash, 1 / MOST_SQUASH, MOST_SQUASH))
        return float(np.exp(rng.uniform(-ASPECT_JITTER, ASPECT_JITTER))) if self.aspect is not None else 1.0


def seen_through(view: View, window: Window, least_share: float) -> View:
    """The view's objects as a window of it shows them, cut at its edges; its picture stays what it is.

    What has less than `least_share` of its area left is ignored, what has none is gone.
    """
    size, (top, left, height, width) = np.array(view.size_px * 2), window
    boxes = (view.boxes_yxyx * size - [top, left, top, left]) / [height, width, height, width]
    cut = clip(boxes)
    share = area(cut) / np.maximum(area(boxes), 1e-12)
    seen, ignore = share > 0, view.ignore | (share < least_share)
    if seen.all():
        return replace(view, boxes_yxyx=cut, ignore=ignore)
    return replace(
        view, boxes_yxyx=cut[seen], classes=view.classes[seen], weights=view.weights[seen], ignore=ignore[seen]
    )


def _fit(size_px: tuple[int, int], field_px: tuple[int, int], stretch: float) -> float:
    """Picture pixels per pixel of the field (mean of both directions) at which the picture just fits."""
    root = np.sqrt(stretch)
    return max(size_px[0] / (field_px[0] * root), size_px[1] * root / field_px[1])


def _window_size(scale: float, stretch: float, field_px: tuple[int, int]) -> tuple[int, int]:
    root = np.sqrt(stretch)
    return max(round(scale * root * field_px[0]), 1), max(round(scale / root * field_px[1]), 1)


def _anywhere(rng: np.random.Generator, window: int, side: int) -> int:
    """Start of a window inside a side, or around it."""
    return int(rng.integers(min(0, side - window), max(0, side - window) + 1))


def _fill(rng: np.random.Generator, view: View, window: Window) -> Fill:
    top, left, height, width = window
    tall, wide = view.size_px
    inside = top >= 0 and left >= 0 and top + height <= tall and left + width <= wide
    return Fill() if inside else Fill.random(rng, view)


def _zoom(
    rng: np.random.Generator, view: View, field_px: tuple[int, int], stretch: float, fit: float, zoom: ObjectZoom
) -> Window:
    """The window of an object zoom; of a picture without objects, any part of it."""
    least, most = min(1 / MOST_ENLARGEMENT, fit), fit * MOST_SHRINKING
    learnt = np.flatnonzero(~view.ignore)
    if not len(learnt):
        scale = max(fit * 4.0 ** -rng.random(), least)
        height, width = _window_size(scale, stretch, field_px)
        return _anywhere(rng, height, view.size_px[0]), _anywhere(rng, width, view.size_px[1]), height, width
    box = clip(view.boxes_yxyx[learnt[rng.integers(len(learnt))]]) * np.array(view.size_px * 2)
    tall, wide = max(box[2] - box[0], 1e-6), max(box[3] - box[1], 1e-6)
    side = np.sqrt(tall * wide)
    root = np.sqrt(stretch)
    # the object has to fit, and the picture's pixels have to last
    least = max(least, 1.1 * tall / root / field_px[0], 1.1 * wide * root / field_px[1])
    most = max(most, least)
    wanted = np.exp(rng.uniform(np.log(zoom.least_px), np.log(zoom.most_px)))
    if not least <= side / wanted <= most:  # drawn again where it can be had, so that no bound is piled up at
        low, high = side / min(zoom.most_px, side / least), side / max(zoom.least_px, side / most)
        low, high = np.clip([low, high], least, most)
        wanted = side / np.exp(rng.uniform(np.log(min(low, high)), np.log(max(low, high))))
    height, width = _window_size(side / wanted, stretch, field_px)
    over = rng.random() < OVER_THE_EDGE
    top = _around(rng, box[0], box[2], height, view.size_px[0], over)
    left = _around(rng, box[1], box[3], width, view.size_px[1], over)
    return top, left, height, width


def _around(rng: np.random.Generator, low: float, high: float, window: int, side: int, over: bool) -> int:
    """Start of a window with the stretch from low to high inside, in the picture as far as it may."""
    first, last = int(np.ceil(high)) - window, int(np.floor(low))
    if not over:
        first, last = max(first, min(0, side - window)), min(last, max(0, side - window))
    return int(rng.integers(first, last + 1)) if first < last else first
