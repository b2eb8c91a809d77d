"""WIDER FACE's easy, medium and hard AP by the benchmark's own rule.

Source: Yang et al., "WIDER FACE: A Face Detection Benchmark", 2016, and the behaviour of the evaluation tools published
with it: scores are scaled to [0, 1] over the set, boxes are one pixel wider and higher than their w and h, there are
1,000 thresholds, and each level has a list of the faces that count (all others are ignored).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import matlab
from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.evaluation.interface import Curve, Figure, GroundTruth, Result, refuse_unknown
from mirilla.evaluation.precision_recall import envelope

LEVELS = ("easy", "medium", "hard")
THRESHOLDS = 1000


@dataclass(frozen=True)
class WiderPicture:
    """The faces of one picture: boxes_px_xywh (N, 4); counts (3, N) bool, whether a face counts at each level."""

    name: str
    boxes_px_xywh: NDArray[np.float64]
    counts: NDArray[np.bool_]


@dataclass(frozen=True)
class WiderFace:
    """The evaluator; `WiderFace.load(folder)` reads the benchmark's ground truth.

    pictures: in the benchmark's order; names are "EVENT/PICTURE" without a suffix.
    """

    pictures: tuple[WiderPicture, ...]
    iou: float = 0.5

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> WiderFace:
        """Read wider_face_val.mat and wider_{easy,medium,hard}_val.mat from a folder (or its `ground_truth`).

        Raises:
            DataError: a file is missing, or is not the benchmark's.
            MissingExtraError: scipy is not installed.
        """
        folder = Path(folder)
        if not (folder / "wider_face_val.mat").exists() and (folder / "ground_truth").is_dir():
            folder = folder / "ground_truth"
        whole = _load_mat(folder / "wider_face_val.mat", ("event_list", "file_list", "face_bbx_list"))
        levels = [_load_mat(folder / f"wider_{level}_val.mat", ("gt_list",)) for level in LEVELS]
        pictures = []
        try:
            for e, event in enumerate(_column(whole["event_list"])):
                names, faces = _column(whole["file_list"][e, 0]), _column(whole["face_bbx_list"][e, 0])
                kept = [_column(level["gt_list"][e, 0]) for level in levels]
                for p, name in enumerate(names):
                    boxes = np.asarray(faces[p], np.float64).reshape(-1, 4)
                    counts = np.zeros((len(LEVELS), len(boxes)), bool)
                    for at, lists in zip(counts, kept, strict=True):
                        at[np.asarray(lists[p], np.int64).reshape(-1) - 1] = True  # numbers in the file start at 1
                    pictures.append(WiderPicture(f"{_text(event)}/{_text(name)}", boxes, counts))
        except (IndexError, ValueError, TypeError) as error:
            raise DataError(
                f"{folder}: the .mat files are not WIDER FACE's ground truth, or do not match each other: {error}.",
                "Use the four files of the benchmark's evaluation tools.",
            ) from error
        return cls(tuple(pictures))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.pictures)

    def evaluate(self, ground_truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Result:
        """As `evaluate_predictions`, from detections; only names and sizes of `ground_truths` are used."""
        rows = {}
        for truth, found in zip(ground_truths, detections, strict=True):
            rows[picture_name(truth.filename)] = rows_of(found, truth.height_px, truth.width_px)
        return self.evaluate_predictions(rows)

    def evaluate_predictions(self, predictions: Mapping[str, NDArray], source: str = "the predictions") -> Result:
        """Figures "easy", "medium", "hard".

        Args:
            predictions: "EVENT/PICTURE" -> (N, 5) [xmin, ymin, width, height, score] in the picture's pixels, with
                scores of any range. A picture that is missing has no detections.
            source: names the predictions in messages.

        Raises:
            DataError: predictions for a picture that is not in the ground truth, no predictions at all, or a ground
                truth without a face that counts.
        """
        refuse_unknown(predictions, self.names, source)
        low, span = _score_range(predictions, source)
        counted: list[list[NDArray]] = [[] for _ in LEVELS]  # scores of detections that count, per level and picture
        right: list[list[NDArray]] = [[] for _ in LEVELS]  # scores of the first detection of each face
        for picture in self.pictures:
            rows = predictions.get(picture.name)
            if rows is None or not len(rows) or not len(picture.boxes_px_xywh):
                continue
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            scores = (rows[:, 4] - low) / span
            overlap = _iou_plus_one(rows[:, :4], picture.boxes_px_xywh)
            best = overlap.argmax(1)
            near = overlap[np.arange(len(rows)), best] >= self.iou
            for level, faces_of_level in enumerate(picture.counts):
                on_face = near & faces_of_level[best]
                counted[level].append(scores[~near | on_face])
                hits = np.flatnonzero(on_face)
                _, first = np.unique(best[hits], return_index=True)
                right[level].append(scores[hits[first]])
        curves = [self._curve(level, counted[level], right[level]) for level in range(len(LEVELS))]
        without = len(set(self.names) - set(predictions))
        protocol = {
            "metric": "WIDER FACE AP (official rule)",
            "IoU": f"{self.iou:g}, boxes one pixel wider and higher",
            "interpolation": f"all points of {THRESHOLDS} score thresholds, scores scaled to [0, 1] over the set",
            "sizes": "the benchmark's levels",
            "ignored": "faces outside the level, and detections that overlap one of them most, count neither as "
            "right nor as wrong",
            "data": f"WIDER FACE validation, {len(self.pictures)} pictures, {without} of them without predictions",
        }
        figures = tuple(Figure(curve.name, curve.ap) for curve in curves)
        return Result("widerface", figures, protocol, tuple(curves))

    def _curve(self, level: int, counted: list[NDArray], right: list[NDArray]) -> Curve:
        """The curve of a level from the scores of detections that count and of those that are right."""
        total = sum(int(picture.counts[level].sum()) for picture in self.pictures)
        if not total:
            raise DataError(f"The ground truth has no face of the level '{LEVELS[level]}'.")
        recall, precision = _recall_and_precision(_joined(counted), _joined(right), total)
        return Curve(LEVELS[level], recall, precision, _area(recall, precision))


def _score_range(predictions: Mapping[str, NDArray], source: str) -> tuple[float, float]:
    """The lowest score, and the difference to the highest (1 if there is none)."""
    scores = [rows[:, 4] for rows in predictions.values() if len(rows)]
    if not scores:
        raise DataError(f"{source}: no box.", "Check the folder, and the detector's score threshold.")
    low, high = min(float(s.min()) for s in scores), max(float(s.max()) for s in scores)
    return low, high - low or 1.0


def picture_name(filename: str) -> str:
    """A file name as "EVENT/PICTURE": without suffix and without folders before the event."""
    parts = filename.replace("\\", "/").split("/")[-2:]
    stem, dot, suffix = parts[-1].rpartition(".")
    if dot and suffix.lower() in ("jpg", "jpeg", "png", "txt"):
        parts[-1] = stem
    return "/".join(parts)


def rows_of(found: Detections, height_px: int, width_px: int) -> NDArray[np.float64]:
    """Detections as the benchmark's rows (N, 5) [xmin, ymin, width, height, score] in pixels."""
    box = found.boxes_yxyx.astype(np.float64) * np.array([height_px, width_px] * 2)
    return np.stack(
        [box[:, 1], box[:, 0], box[:, 3] - box[:, 1], box[:, 2] - box[:, 0], found.scores.astype(np.float64)],
        1,
    )


