"""Add the faces that a data set's labels miss, detected by a teacher.

    taught = teach(read_dataset("photos/"), "yunet.onnx")

The teacher is YuNet (`mirilla.data.yunet`), run on every picture at two sizes. Do not use a teacher whose licence
forbids commercial use: the licence would extend to its labels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes, files
from mirilla.data import images
from mirilla.data.annotations import Annotations, Entry, build
from mirilla.data.dataset import Dataset
from mirilla.data.folders import files_below
from mirilla.data.sample import Sample
from mirilla.data.yunet import MIN_SCORE, Found, YuNet
from mirilla.errors import DataError

CONFIDENT, DOUBTFUL = 0.7, MIN_SCORE  # minimum scores for a label, and for an ignored box
FACE = "face"
_MATCH_IOU, _MATCH_SHARE = 0.3, 0.6


def teach(
    dataset: Dataset,
    teacher: str | os.PathLike[str] | YuNet,
    *,
    confident: float = CONFIDENT,
    tighten: bool = False,
    cache: str | os.PathLike[str] | None = None,
    advance: Callable[[int], object] | None = None,
) -> Dataset:
    """Add the faces that a data set's labels miss.

    A detection that matches no box of the picture, ignored boxes included, becomes a label if its score is at least
    `confident`, with the score as its weight; otherwise it becomes an ignored box. The picture's own boxes are kept.

    Args:
        teacher: a YuNet, or its ONNX file.
        confident: minimum score of a face.
        tighten: replace a labelled face's box by a confident detection that matches it (loosely drawn labels reduce
            accuracy).
        cache: file that stores the detections of each picture, so that each is processed only once.
        advance: called with 1 for every picture.

    Returns:
        The data set with the added boxes; its last note counts them.

    Raises:
        DataError: the data set has several classes and none is called 'face', or a picture cannot be decoded.
        ModelError, MissingExtraError: as YuNet.load.
    """
    if len(dataset.labels) > 1 and FACE not in dataset.labels:
        raise DataError(
            f"{dataset.source}: it has the classes {', '.join(dataset.labels)}; none is called '{FACE}'.",
            f"Rename the class of faces: mirilla data convert SRC DST --rename {dataset.labels[0]}={FACE}.",
        )
    label = FACE if FACE in dataset.labels or not dataset.labels else dataset.labels[0]
    teacher = teacher if isinstance(teacher, YuNet) else YuNet.load(teacher)
    samples, counts = [], np.zeros(3, np.int64)
    with _CachedTeacher(teacher, cache) as detect:
        for sample in dataset.samples:
            taught, added = add(sample, detect(sample), label, confident, tighten)
            samples.append(taught)
            counts += added
            if advance is not None:
                advance(1)
    note = f"Teacher: added {counts[0]} faces to {dataset.boxes} labels and {counts[1]} ignored boxes (doubtful faces)"
    note += f"; tightened {counts[2]} boxes." if tighten else "."
    labels = dataset.labels or (label,)
    return replace(dataset, samples=tuple(samples), labels=labels, notes=(*dataset.notes, note))


def add(
    sample: Sample, found: Found, label: str = FACE, confident: float = CONFIDENT, tighten: bool = False
) -> tuple[Sample, tuple[int, int, int]]:
    """Add the detections that match none of a sample's boxes.

    Returns:
        The sample, and the numbers of added labels, added ignored boxes and tightened boxes.
    """
    detections, scores = found
    is_new = ~matches(detections, sample.boxes_yxyx).any(1) & (scores >= DOUBTFUL)
    own, tightened = _tightened(sample, detections, scores >= confident) if tighten else (sample.boxes_yxyx, 0)
    is_face = scores[is_new] >= confident
    count = len(is_face)
    unset = np.zeros(count, bool)
    taught = replace(
        sample,
        boxes_yxyx=np.concatenate([own, detections[is_new]]),
        labels=(*sample.labels, *[label] * count),
        ignore=np.concatenate([sample.ignore, ~is_face]),
        difficult=np.concatenate([sample.difficult, unset]),
        group_of=np.concatenate([sample.group_of, unset]),
        is_crowd=np.concatenate([sample.is_crowd, unset]),
        weight=np.concatenate([sample.weight, np.where(is_face, scores[is_new], 1.0)]),
        attributes={n: np.concatenate([v, np.zeros(count, np.int64)]) for n, v in sample.attributes.items()},
    )
    return taught, (int(is_face.sum()), int((~is_face).sum()), tightened)


def _tightened(
    sample: Sample, detections: NDArray[np.floating], is_confident: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], int]:
    """The sample's boxes, with confident detections in place of those that they match best; and how many."""
    own = sample.boxes_yxyx.copy()
    if not len(detections) or not len(own):
        return own, 0
    overlap = boxes.iou(detections, own)
    best = overlap.argmax(0)  # (boxes,): the best detection of each
    count = 0
    for i in np.flatnonzero(~sample.ignore & is_confident[best] & (overlap.max(0) >= _MATCH_IOU)):
        if overlap[best[i]].argmax() == i:
            own[i] = detections[best[i]]
            count += 1
    return own, count


