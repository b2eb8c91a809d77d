"""Faces that the labels miss, found by a teacher: a data set in, the same with more labels out.

    taught = teach(read_dataset("photos/"), "yunet.onnx")

The teacher is YuNet (`mirilla.data.yunet`), looking at every picture at two sizes. Do not take one whose licence
forbids commercial use: its labels would carry that on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes, files
from mirilla.data import images
from mirilla.data.annotations import Annotations, Entry, build
from mirilla.data.dataset import Dataset
from mirilla.data.sample import Sample
from mirilla.data.yunet import LEAST_SCORE, Found, YuNet
from mirilla.errors import DataError

CONFIDENT, DOUBTFUL = 0.7, LEAST_SCORE
FACE = "face"
_MET_IOU, _MET_SHARE = 0.3, 0.6  # a find meets a label from this IoU on, or if so much of the smaller is shared


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

    A find that meets no box of the picture, ignored ones included, becomes a label with its score as its
    weight from `confident` on; less certain finds become ignored boxes. The picture's own boxes stay.

    Args:
        teacher: a YuNet, or its ONNX file.
        confident: score from which on a find counts as a face.
        tighten: give a labelled face the teacher's box where that one is confident and meets it (loosely
            drawn labels cost accuracy).
        cache: file that keeps what was found in each picture, so that it is looked for once only.
        advance: called with 1 for every picture.

    Returns:
        The data set with further boxes; its last note counts them.

    Raises:
        DataError: the labels are not of one class, so that nobody knows what a face is called there; or a
            picture cannot be decoded.
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
    with _Cache(cache, teacher) as look:
        for sample in dataset.samples:
            taught, added = add(sample, look(sample), label, confident, tighten)
            samples.append(taught)
            counts += added
            if advance is not None:
                advance(1)
    note = f"Teacher: {counts[0]} faces added to {dataset.boxes} labels, {counts[1]} doubtful ones ignored"
    note += f", {counts[2]} boxes tightened." if tighten else "."
    labels = dataset.labels or (label,)
    return replace(dataset, samples=tuple(samples), labels=labels, notes=(*dataset.notes, note))


def add(
    sample: Sample, found: Found, label: str = FACE, confident: float = CONFIDENT, tighten: bool = False
) -> tuple[Sample, tuple[int, int, int]]:
    """A sample with the finds that meet none of its boxes; how many became labels, were ignored, and how
    many of its boxes were tightened.
    """
    finds, scores = found
    own = sample.boxes_yxyx.copy()
    met = meets(finds, own)  # (finds, own boxes)
    tightened = 0
    if tighten and len(finds) and len(own):
        overlap = boxes.iou(finds, own)
        best = overlap.argmax(0)
        for i in np.flatnonzero(~sample.ignore):
            j = int(best[i])
            if overlap[j, i] >= _MET_IOU and overlap[j].argmax() == i and scores[j] >= confident:
                own[i] = finds[j]
                tightened += 1
    new = np.flatnonzero(~met.any(1) & (scores >= DOUBTFUL))
    sure = scores[new] >= confident
    none = np.zeros(len(new), bool)
    taught = replace(
        sample,
        boxes_yxyx=np.concatenate([own, finds[new]]),
        labels=(*sample.labels, *[label] * len(new)),
        ignore=np.concatenate([sample.ignore, ~sure]),
        difficult=np.concatenate([sample.difficult, none]),
        group_of=np.concatenate([sample.group_of, none]),
        is_crowd=np.concatenate([sample.is_crowd, none]),
        weight=np.concatenate([sample.weight, np.where(sure, scores[new], 1.0)]),
        attributes={n: np.concatenate([v, np.zeros(len(new), np.int64)]) for n, v in sample.attributes.items()},
    )
    return taught, (int(sure.sum()), int((~sure).sum()), tightened)


def meets(finds: NDArray, own: NDArray) -> NDArray[np.bool_]:
    """(N, 4), (M, 4) -> (N, M): which find shows the thing of which box. They overlap well, or one lies mostly in the
    other.
    """
    smaller = np.minimum(boxes.area(finds)[:, None], boxes.area(own)[None])
    share = boxes.intersection(finds, own) / np.maximum(smaller, 1e-12)
    return (boxes.iou(finds, own) >= _MET_IOU) | (share >= _MET_SHARE)


def pictures(folder: str | os.PathLike[str]) -> Dataset:
    """A folder of pictures without labels, searched deeply, as a data set for `teach`.

    Raises:
        DataError: no such folder, or no picture in it that can be opened.
    """
    folder = Path(folder)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in images.EXTENSIONS and p.is_file())
    if not found:
        raise DataError(f"{folder}: no picture in this folder.", "Give a data set, or a folder of photos.")
    entries = (Entry(path, path.relative_to(folder).as_posix(), np.zeros((0, 4)), (), str(path)) for path in found)
    return build(Annotations("pictures", folder, tuple(entries)))


class _Cache:
    """What a teacher found, a JSON line for each picture; another teacher's file is begun anew."""

    def __init__(self, path: str | os.PathLike[str] | None, teacher: YuNet):
        self.path = None if path is None else Path(path)
        self.teacher = teacher
        self.head = {"teacher": teacher.digest, "sizes_px": list(teacher.sizes_px), "from": DOUBTFUL}
        self.known: dict[str, list[list[float]]] = {}
        self.file: Any = None

    def __enter__(self) -> Callable[[Sample], Found]:
        if self.path is not None:
            with files.explaining(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._read()
                kept = [self.head, *({"picture": k, "faces": v} for k, v in self.known.items())]
                files.write_text(self.path, "".join(f"{json.dumps(one)}\n" for one in kept))
                self.file = self.path.open("a", encoding="utf-8")
        return self._look

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def _read(self) -> None:
        assert self.path is not None
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        try:
            if not lines or json.loads(lines[0]) != self.head:
                return
            for line in lines[1:]:
                one = json.loads(line)
                self.known[one["picture"]] = one["faces"]
        except (ValueError, KeyError, TypeError):  # a line cut short: what came before it stands
            return

    def _look(self, sample: Sample) -> Found:
        with files.explaining(sample.filename):
            content = sample.encoded()
        key = hashlib.sha256(content).hexdigest()
        if key not in self.known:
            found, scores = self.teacher(images.decode_rgb(content))
            self.known[key] = np.column_stack([found, scores]).round(6).tolist()
            if self.file is not None:
                self.file.write(json.dumps({"picture": key, "faces": self.known[key]}) + "\n")
        rows = np.array(self.known[key], np.float64).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]
