"""The interface of the evaluators: ground truth and detections in, figures with their protocol out.

An evaluator is a frozen dataclass with `evaluate(ground_truths, detections) -> Result`; the sequences have an entry
per picture, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from mirilla.data.sample import Sample
from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.labels import LabelMap


def _no_flags() -> NDArray[np.bool_]:
    return np.zeros(0, bool)


@dataclass(frozen=True)
class GroundTruth:
    """The labelled boxes of one picture. Flags that are left out are false.

    Attributes:
        boxes_yxyx: (N, 4) float64, normalised to the picture; may lie outside [0, 1], as in the source.
        classes: (N,) int64, ids of the label map (the first is 1).
        ignore: (N,) bool, neither right nor wrong.
        difficult, is_crowd, group_of: (N,) bool, with the Object Detection API's meaning.
    """

    filename: str
    height_px: int
    width_px: int
    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    ignore: NDArray[np.bool_] = field(default_factory=_no_flags)
    difficult: NDArray[np.bool_] = field(default_factory=_no_flags)
    is_crowd: NDArray[np.bool_] = field(default_factory=_no_flags)
    group_of: NDArray[np.bool_] = field(default_factory=_no_flags)

    def __post_init__(self):
        object.__setattr__(self, "boxes_yxyx", np.asarray(self.boxes_yxyx, np.float64).reshape(-1, 4))
        object.__setattr__(self, "classes", np.asarray(self.classes, np.int64).reshape(-1))
        count = len(self.classes)
        if len(self.boxes_yxyx) != count:
            raise ValueError(f"{self.filename}: {len(self.boxes_yxyx)} boxes but {count} classes")
        for name in ("ignore", "difficult", "is_crowd", "group_of"):
            flags = getattr(self, name)
            object.__setattr__(self, name, np.asarray(flags, bool) if len(flags) else np.zeros(count, bool))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def size_px(self) -> NDArray[np.float64]:
        """(4,) [height, width, height, width], the factor from normalised boxes to pixels."""
        return np.array([self.height_px, self.width_px] * 2, np.float64)


@dataclass(frozen=True)
class Figure:
    """A named number in [0, 1]; NaN if it is undefined (the data has no box of that kind)."""

    name: str
    value: float

    def __str__(self) -> str:
        return "n/a" if math.isnan(self.value) else f"{self.value:.4f}"


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve: recall and precision (K,) after each detection, highest score first."""

    name: str
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    ap: float


class ResultJson(TypedDict):
    """A result without its curves, as metrics.json has it; an undefined figure is None."""

    metric: str
    figures: dict[str, float | None]
    protocol: dict[str, str]


@dataclass(frozen=True)
class Result:
    """The figures of a metric, with everything that is needed to compare them.

    protocol: what was measured and how, key -> text; the evaluators describe matching and interpolation, callers add
        the model, its input size, letterbox or squash, NMS and score threshold with `with_protocol`.
    """

    metric: str
    figures: tuple[Figure, ...]
    protocol: Mapping[str, str]
    curves: tuple[Curve, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> float:
        """The value of a figure (KeyError if there is no figure of this name)."""
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise KeyError(f"{self.metric} has no figure '{name}'; it has {[f.name for f in self.figures]}")

    def with_protocol(self, more: Mapping[str, str]) -> Result:
        """A copy with more entries at the start of the protocol."""
        return replace(self, protocol={**more, **self.protocol})

    @property
    def protocol_text(self) -> str:
        """The protocol on one line."""
        return "; ".join(f"{key}: {value}" for key, value in self.protocol.items())

    def as_json(self) -> ResultJson:
        """The content for metrics.json; an undefined figure is null."""
        values = {f.name: None if math.isnan(f.value) else f.value for f in self.figures}
        return {"metric": self.metric, "figures": values, "protocol": dict(self.protocol)}


class Evaluator(Protocol):
    """A metric with its settings."""

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result: ...


def ground_truths_of(samples: Iterable[Sample], labels: LabelMap, *, one_class: bool = False) -> list[GroundTruth]:
    """Ground truth from samples, with the label map's ids as classes.

    Args:
        one_class: count every box as the label map's first class, whatever its name.

    Raises:
        DataError: the samples have a class that is not in the label map (and one_class is False).
    """
    samples = list(samples)
    ids = {name: item.id for item in labels for name in (item.display_name, item.name) if name}
    found = {label for s in samples for label in s.labels}
    if not one_class and (unknown := sorted(found - set(ids))):
        where = next((s.where or s.filename for s in samples if unknown[0] in s.labels), "")
        raise DataError(
            f"The classes of model and data do not match: the data has {_some(sorted(found))}, the model's label map "
            f"has {_some(labels.names)}; {len(unknown)} of the data's classes are not in it, first '{unknown[0]}' in "
            f"{where}.",
            "Give the label map that the model was trained with (--label-map), rename the data's classes, or count "
            "every box as one class (--one-class).",
        )
    first = labels.items[0].id
    return [
        GroundTruth(
            s.filename,
            s.height_px,
            s.width_px,
            s.boxes_yxyx,
            np.array([first if one_class else ids[label] for label in s.labels], np.int64),
            s.ignore,
            s.difficult,
            s.is_crowd,
            s.group_of,
        )
        for s in samples
    ]


def require_common_classes(samples: Iterable[Sample], labels: LabelMap) -> None:
    """Check that a class of the samples is one of the label map's, whatever the case of its letters.

    Raises:
        DataError: there are boxes, but none has a class of the label map.
    """
    found = sorted({label for sample in samples for label in sample.labels})
    known = {name.casefold().strip() for item in labels for name in (item.display_name, item.name)}
    if found and not any(label.casefold().strip() in known for label in found):
        raise DataError(
            f"The model and the data have no class in common: the data has {_some(found)}, the model has "
            f"{_some(labels.names)}.",
            "Check that they belong together, give the label map that the model was trained with (--label-map), or "
            "count every box as the model's class (--one-class).",
        )


def require_ground_truth(ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> None:
    """Check that there is something to measure.

    Raises:
        DataError: no picture, or no box that counts.
        ValueError: the sequences have different lengths.
    """
    if len(ground_truths) != len(detections):
        raise ValueError(f"{len(ground_truths)} pictures but detections for {len(detections)}")
    if not any((~g.ignore).any() for g in ground_truths):
        boxes = sum(map(len, ground_truths))
        raise DataError(
            f"There is nothing to measure: {len(ground_truths)} pictures with {boxes} boxes, none of which counts "
            "(boxes marked 'ignore' do not count).",
            "Evaluate on a labelled data set; check --split and the path of the annotations.",
        )


def refuse_unknown(named: Iterable[str], known: Iterable[str], source: str) -> None:
    """Raise DataError if `named` has a picture that is not in `known`."""
    known = set(known)
    if unknown := sorted(set(named) - known):
        raise DataError(
            f"{source}: {len(unknown)} pictures are not in the ground truth: {_some(unknown, 3)}. It has {len(known)} "
            f"pictures, for example {_some(sorted(known), 1)}.",
            "Use predictions and ground truth of the same pictures with the same names.",
        )


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:most]) or "none"
    return f"{shown}, ..." if len(names) > most else shown