def matches(detections: NDArray[np.floating], own: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N, 4), (M, 4) -> (N, M): whether a detection and a box show the same face.

    Their IoU is at least 0.3, or at least 0.6 of the smaller one is inside the other.
    """
    smaller = np.minimum(boxes.area(detections)[:, None], boxes.area(own)[None])
    share = boxes.intersection(detections, own) / np.maximum(smaller, 1e-12)
    return (boxes.iou(detections, own) >= _MATCH_IOU) | (share >= _MATCH_SHARE)


def pictures(folder: str | os.PathLike[str]) -> Dataset:
    """A folder of unlabelled pictures, subfolders included, as a data set for `teach`.

    Raises:
        DataError: there is no such folder, or no picture in it that can be opened.
    """
    folder = Path(folder)
    below, problems = files_below(folder)
    paths = [path for path in below if images.is_picture_name(path.name)]
    if not paths:
        raise DataError(f"{folder}: no picture in this folder.", "Give a data set, or a folder of photos.")
    entries = (Entry(path, path.relative_to(folder).as_posix(), np.zeros((0, 4)), (), str(path)) for path in paths)
    return build(Annotations("pictures", folder, tuple(entries), tuple(problems)))


class _CachedTeacher:
    """A teacher with a cache file: one JSON line per picture. A file from another teacher is started again."""

    def __init__(self, teacher: YuNet, path: str | os.PathLike[str] | None):
        self._teacher = teacher
        self._path = None if path is None else Path(path)
        self._head = {"teacher": teacher.digest, "sizes_px": list(teacher.sizes_px), "from": DOUBTFUL}
        self._known: dict[str, list[list[float]]] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> Callable[[Sample], Found]:
        if self._path is not None:
            with files.explaining(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._read(self._path)
                kept = [self._head, *({"picture": k, "faces": v} for k, v in self._known.items())]
                files.write_text(self._path, "".join(f"{json.dumps(line)}\n" for line in kept))
                self._file = self._path.open("a", encoding="utf-8")
        return self._detect

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
            if not lines or json.loads(lines[0]) != self._head:
                return
            for line in lines[1:]:
                entry = json.loads(line)
                self._known[str(entry["picture"])] = np.array(entry["faces"], np.float64).reshape(-1, 5).tolist()
        except (ValueError, KeyError, TypeError, RecursionError):  # a damaged line: keep the lines before it
            return

    def _detect(self, sample: Sample) -> Found:
        with files.explaining(sample.filename):
            content = sample.encoded()
        key = hashlib.sha256(content).hexdigest()
        if key not in self._known:
            boxes_yxyx, scores = self._teacher(images.decode_rgb(content))
            self._known[key] = np.column_stack([boxes_yxyx, scores]).round(6).tolist()
            if self._file is not None:
                self._file.write(json.dumps({"picture": key, "faces": self._known[key]}) + "\n")
        rows = np.array(self._known[key], np.float64).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]
