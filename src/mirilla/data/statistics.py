"""What is in a data set, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.data.dataset import Dataset

LONG_SIDE_PX = 256
_SIZE_EDGES = (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Statistics:
    """Counts and distributions; boxes without an area are counted but take no part in the distributions.

    box_size_px: quantiles (name -> value) of sqrt(width * height) after the picture's long side is scaled to
    256 px: the size that a detector with a 256 px input sees. box_side_px: the same of the longer side in the
    picture's own pixels. box_aspect: width / height in pixels. size_histogram: rows (from, to, boxes) of
    box_size_px, ignored boxes left out.
    """

    name: str
    format: str
    pictures: int
    pictures_without_boxes: int
    boxes: int
    boxes_per_label: Mapping[str, int]
    pictures_per_label: Mapping[str, int]
    ignored: int
    difficult: int
    group_of: int
    is_crowd: int
    empty_boxes: int
    pictures_per_part: Mapping[str, int]
    problems: Mapping[str, int]
    picture_width_px: Mapping[str, float]
    picture_height_px: Mapping[str, float]
    boxes_per_picture: Mapping[str, float]
    box_size_px: Mapping[str, float]
    box_side_px: Mapping[str, float]
    box_aspect: Mapping[str, float]
    size_histogram: tuple[tuple[float, float, int], ...]

    def as_json(self) -> dict:
        """A plain dictionary."""
        return asdict(self)


def box_sizes(boxes_yxyx: NDArray[np.float64], height_px: int, width_px: int) -> NDArray[np.float64]:
    """sqrt(w * h) (N,) in px after scaling the picture's long side to 256."""
    scale = LONG_SIDE_PX / max(height_px, width_px)
    height = np.maximum(boxes_yxyx[:, 2] - boxes_yxyx[:, 0], 0) * height_px * scale
    width = np.maximum(boxes_yxyx[:, 3] - boxes_yxyx[:, 1], 0) * width_px * scale
    return np.sqrt(height * width)


def statistics(dataset: Dataset) -> Statistics:
    """Count a data set."""
    samples = dataset.samples
    per_label = Counter(label for s in samples for label in s.labels)
    seen_in = Counter(label for s in samples for label in set(s.labels))
    sizes = [box_sizes(s.boxes_yxyx, s.height_px, s.width_px)[~s.ignore] for s in samples]
    size = np.concatenate([np.zeros(0), *sizes])
    boxes = np.concatenate([np.zeros((0, 4)), *(s.boxes_px_xyxy[~s.ignore] for s in samples)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    full = (width > 0) & (height > 0)
    counts, edges = np.histogram(size[full], [*_SIZE_EDGES, np.inf])
    return Statistics(
        name=dataset.name,
        format=dataset.format,
        pictures=len(samples),
        pictures_without_boxes=sum(not len(s) for s in samples),
        boxes=dataset.boxes,
        boxes_per_label={n: per_label[n] for n in dict.fromkeys((*dataset.labels, *sorted(per_label)))},
        pictures_per_label={n: seen_in[n] for n in dict.fromkeys((*dataset.labels, *sorted(seen_in)))},
        ignored=_count(dataset, "ignore"),
        difficult=_count(dataset, "difficult"),
        group_of=_count(dataset, "group_of"),
        is_crowd=_count(dataset, "is_crowd"),
        empty_boxes=int((~full).sum()),
        pictures_per_part=dict(Counter(dataset.parts.get(s.filename, "none") for s in samples))
        if dataset.parts
        else {},
        problems=dict(Counter(p.code for p in dataset.problems)),
        picture_width_px=_quantiles(np.array([s.width_px for s in samples])),
        picture_height_px=_quantiles(np.array([s.height_px for s in samples])),
        boxes_per_picture=_quantiles(np.array([len(s) for s in samples])),
        box_size_px=_quantiles(size[full]),
        box_side_px=_quantiles(np.maximum(width, height)[full]),
        box_aspect=_quantiles(width[full] / height[full]),
        size_histogram=tuple(
            (float(a), float(b), int(c)) for a, b, c in zip(edges[:-1], (*_SIZE_EDGES[1:], 10**6), counts, strict=True)
        ),
    )


def _count(dataset: Dataset, flag: str) -> int:
    return int(sum(getattr(s, flag).sum() for s in dataset.samples))


def _quantiles(values: NDArray) -> dict[str, float]:
    if not len(values):
        return {}
    names = {0: "least", 50: "median", 100: "most"}
    return {names.get(q, f"{q}%"): round(float(np.percentile(values, q)), 3) for q in _QUANTILES}
