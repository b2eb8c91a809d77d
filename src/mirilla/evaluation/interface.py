"""What every evaluator takes and gives: ground truth, detections in; figures with their protocol out.

An evaluator is a frozen dataclass with `evaluate(ground_truths, detections) -> Result`; the two sequences run
side by side, one entry per picture.
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


@dataclass(frozen=True)
class GroundTruth:
    """The labelled boxes of one picture.

    boxes_yxyx: (N, 4) float64, normalised to the picture; may lie outside [0, 1] as the source states them.
    classes: (N,) int64, ids of the label map (the first is 1).
    ignore: (N,) bool, neither right nor wrong. difficult, is_crowd, group_of: (N,) bool, as the API means
        them.
    """

    filename: str
    height_px: int
    width_px: int
    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    ignore: NDArray[np.bool_] = None  # type: ignore[assignment]
    difficult: NDArray[np.bool_] = None  # type: ignore[assignment]
    is_crowd: NDArray[np.bool_] = None  # type: ignore[assignment]
    group_of: NDArray[np.bool_] = None  # type: ignore[assignment]

    def __post_init__(self):
        object.__setattr__(self, "boxes_yxyx", np.asarray(self.boxes_yxyx, np.float64).reshape(-1, 4))
        object.__setattr__(self, "classes", np.asarray(self.classes, np.int64).reshape(-1))
        count = len(self.classes)
        if len(self.boxes_yxyx) != count:
            raise ValueError(f"{self.filename}: {len(self.boxes_yxyx)} boxes but {count} classes")
        for name in ("ignore", "difficult", "is_crowd", "group_of"):
            given = getattr(self, name)
            object.__setattr__(self, name, np.zeros(count, bool) if given is None else np.asarray(given, bool))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def size_px(self) -> NDArray[np.float64]:
        """(4,) [height, width, height, width], the factor from normalised boxes to pixels."""
        return np.array([self.height_px, self.width_px] * 2, np.float64)


@dataclass(frozen=True)
class Figure:
    """One named number in [0, 1]; NaN where it is not defined (no box of that kind in the data)."""

    name: str
    value: float

    def __str__(self) -> str:
        return "n/a" if math.isnan(self.value) else f"{self.value:.4f}"


@dataclass(frozen=True)
class Curve:
    """A precision-recall curve: recall and precision (K,), as counted, best score first."""

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
    """Figures of one metric and everything one must know to compare them.

    protocol: what was measured and how, key -> words; evaluators state matching and interpolation, callers
        add the model, its input size, letterbox or squash, NMS and score threshold with `with_protocol`.
    """

    metric: str
    figures: tuple[Figure, ...]
    protocol: Mapping[str, str]
    curves: tuple[Curve, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> float:
        """Value of a figure by name (KeyError where there is none)."""
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise KeyError(f"{self.metric} has no figure '{name}'; it has {[f.name for f in self.figures]}")

    def with_protocol(self, more: Mapping[str, str]) -> Result:
        """The same figures with more said about how they came to be."""
        return replace(self, protocol={**more, **self.protocol})

    @property
    def protocol_text(self) -> str:
        """The protocol on one line."""
        return "; ".join(f"{key}: {value}" for key, value in self.protocol.items())

    def as_json(self) -> ResultJson:
        """For metrics.json; an undefined figure is null."""
        values = {f.name: None if math.isnan(f.value) else f.value for f in self.figures}
        return {"metric": self.metric, "figures": values, "protocol": dict(self.protocol)}


class Evaluator(Protocol):
    """One metric with its settings."""

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result: ...


def ground_truths_of(samples: Iterable[Sample], labels: LabelMap, *, one_class: bool = False) -> list[GroundTruth]:
    """Ground truth from samples, names turned into the label map's ids.

    Args:
        one_class: count every box as the label map's first class, whatever it is called.

    Raises:
        DataError: the samples carry a class that the label map does not have (and one_class is False).
    """
    samples = list(samples)
    ids = {name: item.id for item in labels for name in (item.display_name, item.name) if name}
    found = {label for s in samples for label in s.labels}
    if not one_class and (unknown := sorted(found - set(ids))):
        met = "not one class of the data is" if len(unknown) == len(found) else f"{len(unknown)} of them are not"
        where = next((s.where or s.filename for s in samples if unknown[0] in s.labels), "")
        raise DataError(
            f"The classes of model and data do not meet: the data has {_some(sorted(found))}, the "
            f"model's label map "
            f"{_some(labels.names)}, and {met} in it ('{unknown[0]}' first in {where}).",
            "Give the label map that the model was trained with (--label-map), mend the data's "
            "names, or count every "
            "box as one class (--one-class).",
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


def require_ground_truth(ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> None:
    """Refuse to measure against nothing.

    Raises:
        DataError: no picture, or not one box that counts.
        ValueError: the sequences do not run side by side.
    """
    if len(ground_truths) != len(detections):
        raise ValueError(f"{len(ground_truths)} pictures but detections for {len(detections)}")
    if not any((~g.ignore).any() for g in ground_truths):
        boxes = sum(map(len, ground_truths))
        raise DataError(
            f"There is nothing to measure against: {len(ground_truths)} pictures with {boxes} "
            f"boxes, none of which "
            "counts (boxes marked 'ignore' do not).",
            "Evaluate on a labelled data set; check --split and the annotations' path.",
        )


def aligned(
    ground_truths: Sequence[GroundTruth],
    detections: Mapping[str, Detections],
    source: str = "the predictions",
) -> list[Detections]:
    """Detections by file name -> one per picture, in order; a picture that is not named has none.

    Raises:
        DataError: detections for a picture that the ground truth does not know.
    """
    refuse_unknown(detections, {g.filename for g in ground_truths}, source)
    return [detections.get(g.filename, Detections.none()) for g in ground_truths]


def refuse_unknown(named: Iterable[str], known: Iterable[str], source: str) -> None:
    """Raise DataError where `named` has a picture that is not among `known`."""
    known = set(known)
    if unknown := sorted(set(named) - known):
        raise DataError(
            f"{source} name {len(unknown)} pictures that the ground truth does not know: "
            f"{_some(unknown, 3)}; "
            f"it knows {len(known)}, such as {_some(sorted(known), 1)}.",
            "Predictions and ground truth must be of the same pictures, under the same names.",
        )


def _some(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:most]) or "none"
    return f"{shown}, ..." if len(names) > most else shown
