"""Samples as tf.train.Example messages with the features of the Object Detection API.

Features: image/{height,width,filename,source_id,encoded,format}, image/object/bbox/{xmin,xmax,ymin,ymax},
image/object/class/{text,label}; and, only if a box of the picture has them,
image/object/{difficult,group_of,is_crowd,weight} and Mirilla's own image/object/ignore. An ignored box also has
weight 0, so that the API's training, which does not know that feature, learns nothing from it.

A photo with EXIF rotation: its bytes are copied, and TensorFlow's decoders do not turn it. So height, width and boxes
in the record are those of the stored picture, so boxes and pixels agree in TensorFlow; Mirilla's own
image/orientation marks such a record. Mirilla's reader turns the boxes back.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirilla.data import images
from mirilla.data.output import safe_name
from mirilla.data.sample import FLAGS, Sample
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding
from mirilla.labels import LabelMap
from mirilla.protos import example

T = TypeVar("T", bytes, int)
Labels = LabelMap | Mapping[str, int] | Iterable[str]
_COPIED_FORMATS = ("jpeg", "png")  # what the API's own scripts store; others are stored as PNG, without loss
_CORNERS = ("ymin", "xmin", "ymax", "xmax")
_TEXTS = ("image/object/class/text", "image/object/bbox/label_text")  # the second ones are SSD-Tensorflow's
_NUMBERS = ("image/object/class/label", "image/object/bbox/label")
_WRONG_WRITER = "Fix the program that wrote the record, and write it again."


def label_ids(labels: Labels) -> dict[str, int]:
    """Class name -> id in the record, from a LabelMap, a mapping, or names (numbered from 1)."""
    if isinstance(labels, Mapping):
        return {str(name): int(number) for name, number in labels.items()}
    if isinstance(labels, LabelMap):
        ids = {item.name: item.id for item in labels}
        return ids | {
            item.display_name: item.id for item in labels if item.display_name and item.display_name not in ids
        }
    return {str(name): number for number, name in enumerate(labels, 1)}


def to_example(sample: Sample, ids: Mapping[str, int]) -> bytes:
    """The bytes of a sample's Example.

    Raises:
        DataError: the picture cannot be read, or a label is not in `ids`.
    """
    numbers = [_number_of(label, ids, sample) for label in sample.labels]
    with explaining(sample.filename):
        encoded = sample.encoded()
    header = images.header_of(encoded)
    boxes, (height, width), orientation = sample.boxes_yxyx, header.stored_px, header.orientation
    if header.format not in _COPIED_FORMATS:
        encoded, (height, width), orientation = _as_png(encoded), header.upright_px, 1
    if orientation != 1:
        boxes = images.to_stored(boxes, orientation)
    features: dict[str, Iterable[bytes] | Iterable[float] | Iterable[int]] = {
        "image/height": [height],
        "image/width": [width],
        "image/filename": [sample.filename.encode()],
        "image/source_id": [sample.filename.encode()],
        "image/encoded": [encoded],
        "image/format": [b"jpeg" if header.format == "jpeg" else b"png"],
        "image/object/class/text": [label.encode() for label in sample.labels],
        "image/object/class/label": numbers,
    }
    features |= {f"image/object/bbox/{corner}": boxes[:, i].tolist() for i, corner in enumerate(_CORNERS)}
    for flag in FLAGS:
        if (values := getattr(sample, flag)).any():
            features[f"image/object/{flag}"] = [int(value) for value in values]
    weight = np.where(sample.ignore, 0.0, sample.weight)
    if (weight != 1).any():
        features["image/object/weight"] = weight.tolist()
    if orientation != 1:
        features["image/orientation"] = [orientation]
    return example.encode(features)


def _number_of(label: str, ids: Mapping[str, int], sample: Sample) -> int:
    if label not in ids:
        raise DataError(
            f"{sample.where or sample.filename}: the label '{label}' is not in the label map "
            f"({', '.join(ids) or 'it is empty'}).",
            "Add it to the label map, or correct the label.",
        )
    return ids[label]


def _as_png(encoded: bytes) -> bytes:
    png = io.BytesIO()
    Image.fromarray(images.decode_rgb(encoded)).save(png, "PNG")
    return png.getvalue()


def from_example(
    content: bytes,
    where: str,
    names: Mapping[int, str] | None = None,
    findings: list[Finding] | None = None,
) -> Sample:
    """A sample from the bytes of an Example; image/object/class/text takes precedence over class/label.

    Args:
        where: file and record number, for messages.
        names: id -> class name, for records with numbers only.
        findings: a list to which findings are added.

    Raises:
        DataError: not an Example, no picture in it, or lists of different lengths.
    """
    features = _Features(example.decode(content, where), where)
    encoded = features.single("image/encoded", b"")
    if not encoded:
        raise DataError(
            f"{where}: the record has no picture (image/encoded).",
            "Check which program wrote the file: Mirilla reads the Object Detection API's features.",
        )
    try:
        header = images.header_of(encoded)
    except DataError as error:
        raise DataError(f"{where}: {error.what}", error.remedy) from error
    _refuse_other_features(features)
    boxes, labels = _boxes(features), _labels(features, names or {}, findings)
    if len(labels) != len(boxes):
        classes = " or ".join((*_TEXTS, *_NUMBERS))
        missing = "" if labels else f" (in {classes})"
        raise DataError(f"{where}: {len(boxes)} boxes but {len(labels)} labels{missing}.", _WRONG_WRITER)
    declared = features.single("image/height", 0), features.single("image/width", 0)
    boxes, finding = _upright(boxes, declared, header, bool(features.all("image/orientation")), where)
    if finding and findings is not None:
        findings.append(finding)
    ignore, difficult, group_of, is_crowd = (
        features.per_box(f"image/object/{flag}", len(boxes)).astype(bool) for flag in FLAGS
    )
    weight = features.per_box("image/object/weight", len(boxes))
    if len(weight) and len(ignore):
        weight = np.where(ignore, 1.0, weight)
    filename = features.single("image/filename", b"") or features.single("image/source_id", b"") or b"record"
    return Sample(
        encoded,
        safe_name(filename.decode("utf-8", "replace"), header.format),
        *header.upright_px,
        boxes,
        labels,
        ignore,
        difficult,
        group_of,
        is_crowd,
        weight,
        where=where,
    )


class _Features:
    """The features of one record; errors name the record."""

    def __init__(self, features: Mapping[str, example.Value], where: str):
        self.features, self.where = features, where

    def all(self, name: str) -> Sequence[bytes] | Sequence[float] | Sequence[int]:
        """The values; empty if there are none."""
        return self.features.get(name, [])

    def single(self, name: str, default: T) -> T:
        """The first value.

        Raises:
            DataError: it has another type than `default`.
        """
        value = next(iter(self.all(name)), default)
        if not isinstance(value, type(default)):
            kind, expected = type(value).__name__, type(default).__name__
            raise DataError(f"{self.where}: {name} has the type {kind}, but must have the type {expected}.")
        return value

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a feature of numbers.

        Raises:
            DataError: they are bytes.
        """
        values = self.all(name)
        if values and isinstance(values[0], bytes):
            raise DataError(f"{self.where}: {name} has bytes, but must have numbers.", _WRONG_WRITER)
        return np.array(values, np.float64)

    def texts(self, names: Sequence[str]) -> tuple[str, ...]:
        """The strings of the first of several features that has any.

        Raises:
            DataError: they are numbers, or not UTF-8.
        """
        name = next(filter(self.all, names), "")
        texts = [value for value in self.all(name) if isinstance(value, bytes)]
        if len(texts) < len(self.all(name)):
            raise DataError(f"{self.where}: {name} has numbers, but must have bytes.", _WRONG_WRITER)
        try:
            return tuple(text.decode() for text in texts)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where}: {name} is not UTF-8: {error.object[:40]!r}.", _WRONG_WRITER) from error

    def integers(self, names: Sequence[str]) -> list[int]:
        """The whole numbers of the first of several features that has any.

        Raises:
            DataError: they are bytes, or not whole.
        """
        name = next(filter(self.all, names), "")
        values = self.numbers(name)
        if not all(value.is_integer() for value in values.tolist()):
            raise DataError(f"{self.where}: {name} has numbers that are not whole.", _WRONG_WRITER)
        return [int(value) for value in values]

    def per_box(self, name: str, count: int) -> NDArray[np.float64]:
        """A number for each box; empty if the record does not have the feature.

        Raises:
            DataError: there are more or fewer values than boxes, or they are bytes or not finite.
        """
        values = self.numbers(name)
        if len(values) and len(values) != count:
            raise DataError(f"{self.where}: {name} has {len(values)} values for {count} boxes.", _WRONG_WRITER)
        if not np.isfinite(values).all():
            raise DataError(f"{self.where}: {name} has a number that is not finite.", _WRONG_WRITER)
        return values


