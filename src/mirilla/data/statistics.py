"""`statistics`: counts and distributions of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.data.dataset import Dataset
from mirilla.data.sample import Sample

LONG_SIDE_PX = 256
_SIZE_EDGES = (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_NO_LIMIT = 10**6
_QUANTILES = {0: "least", 5: "5%", 25: "25%", 50: "median", 75: "75%", 95: "95%", 100: "most"}


@dataclass(frozen=True)
class Statistics:
    """Counts and distributions. Ignored boxes and boxes without an area are counted, but not in the distributions.

    Attributes:
        box_size_px: quantiles (name -> value) of sqrt(width * height) after the picture's long side is scaled to
            256 px: the size that a detector with a 256 px input sees.
        box_side_px: quantiles of the longer side in the picture's own pixels.
        box_aspect: quantiles of width / height in pixels.
        size_histogram: rows (from, to, boxes) of box_size_px.
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

    def as_json(self) -> dict[str, object]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class _Boxes:
    """Sizes of the boxes that are not ignored.

    size_px: (N,) at a long side of 256 px. width_px, height_px: (N,) in the picture's pixels.
    """

    size_px: NDArray[np.float64]
    width_px: NDArray[np.float64]
    height_px: NDArray[np.float64]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Boxes:
        sizes = [box_sizes(s.boxes_yxyx, s.height_px, s.width_px)[~s.ignore] for s in samples]
        boxes = np.concatenate([np.zeros((0, 4)), *(s.boxes_px_xyxy[~s.ignore] for s in samples)])
        return cls(np.concatenate([np.zeros(0), *sizes]), boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])

    def with_area(self) -> _Boxes:
        full = (self.width_px > 0) & (self.height_px > 0)
        return _Boxes(self.size_px[full], self.width_px[full], self.height_px[full])

    def histogram(self) -> tuple[tuple[float, float, int], ...]:
        counts, _ = np.histogram(self.size_px, [*_SIZE_EDGES, np.inf])
        edges = [*map(float, _SIZE_EDGES), float(_NO_LIMIT)]
        return tuple(zip(edges[:-1], edges[1:], counts.tolist(), strict=True))


def box_sizes(boxes_yxyx: NDArray[np.float64], height_px: int, width_px: int) -> NDArray[np.float64]:
    """sqrt(width * height) (N,) in px after scaling the picture's long side to 256."""
    scale = LONG_SIDE_PX / max(height_px, width_px)
    height = np.maximum(boxes_yxyx[:, 2] - boxes_yxyx[:, 0], 0) * height_px * scale
    width = np.maximum(boxes_yxyx[:, 3] - boxes_yxyx[:, 1], 0) * width_px * scale
    return np.sqrt(height * width)


def statistics(dataset: Dataset) -> Statistics:
    """Count a data set."""
    samples = dataset.samples
    everything = _Boxes.of(samples)
    boxes = everything.with_area()
    return Statistics(
        name=dataset.name,
        format=dataset.format,
        pictures=len(samples),
        pictures_without_boxes=sum(not len(sample) for sample in samples),
        boxes=dataset.boxes,
        boxes_per_label=_per_label(dataset, Counter(label for sample in samples for label in sample.labels)),
        pictures_per_label=_per_label(dataset, Counter(label for sample in samples for label in set(sample.labels))),
        ignored=_count(samples, "ignore"),
        difficult=_count(samples, "difficult"),
        group_of=_count(samples, "group_of"),
        is_crowd=_count(samples, "is_crowd"),
        empty_boxes=len(everything.size_px) - len(boxes.size_px),
        pictures_per_part=_per_part(dataset),
        problems=dict(Counter(problem.code for problem in dataset.problems)),
        picture_width_px=_quantiles([sample.width_px for sample in samples]),
        picture_height_px=_quantiles([sample.height_px for sample in samples]),
        boxes_per_picture=_quantiles([len(sample) for sample in samples]),
        box_size_px=_quantiles(boxes.size_px),
        box_side_px=_quantiles(np.maximum(boxes.width_px, boxes.height_px)),
        box_aspect=_quantiles(boxes.width_px / boxes.height_px),
        size_histogram=boxes.histogram(),
    )


def _per_label(dataset: Dataset, counts: Mapping[str, int]) -> dict[str, int]:
    """The counts in the order of the data set's labels, then those of any other labels."""
    return {label: counts.get(label, 0) for label in dict.fromkeys((*dataset.labels, *sorted(counts)))}


def _per_part(dataset: Dataset) -> dict[str, int]:
    if not dataset.parts:
        return {}
    return dict(Counter(dataset.parts.get(sample.filename, "none") for sample in dataset.samples))


def _count(samples: Sequence[Sample], flag: str) -> int:
    return sum(int(getattr(sample, flag).sum()) for sample in samples)


def _quantiles(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    quantiles = np.percentile(np.asarray(values, np.float64), list(_QUANTILES)).tolist()
    return {name: round(value, 3) for name, value in zip(_QUANTILES.values(), quantiles, strict=True)}
