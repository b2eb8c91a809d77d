"""Faces that the labels miss, found by a teacher: a data set in, the same with more labels out.

    taught = teach(read_dataset("photos/"), "yunet.onnx")

The teacher is YuNet as an ONNX file (github.com/ShiqiYu/libfacedetection.train, or OpenCV's model zoo; MIT and
Apache-2.0). It looks at every picture at two sizes: the smaller finds faces that fill the picture, the larger
those far away. Do not take a teacher whose licence forbids commercial use: its labels would carry that on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirilla import boxes, files
from mirilla.data import images
from mirilla.data.dataset import Annotations, Dataset, Entry, build
from mirilla.data.sample import Sample
from mirilla.errors import DataError, MissingExtraError, ModelError

SIZES_PX = (320, 640)  # the picture's longer side
CONFIDENT, DOUBTFUL = 0.7, 0.3
FACE = "face"
_STRIDES = (8, 16, 32)
_NMS_IOU = 0.4
_MET_IOU, _MET_SHARE = 0.3, 0.6  # a find meets a label from this IoU on, or if so much of the smaller is shared

Found = tuple[NDArray[np.floating], NDArray[np.floating]]  # boxes_yxyx (N, 4), scores (N,)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A face detector that labels pictures.

    session: onnxruntime's, of a YuNet whose input may have any size.
    digest: SHA-256 of its file: what it found in a picture is kept under this.
    """

    session: Any
    digest: str
    sizes_px: tuple[int, ...] = SIZES_PX

    @classmethod
    def load(cls, path: str | os.PathLike[str], sizes_px: Sequence[int] = SIZES_PX) -> Teacher:
        """Open a YuNet.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            ModelError: no ONNX file, or not of a YuNet.
        """
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "onnx", "Labelling with a teacher") from None
        with files.explaining(path):
            content = Path(path).read_bytes()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path}: not a whole ONNX model ({reason}).", "Copy the file again.") from None
        names = {one.name for one in session.get_outputs()}
        missing = sorted({f"{kind}_{s}" for kind in ("cls", "obj", "bbox") for s in _STRIDES} - names)
        shape = session.get_inputs()[0].shape
        if missing:
            raise ModelError(
                f"{path}: not a YuNet: it has no output '{missing[0]}'.",
                "Give a YuNet's ONNX file, face_detection_yunet of OpenCV's model zoo say.",
            )
        if any(isinstance(side, int) for side in shape[2:]):
            raise ModelError(
                f"{path}: its input has the fixed size {'x'.join(map(str, shape[2:]))}.",
                "Give a YuNet that takes pictures of any size (yunet_n_dynamic.onnx).",
            )
        return cls(session, hashlib.sha256(content).hexdigest(), tuple(sizes_px))

    def __call__(self, image: NDArray[np.uint8]) -> Found:
        """Faces in a picture (H, W, 3) uint8 RGB, best first: boxes_yxyx, normalised and clipped, and scores
        from DOUBTFUL on.
        """
        parts = [self._at(image, size) for size in self.sizes_px]
        found, scores = (np.concatenate(one) for one in zip(*parts, strict=True))
        kept = boxes.nms(found, scores, _NMS_IOU, len(scores))
        return boxes.clip(found[kept]), scores[kept]

    def _at(self, image: NDArray[np.uint8], size_px: int) -> Found:
        height, width = image.shape[:2]
        scale = size_px / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
        canvas = np.zeros((-(-rows // 32) * 32, -(-columns // 32) * 32, 3), np.float32)
        canvas[:rows, :columns] = small[:, :, ::-1]  # YuNet takes BGR
        outputs = [one.name for one in self.session.get_outputs()]
        fed = {self.session.get_inputs()[0].name: np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])}
        out = dict(zip(outputs, self.session.run(outputs, fed), strict=True))
        found, scores = zip(*(_decoded(out, s, canvas.shape[1] // s) for s in _STRIDES), strict=True)
        return np.concatenate(found) / [rows, columns, rows, columns], np.concatenate(scores)


def _decoded(out: Mapping[str, NDArray], stride: int, across: int) -> Found:
    """One map's boxes [ymin, xmin, ymax, xmax] in pixels and scores: the geometric mean of class and
    objectness; centres are offsets from the cell's corner, sizes logarithms, both in strides.
    """
    score = np.sqrt(
        np.clip(out[f"cls_{stride}"].reshape(-1), 0, 1) * np.clip(out[f"obj_{stride}"].reshape(-1), 0, 1)
    )
    cells = np.flatnonzero(score >= DOUBTFUL)
    codes = out[f"bbox_{stride}"].reshape(-1, 4)[cells].astype(np.float64)
    x, y = (cells % across + codes[:, 0]) * stride, (cells // across + codes[:, 1]) * stride
    half_w, half_h = np.exp(codes[:, 2]) * stride / 2, np.exp(codes[:, 3]) * stride / 2
    return np.stack([y - half_h, x - half_w, y + half_h, x + half_w], 1), score[cells].astype(np.float64)


def teach(
    dataset: Dataset,
    teacher: str | os.PathLike[str] | Teacher,
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
        teacher: a YuNet's ONNX file, or a Teacher.
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
        ModelError, MissingExtraError: as Teacher.load.
    """
    if len(dataset.labels) > 1 and FACE not in dataset.labels:
        raise DataError(
            f"{dataset.source}: it has the classes {', '.join(dataset.labels)}; none is called '{FACE}'.",
            f"Rename the class of faces: mirilla data convert SRC DST --rename {dataset.labels[0]}={FACE}.",
        )
    label = FACE if FACE in dataset.labels or not dataset.labels else dataset.labels[0]
    teacher = teacher if isinstance(teacher, Teacher) else Teacher.load(teacher)
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
    met = _meets(finds, own)  # (finds, own boxes)
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
        attributes={
            n: np.concatenate([v, np.zeros(len(new), np.int64)]) for n, v in sample.attributes.items()
        },
    )
    return taught, (int(sure.sum()), int((~sure).sum()), tightened)


def _meets(finds: NDArray, own: NDArray) -> NDArray[np.bool_]:
    """Which find (N) shows the thing of which box (M): they overlap well, or one lies mostly in the other."""
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
    entries = (
        Entry(path, path.relative_to(folder).as_posix(), np.zeros((0, 4)), (), str(path)) for path in found
    )
    name = Path(os.path.abspath(folder)).name or "pictures"
    return build(Annotations(name, "pictures", folder, tuple(entries)))


class _Cache:
    """What a teacher found, a JSON line for each picture; another teacher's file is begun anew."""

    def __init__(self, path: str | os.PathLike[str] | None, teacher: Teacher):
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
