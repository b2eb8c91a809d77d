"""Measure how well anchors fit the objects of a data set, and fit anchors to them.

Of a map's anchors, those at the location nearest to an object's centre have the largest IoU with it, so only that
location is evaluated. Crops and mosaics place objects at random, so all figures are means over many placements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirilla.config.pipeline import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.errors import DataError
from mirilla.model.anchors import cell_centres, sizes_of_maps
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec

Floats = NDArray[np.float64]
Boxes = tuple[tuple[tuple[float, float], ...], ...]  # for each map: (height, width) of the anchors of a location

MIN_IOU = 0.5  # minimum IoU for an object to count as covered
PLACEMENTS = 16  # random placements per object
MAX_OBJECTS = 20_000  # larger data sets are subsampled to this number, evenly by size
EDGES_PX = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128)

# A map is assigned the objects whose side sqrt(h w) is between these multiples of its stride; the ranges overlap.
MIN_CELLS, MAX_CELLS = 1.0, 3.0
MIN_CELLS_FINEST = 0.75  # objects below this are hardly visible to the finest map
MAX_RANGE_START = 0.5  # maximum start of a coarse map's range, as a share of the input
MIN_OBJECTS_PER_ANCHOR = 20  # with fewer objects in a map's range, its anchors are spread evenly


class LabelledImage(Protocol):
    """The part of `mirilla.data.sample.Sample` that is used here; boxes_yxyx (N, 4) is normalised, flags are (N,)."""

    @property
    def height_px(self) -> int: ...
    @property
    def width_px(self) -> int: ...
    @property
    def boxes_yxyx(self) -> Floats: ...
    @property
    def ignore(self) -> NDArray[np.bool_]: ...
    @property
    def group_of(self) -> NDArray[np.bool_]: ...
    @property
    def is_crowd(self) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class Row:
    """Fit of the anchors to a group of objects; means over objects and placements.

    Attributes:
        share_of_objects: share of all objects that are in this group.
        reached: share of the group whose best anchor has an IoU of at least MIN_IOU.
        mean_iou: IoU with the best anchor.
    """

    name: str
    objects: int
    share_of_objects: float
    reached: float
    mean_iou: float


@dataclass(frozen=True)
class FitReport:
    """Fit of the anchors: for all objects, by size, and by map.

    Attributes:
        by_map: for each map, the objects whose best anchor is on it (their number is rounded from placements).
        boxes: the anchors.
        strides_px: vertical strides of the maps.
    """

    overall: Row
    by_size: tuple[Row, ...]
    by_map: tuple[Row, ...]
    boxes: Boxes
    strides_px: tuple[float, ...]

    def lines(self) -> list[str]:
        """A line per map for the log."""
        return [
            f"map {row.name}: best for {row.share_of_objects:.1%} of the objects, mean IoU {row.mean_iou:.2f}"
            for row in self.by_map
        ]


def object_sizes(samples: Iterable[LabelledImage], spec: ModelSpec) -> Floats:
    """(N, 2) heights and widths of all objects in images that are resized whole, as shares of the network's input.

    Ignored boxes, groups and boxes without an area are left out.
    """
    sides_of_samples = [np.zeros((0, 2))]
    for sample in samples:
        keep = ~(sample.ignore | sample.group_of | sample.is_crowd)
        sides = sample.boxes_yxyx[keep, 2:] - sample.boxes_yxyx[keep, :2]
        sides_of_samples.append(sides * shown_share(sample.height_px, sample.width_px, spec))
    sizes = np.concatenate(sides_of_samples)
    return sizes[np.isfinite(sizes).all(1) & (sizes > 0).all(1)]


def training_sizes(samples: Iterable[LabelledImage], pipeline: Pipeline) -> Floats:
    """`object_sizes` as a pipeline's training resizes images: letterboxed, squashed, or both (with `aspect_mix`)."""
    spec, samples = model_spec(pipeline), tuple(samples)
    letterboxed = {spec.keep_aspect_ratio}
    for augmentation in pipeline.mirilla.augmentation:
        if augmentation.WhichOneof("step") == "aspect_mix":
            share = augmentation.aspect_mix.letterbox_probability
            letterboxed = {True} if share >= 1 else {False} if share <= 0 else {True, False}
    return np.concatenate(
        [object_sizes(samples, replace(spec, keep_aspect_ratio=letterbox)) for letterbox in sorted(letterboxed)]
    )


def shown_share(height_px: int, width_px: int, spec: ModelSpec) -> Floats:
    """(2,) shares of the input's height and width that an image of this size covers after resizing."""
    if not spec.keep_aspect_ratio:
        return np.ones(2)
    sides, room = np.array([height_px, width_px]), np.array([spec.height_px, spec.width_px])
    return sides * (room / sides).min() / room


def best_ious(sizes: Floats, spec: ModelSpec, placements: int = PLACEMENTS) -> Floats:
    """(N, P, M) the best IoU of each object, at P places in the input, with the anchors of each map.

    The places are a low-discrepancy sequence over all places at which the object is inside the input.
    """
    height, width = sizes[:, :1], sizes[:, 1:]  # (N, 1)
    # the R2 sequence (generalised golden ratio), shifted from object to object
    steps = np.arange(len(sizes) * placements).reshape(len(sizes), placements) + 0.5
    y, x = (steps * g % 1 for g in (0.7548776662466927, 0.5698402909980532))
    y = height / 2 + y * np.maximum(1 - height, 0)
    x = width / 2 + x * np.maximum(1 - width, 0)
    return ious_at(np.stack(np.broadcast_arrays(y, x, height, width), -1), spec)


