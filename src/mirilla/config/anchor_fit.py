"""How well anchors fit the objects of a data set, and anchors that fit them better.

An object meets the anchors of a map best at the location nearest to its centre, so one location a map is enough to
look at. Where an object lies in training is chance (crops, mosaics), so figures are means over many placements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.errors import DataError
from mirilla.model.anchors import cell_centres, sizes_of_maps
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec

Floats = NDArray[np.float64]
Boxes = tuple[tuple[tuple[float, float], ...], ...]  # (height, width) of a location's anchors, map by map

IOU = 0.5
PLACEMENTS = 16  # of each object
MOST_OBJECTS = 20_000  # looked at; evenly chosen among more
EDGES_PX = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128)

# A map is responsible for objects of a side sqrt(h w) between these multiples of its stride; neighbours overlap.
LEAST_CELLS, MOST_CELLS = 1.0, 3.0
LEAST_CELLS_FINEST = 0.75  # smaller ones are hardly there in what such a map sees
LARGEST_LEAST = 0.5  # share of the input from which on the coarsest maps are responsible at the latest
FEWEST_OBJECTS = 20  # an anchor: with fewer in a map's range its anchors are spread by rule


@dataclass(frozen=True)
class Row:
    """Objects of one kind and the anchors that they meet; means over objects and placements.

    share_of_objects: of all. reached: share whose best anchor has an IoU of at least 0.5. mean_iou: of the best.
    """

    name: str
    objects: int
    share_of_objects: float
    reached: float
    mean_iou: float


@dataclass(frozen=True)
class FitReport:
    """How well the anchors of `maps` fit: over all objects, by size, and map by map.

    by_map: objects that have their best anchor there (rounded from placements), and what they reach with it.
    boxes: the anchors. strides_px: of the maps, vertical.
    """

    overall: Row
    by_size: tuple[Row, ...]
    by_map: tuple[Row, ...]
    boxes: Boxes
    strides_px: tuple[float, ...]

    def lines(self) -> list[str]:
        """A line per map, for logs."""
        return [
            f"map {row.name}: best for {row.share_of_objects:.1%} of the objects, mean IoU {row.mean_iou:.2f}"
            for row in self.by_map
        ]


def object_sizes(samples: Iterable[Any], spec: ModelSpec) -> Floats:
    """(N, 2) heights and widths of all objects (`mirilla.data` samples) as the network's input shows them whole.

    Shares of the input's height and width. Ignored boxes, groups and those without an area are left out.
    """
    found = [np.zeros((0, 2))]
    for one in samples:
        keep = ~(one.ignore | one.group_of | one.is_crowd)
        sides = one.boxes_yxyx[keep, 2:] - one.boxes_yxyx[keep, :2]
        found.append(sides * shown_share(one.height_px, one.width_px, spec))
    sizes = np.concatenate(found)
    return sizes[np.isfinite(sizes).all(1) & (sizes > 0).all(1)]


def training_sizes(samples: Iterable[Any], pipeline: Pipeline) -> Floats:
    """`object_sizes` as a pipeline's training shows photos: letterboxed, squashed, or in both ways (AspectMix)."""
    spec, samples = model_spec(pipeline), tuple(samples)
    ways = {spec.keep_aspect_ratio}
    for one in pipeline.mirilla.augmentation:
        if one.WhichOneof("step") == "aspect_mix":
            share = one.aspect_mix.letterbox_probability
            ways = {True} if share >= 1 else {False} if share <= 0 else {True, False}
    return np.concatenate([object_sizes(samples, replace(spec, keep_aspect_ratio=way)) for way in sorted(ways)])


def shown_share(height_px: int, width_px: int, spec: ModelSpec) -> Floats:
    """(2,) what part of the input's height and width a photo of this size takes."""
    if not spec.keep_aspect_ratio:
        return np.ones(2)
    sides, room = np.array([height_px, width_px]), np.array([spec.height_px, spec.width_px])
    return sides * (room / sides).min() / room