def _boxes(features: _Features) -> NDArray[np.float64]:
    """(N, 4) [ymin, xmin, ymax, xmax] as the record has them."""
    for corner in _CORNERS:
        if any(isinstance(value, int) for value in features.all(f"image/object/bbox/{corner}")[:1]):
            raise DataError(
                f"{features.where}: image/object/bbox/{corner} has integers, but must have floats: int() cuts "
                "coordinates from 0 to 1 down to 0 or 1.",
                _WRONG_WRITER,
            )
    columns = [features.numbers(f"image/object/bbox/{corner}") for corner in _CORNERS]
    if len({len(column) for column in columns}) > 1:
        raise DataError(
            f"{features.where}: the lists ymin, xmin, ymax, xmax have {[len(column) for column in columns]} values; "
            "they must have the same length.",
            _WRONG_WRITER,
        )
    return np.array(columns).T.reshape(-1, 4)


def _refuse_other_features(features: _Features) -> None:
    """Refuse a record whose boxes have other names, or that has a class of the whole picture: it is no background."""
    names = [name for name, values in features.features.items() if values]
    if any(name.startswith("image/object/") for name in names):
        return
    for name in names:
        if "bbox" in name.lower() or "xmin" in name.lower():
            raise DataError(f"{features.where}: it has {name}, but no image/object/bbox/xmin.", _WRONG_WRITER)
        if name in ("image/class/label", "image/class/text"):
            what = f"{features.where}: it has a class of the whole picture ({name}), but no boxes."
            raise DataError(what, "Use records of object detection.")