def ious_at(placed: Floats, spec: ModelSpec) -> Floats:
    """(..., M) the best IoU of objects (..., 4) [centre y, centre x, height, width] with the anchors of each map."""
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
    """Length of the intersection of two intervals of lengths a and b, given the distance of their centres."""
    return np.clip((a + b) / 2 - distance, 0, np.minimum(a, b))


def report(sizes: Floats, spec: ModelSpec) -> FitReport:
    """Measure how well a network's anchors fit objects.

    Args:
        sizes: (N, 2) from `object_sizes` or `training_sizes`.

    Raises:
        DataError: there are no objects.
    """
    sizes = _subset(sizes)
    if not len(sizes):
        raise DataError("The data set has no objects to measure anchors with.", "Use a data set with boxes.")
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
        tuple((float(h), float(w)) for h, w in zip(heights, widths, strict=True))
        for heights, widths in sizes_of_maps(spec.anchors, spec.height_px, spec.width_px)
    )
    strides = tuple(spec.height_px / p.height for p in table.predictors)
    return FitReport(_row("all", best, best.size), tuple(by_size), tuple(by_map), boxes, strides)


def _row(name: str, best: Floats, total: int) -> Row:
    if not best.size:
        return Row(name, 0, 0.0, math.nan, math.nan)
    reached, mean = float((best >= MIN_IOU).mean()), float(best.mean())
    return Row(name, round(best.size / PLACEMENTS), best.size / total, reached, mean)


def _subset(sizes: Floats) -> Floats:
    """At most MAX_OBJECTS of the sizes, evenly chosen from the smallest to the largest."""
    order = np.argsort(np.prod(sizes, 1), kind="stable")
    if len(order) > MAX_OBJECTS:
        order = order[np.linspace(0, len(order) - 1, MAX_OBJECTS).round().astype(int)]
    return np.asarray(sizes, np.float64)[order]


def fit(sizes: ArrayLike, shapes: Sequence[tuple[int, int]], counts: Sequence[int]) -> Boxes:
    """Fit anchors to objects.

    Each map gets the objects of a range of sizes that depends on its stride. Its anchors are the centres of a k-means
    by IoU (arXiv:1612.08242 §2) over these objects, weighted so that all sizes count equally on a logarithmic scale:
    rare sizes need a close anchor as much as frequent ones.

    Args:
        sizes: (N, 2) heights and widths as shares of the input.
        shapes: (rows, columns) of the maps, finest first.
        counts: anchors per location of each map.

    Returns:
        (height, width) of the anchors of each map, smallest first, rounded to 5 digits.
    """
    sizes = _subset(np.asarray(sizes, np.float64).reshape(-1, 2))
    side = np.sqrt(sizes.prod(1))
    ratio = float(np.exp(np.median(np.log(sizes[:, 0] / sizes[:, 1])))) if len(sizes) else 1.0
    result = []
    for i, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        low, high = size_range(shape, finest=i == 0)
        inside = sizes[(side >= low) & (side < high)]
        even = _even(low, high, count, ratio)
        chosen = _k_means(inside, even, low, high) if len(inside) >= MIN_OBJECTS_PER_ANCHOR * count else even
        chosen = chosen[np.argsort(chosen.prod(1), kind="stable")]
        result.append(tuple((round(float(h), 5), round(float(w), 5)) for h, w in chosen))
    return tuple(result)


def fit_spec(spec: ModelSpec, sizes: ArrayLike) -> Boxes:
    """`fit` for the maps of a network, with its numbers of anchors."""
    table = architecture(spec)
    return fit(sizes, table.feature_map_shapes, [p.anchors for p in table.predictors])


def size_range(shape: tuple[int, int], *, finest: bool) -> tuple[float, float]:
    """(smallest, largest) side sqrt(h w), as a share of the input, of the objects for which a map gets anchors."""
    cell = math.sqrt(1 / (shape[0] * shape[1]))
    start = MIN_CELLS_FINEST * cell if finest else MIN_CELLS * cell
    return min(start, MAX_RANGE_START), min(MAX_CELLS * cell, 1.0)


def _even(low: float, high: float, count: int, ratio: float) -> Floats:
    """(count, 2) anchors of one shape (ratio = height / width) whose sides divide a range evenly on a log scale."""
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
        moved = [np.bincount(nearest, weight * log, len(centres)) / np.maximum(mass, 1e-12) for log in logs.T]
        new = np.where(mass[:, None] > 0, np.exp(np.stack(moved, 1)), centres)
        if np.allclose(new, centres, rtol=1e-4):
            break
        centres = new
    return centres


def _concentric_iou(a: Floats, b: Floats) -> Floats:
    """(N, K) IoU of boxes of sizes (N, 2) and (K, 2) with the same centre."""
    common = np.minimum(a[:, None], b[None]).prod(2)
    return common / (a.prod(1)[:, None] + b.prod(1)[None] - common)