def best_ious(sizes: Floats, spec: ModelSpec, placements: int = PLACEMENTS) -> Floats:
    """(N, P, M) the best IoU that objects reach with the anchors of each map, at P places in the input each.

    The places are a low-discrepancy sequence over all at which the whole object is inside.
    """
    height, width = sizes[:, :1], sizes[:, 1:]  # (N, 1)
    # the R2 sequence (generalised golden ratio), shifted from object to object
    steps = np.arange(len(sizes) * placements).reshape(len(sizes), placements) + 0.5
    y, x = (steps * g % 1 for g in (0.7548776662466927, 0.5698402909980532))
    y = height / 2 + y * np.maximum(1 - height, 0)
    x = width / 2 + x * np.maximum(1 - width, 0)
    return ious_at(np.stack(np.broadcast_arrays(y, x, height, width), -1), spec)


def ious_at(placed: Floats, spec: ModelSpec) -> Floats:
    """(..., M) the best IoU with the anchors of each map of objects (..., 4): centre y, centre x, height, width."""
    y, x, height, width = np.moveaxis(placed, -1, 0)
    table = architecture(spec)
    grids = cell_centres(spec.anchors, table.feature_map_shapes, spec.height_px, spec.width_px)
    sizes = sizes_of_maps(spec.anchors, spec.height_px, spec.width_px)
    result = []
    for (rows, columns), (heights, widths) in zip(grids, sizes, strict=True):
        dy, dx = np.abs(y - _nearest(rows, y)), np.abs(x - _nearest(columns, x))
        best = np.zeros(y.shape)
        for h, w in zip(heights.astype(np.float64), widths.astype(np.float64), strict=True):
            common = _overlap(dy, height, h) * _overlap(dx, width, w)
            best = np.maximum(best, common / (height * width + h * w - common))
        result.append(best)
    return np.stack(result, -1)


def _nearest(centres: NDArray, values: Floats) -> Floats:
    centres = np.asarray(centres, np.float64)
    edges = (centres[1:] + centres[:-1]) / 2
    return centres[np.searchsorted(edges, values)]


def _overlap(distance: Floats, a: Floats, b: float) -> Floats:
    """Common length of two intervals with the lengths a and b whose centres are so far apart."""
    return np.clip((a + b) / 2 - distance, 0, np.minimum(a, b))


def report(sizes: Floats, spec: ModelSpec) -> FitReport:
    """How well a network's anchors fit objects (`object_sizes`).

    Raises:
        DataError: no object.
    """
    sizes = _some(sizes)
    if not len(sizes):
        raise DataError("There is no object to fit anchors to.", "Give a data set with boxes.")
    table = architecture(spec)
    ious = best_ious(sizes, spec)
    best, where = ious.max(-1), ious.argmax(-1)
    side_px = np.sqrt(sizes[:, 0] * spec.height_px * sizes[:, 1] * spec.width_px)
    by_size = []
    for low, high in zip(EDGES_PX, (*EDGES_PX[1:], math.inf), strict=True):
        inside = (side_px >= low) & (side_px < high)
        name = f"{low} to {high} px" if high < math.inf else f"{low} px and more"
        by_size.append(_row(name, best[inside], len(sizes) * PLACEMENTS))
    by_map = [
        _row(f"{p.height}x{p.width} ({p.input})", best[where == i], len(sizes) * PLACEMENTS)
        for i, p in enumerate(table.predictors)
    ]
    boxes = tuple(
        tuple((float(h), float(w)) for h, w in zip(*one, strict=True))
        for one in sizes_of_maps(spec.anchors, spec.height_px, spec.width_px)
    )
    strides = tuple(spec.height_px / p.height for p in table.predictors)
    return FitReport(_row("all", best, best.size), tuple(by_size), tuple(by_map), boxes, strides)


def _row(name: str, best: Floats, total: int) -> Row:
    if not best.size:
        return Row(name, 0, 0.0, math.nan, math.nan)
    reached, mean = float((best >= IOU).mean()), float(best.mean())
    return Row(name, round(best.size / PLACEMENTS), best.size / total, reached, mean)