def _iou_plus_one(a_xywh: NDArray, b_xywh: NDArray) -> NDArray:
    """IoU (N, M) of boxes that end one pixel after x + w and y + h, as in the official tools."""
    low = np.maximum(a_xywh[:, None, :2], b_xywh[None, :, :2])
    high = np.minimum((a_xywh[:, :2] + a_xywh[:, 2:4])[:, None], (b_xywh[:, :2] + b_xywh[:, 2:4])[None])
    side = np.maximum(high - low + 1, 0)
    shared = side[..., 0] * side[..., 1]
    areas = np.prod(a_xywh[:, 2:4] + 1, 1)[:, None] + np.prod(b_xywh[:, 2:4] + 1, 1)[None] - shared
    return np.where(areas > 0, shared / np.where(areas > 0, areas, 1), 0)


def _recall_and_precision(counted: NDArray, right: NDArray, total: int) -> tuple[NDArray, NDArray]:
    """Recall and precision (1000,) at the thresholds .999, .998, ... 0."""
    thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    shown = len(counted) - np.searchsorted(np.sort(counted), thresholds, side="left")
    found = len(right) - np.searchsorted(np.sort(right), thresholds, side="left")
    return found / total, np.where(shown > 0, found / np.maximum(shown, 1), 0)


def _area(recall: NDArray, precision: NDArray) -> float:
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope(precision)))


def _joined(parts: list[NDArray]) -> NDArray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _load_mat(path: Path, fields: Sequence[str]) -> dict[str, NDArray]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file.",
            "Put the benchmark's wider_face_val.mat and wider_{easy,medium,hard}_val.mat in one folder.",
        )
    content = matlab.load(path, fields)
    if missing := [f for f in fields if f not in content]:
        raise DataError(f"{path}: the file has no variable '{missing[0]}'.", "Use the benchmark's own file.")
    return content


def _column(cell: NDArray) -> list[NDArray]:
    return [row[0] for row in cell]


def _text(cell: NDArray) -> str:
    return str(np.asarray(cell).reshape(-1)[0])