def _labels(features: _Features, names: Mapping[int, str], findings: list[Finding] | None) -> tuple[str, ...]:
    """Class names from the text, or else from the numbers; empty if the record has neither."""
    texts, numbers = features.texts(_TEXTS), features.integers(_NUMBERS)
    labels = texts or tuple(names.get(number, str(number)) for number in numbers)
    problems: list[str] = []
    for number, label in zip(numbers, labels, strict=False):
        if number < 1:
            problems.append(f"the class '{label}' has the number {number}, but numbers begin with 1 (0: background).")
        elif names and not texts and number not in names:
            problems.append(f"class {number} is not in the label map; its number is used as its name.")
        elif names.get(number, label) != label and label in names.values():
            problems.append(f"class {number} is '{names[number]}' in the label map, but the records call it '{label}'.")
    if findings is not None:
        remedy = "Correct the label map."
        findings += [Finding("warning", "class-number", features.where, what, remedy) for what in problems]
    return labels


def _upright(
    boxes: NDArray[np.float64], declared_px: tuple[int, int], header: images.Header, ours: bool, where: str
) -> tuple[NDArray[np.float64], Finding | None]:
    """Boxes of the upright picture, and a finding if the record's (height, width) differs from the picture's.

    A record of another program describes the stored picture, unless its size is that of the upright one.
    """
    square = header.stored_px == header.upright_px
    if header.orientation != 1 and (ours or square or declared_px != header.upright_px):
        boxes = images.to_upright(boxes, header.orientation)
        if header.orientation >= 5:
            declared_px = (declared_px[1], declared_px[0])
    if declared_px in ((0, 0), header.upright_px):
        return boxes, None
    (height, width), (upright_height, upright_width) = declared_px, header.upright_px
    return boxes, Finding(
        "warning",
        "size-mismatch",
        where,
        f"the record's size is {width}x{height} px, but its picture has {upright_width}x{upright_height}; boxes are "
        "relative, so they are used unchanged.",
    )
