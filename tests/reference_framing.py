"""Framing one picture at a time with a generator: what `mirilla.batches.framing` draws for a whole batch at once."""

from __future__ import annotations

import numpy as np

from mirilla.batches import framing
from mirilla.batches.framing import Framing, ObjectZoom
from mirilla.boxes import clip


def window_of(settings: Framing, rng, boxes, size_px, tile_px, is_part):
    """(top, left, height, width) for one picture, of which all boxes (N, 4) are to be learnt."""
    letterbox = settings.letterbox
    if settings.aspect is not None:
        letterbox = rng.random() < settings.aspect.letterbox_probability
    stretch = _stretch(settings, rng, size_px, letterbox)
    root = np.sqrt(stretch)
    fit = max(size_px[0] / (tile_px[0] * root), size_px[1] * root / tile_px[1])
    if settings.object_zoom is not None and rng.random() < settings.object_zoom.probability:
        return _zoom(rng, boxes, size_px, tile_px, stretch, fit, settings.object_zoom)
    scale, as_it_is = fit, True
    if is_part:
        scale, as_it_is = max(fit * 2.0 ** -rng.random(), min(fit, 1 / framing.MAX_ENLARGEMENT)), False
    if settings.zoom_out is not None and rng.random() < settings.zoom_out.probability:
        scale, as_it_is = scale * rng.uniform(1, settings.zoom_out.max_factor), False
    height, width = _span(scale, stretch, tile_px)
    if as_it_is and (settings.aspect is None or rng.random() < framing.AS_THE_RESIZER):
        return 0, 0, height, width
    return *(_anywhere(rng, *sides) for sides in zip((height, width), size_px, strict=True)), height, width


def _stretch(settings, rng, size_px, letterbox):
    if not letterbox:
        squash = (size_px[0] / settings.input_px[0]) / (size_px[1] / settings.input_px[1])
        return float(np.clip(squash, 1 / framing.MAX_SQUASH, framing.MAX_SQUASH))
    jitter = framing.ASPECT_JITTER
    return float(np.exp(rng.uniform(-jitter, jitter))) if settings.aspect is not None else 1.0


def _span(scale, stretch, tile_px):
    root = np.sqrt(stretch)
    return max(round(scale * root * tile_px[0]), 1), max(round(scale / root * tile_px[1]), 1)


def _anywhere(rng, window, side):
    return int(rng.integers(min(0, side - window), max(0, side - window) + 1))


def _zoom(rng, boxes, size_px, tile_px, stretch, fit, zoom: ObjectZoom):
    smallest, largest = min(1 / framing.MAX_ENLARGEMENT, fit), fit * framing.MAX_SHRINKING
    if not len(boxes):
        scale = max(fit * 4.0 ** -rng.random(), smallest)
        height, width = _span(scale, stretch, tile_px)
        return _anywhere(rng, height, size_px[0]), _anywhere(rng, width, size_px[1]), height, width
    box = clip(boxes[rng.integers(len(boxes))]) * np.array(size_px * 2)
    tall, wide = max(box[2] - box[0], 1e-6), max(box[3] - box[1], 1e-6)
    side, root = np.sqrt(tall * wide), np.sqrt(stretch)
    smallest = max(smallest, 1.1 * tall / root / tile_px[0], 1.1 * wide * root / tile_px[1])
    largest = max(largest, smallest)
    drawn = np.exp(rng.uniform(np.log(zoom.min_px), np.log(zoom.max_px)))
    if not smallest <= side / drawn <= largest:
        low, high = side / min(zoom.max_px, side / smallest), side / max(zoom.min_px, side / largest)
        low, high = np.clip([low, high], smallest, largest)
        drawn = side / np.exp(rng.uniform(np.log(min(low, high)), np.log(max(low, high))))
    height, width = _span(side / drawn, stretch, tile_px)
    over = rng.random() < framing.OVER_THE_EDGE
    top = _around(rng, box[0], box[2], height, size_px[0], over)
    left = _around(rng, box[1], box[3], width, size_px[1], over)
    return top, left, height, width


def _around(rng, low, high, window, side, over):
    first, last = int(np.ceil(high)) - window, int(np.floor(low))
    if not over:
        first, last = max(first, min(0, side - window)), min(last, max(0, side - window))
    return int(rng.integers(first, last + 1)) if first < last else first