def _some(sizes: Floats) -> Floats:
    """At most MOST_OBJECTS of them, evenly chosen from the smallest to the largest."""
    order = np.argsort(np.prod(sizes, 1), kind="stable")
    if len(order) > MOST_OBJECTS:
        order = order[np.linspace(0, len(order) - 1, MOST_OBJECTS).round().astype(int)]
    return np.asarray(sizes, np.float64)[order]


def fit(sizes: ArrayLike, shapes: Sequence[tuple[int, int]], counts: Sequence[int]) -> Boxes:
    """Anchors for objects: `counts[i]` for the map of `shapes[i]` (rows, columns), finest first.

    Each map is responsible for a range of sizes that goes with its stride. Within it the anchors are the centres of a
    k-means by IoU (arXiv:1612.08242 §2) over the objects, each weighed so that all sizes, in their logarithm, count
    alike: an anchor is what a location starts from, and must be near to whatever it is given, not only to the usual.

    Args:
        sizes: (N, 2) heights and widths, shares of the input.

    Returns:
        (height, width) of the anchors, map by map, smallest first; rounded to 5 digits.
    """
    sizes = _some(np.asarray(sizes, np.float64).reshape(-1, 2))
    side = np.sqrt(sizes.prod(1))
    ratio = float(np.exp(np.median(np.log(sizes[:, 0] / sizes[:, 1])))) if len(sizes) else 1.0
    result = []
    for i, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        low, high = size_range(shape, finest=i == 0)
        inside = sizes[(side >= low) & (side < high)]
        even = _even(low, high, count, ratio)
        chosen = _k_means(inside, even, low, high) if len(inside) >= FEWEST_OBJECTS * count else even
        chosen = chosen[np.argsort(chosen.prod(1), kind="stable")]
        result.append(tuple((round(float(h), 5), round(float(w), 5)) for h, w in chosen))
    return tuple(result)


def fit_spec(spec: ModelSpec, sizes: ArrayLike) -> Boxes:
    """`fit` for a network's maps, with as many anchors on each as it has."""
    table = architecture(spec)
    return fit(sizes, table.feature_map_shapes, [p.anchors for p in table.predictors])


def size_range(shape: tuple[int, int], *, finest: bool) -> tuple[float, float]:
    """(least, most) side sqrt(h w), as a share of the input, of the objects that a map is responsible for."""
    cell = math.sqrt(1 / (shape[0] * shape[1]))
    least = LEAST_CELLS_FINEST * cell if finest else LEAST_CELLS * cell
    return min(least, LARGEST_LEAST), min(MOST_CELLS * cell, 1.0)


def _even(low: float, high: float, count: int, ratio: float) -> Floats:
    """(count, 2) anchors of one shape (ratio = height / width) whose sides divide a range evenly in its logarithm."""
    sides = low * (high / low) ** ((np.arange(count) + 0.5) / count)
    return np.stack([sides * math.sqrt(ratio), sides / math.sqrt(ratio)], 1)


def _k_means(sizes: Floats, start: Floats, low: float, high: float) -> Floats:
    logs = np.log(sizes)
    place = (logs.mean(1) - math.log(low)) / math.log(high / low)
    bins = np.clip((place * 4 * len(start)).astype(int), 0, 4 * len(start) - 1)
    weight = 1 / np.bincount(bins)[bins]
    centres = start
    for _ in range(30):
        nearest = _concentric_iou(sizes, centres).argmax(1)
        mass = np.bincount(nearest, weight, len(centres))
        moved = [np.bincount(nearest, weight * one, len(centres)) / np.maximum(mass, 1e-12) for one in logs.T]
        new = np.where(mass[:, None] > 0, np.exp(np.stack(moved, 1)), centres)
        if np.allclose(new, centres, rtol=1e-4):
            break
        centres = new
    return centres


def _concentric_iou(a: Floats, b: Floats) -> Floats:
    """(N, K) IoU of sizes (N, 2) and (K, 2) with a common centre."""
    common = np.minimum(a[:, None], b[None]).prod(2)
    return common / (a.prod(1)[:, None] + b.prod(1)[None] - common)
