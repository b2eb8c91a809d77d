"""Samples in TFRecord files: tf.train.Example messages with the features of the Object Detection API.

Features: image/{height,width,filename,source_id,encoded,format}, image/object/bbox/{xmin,xmax,ymin,ymax},
image/object/class/{text,label}; and, only where a box of the picture has them,
image/object/{difficult,group_of,is_crowd,weight} and our own image/object/ignore. An ignored box is also
given weight 0, so the API's training, which does not know our feature, learns nothing from it.

A photo with EXIF rotation: its bytes are copied, and TensorFlow's decoders do not turn it. So height, width
and boxes in the record are those of the stored picture, and TensorFlow finds boxes and pixels in agreement;
our own image/orientation says that this was done. Our reader turns the boxes back.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from mirilla.data import images, records
from mirilla.data.dataset import Dataset, empty, free_name
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.files import explaining, writing
from mirilla.findings import Finding
from mirilla.parallel import in_order
from mirilla.protos import example

T = TypeVar("T", bytes, int)
SUFFIXES = (".tfrecord", ".tfrecords", ".record", ".records", ".tfrec")
_AS_THEY_ARE = ("jpeg", "png")  # what the API's own scripts store; others are stored as PNG, without loss


def label_ids(labels: object) -> dict[str, int]:
    """Class name -> id in the record, from a LabelMap, a mapping, or names (counted from 1)."""
    if isinstance(labels, Mapping):
        return {str(name): int(i) for name, i in labels.items()}
    if hasattr(labels, "id_of"):
        ids = {item.name: item.id for item in labels}  # type: ignore[attr-defined]
        return ids | {i.display_name: i.id for i in labels if i.display_name and i.display_name not in ids}  # type: ignore[attr-defined]
    return {str(name): i for i, name in enumerate(labels, 1)}  # type: ignore[arg-type, var-annotated]


def to_example(sample: Sample, ids: Mapping[str, int]) -> bytes:
    """One sample as the bytes of an Example.

    Raises:
        DataError: the picture cannot be read, or a label is not in `ids`.
    """
    with explaining(sample.filename):
        encoded = sample.encoded()
    header = images.header_of(encoded)
    boxes, (height, width), orientation = sample.boxes_yxyx, header.stored_px, header.orientation
    if header.format not in _AS_THEY_ARE:
        buffer = io.BytesIO()
        Image.fromarray(images.decode_rgb(encoded)).save(buffer, "PNG")
        encoded, (height, width), orientation = buffer.getvalue(), header.upright_px, 1
    if orientation != 1:
        boxes = images.to_stored(boxes, orientation)
    for label in sample.labels:
        if label not in ids:
            raise DataError(
                f"{sample.where or sample.filename}: the label '{label}' is not in the label map "
                f"({', '.join(ids) or 'it is empty'}).",
                "Add it to the label map, or mend the label.",
            )
    features: dict[str, Iterable] = {
        "image/height": [height],
        "image/width": [width],
        "image/filename": [sample.filename.encode()],
        "image/source_id": [sample.filename.encode()],
        "image/encoded": [encoded],
        "image/format": [b"jpeg" if header.format == "jpeg" else b"png"],
        "image/object/bbox/ymin": boxes[:, 0].tolist(),
        "image/object/bbox/xmin": boxes[:, 1].tolist(),
        "image/object/bbox/ymax": boxes[:, 2].tolist(),
        "image/object/bbox/xmax": boxes[:, 3].tolist(),
        "image/object/class/text": [label.encode() for label in sample.labels],
        "image/object/class/label": [ids[label] for label in sample.labels],
    }
    for name in ("difficult", "group_of", "is_crowd", "ignore"):
        flags = getattr(sample, name)
        if flags.any():
            features[f"image/object/{name}"] = [int(f) for f in flags]
    weight = np.where(sample.ignore, 0.0, sample.weight)
    if (weight != 1).any():
        features["image/object/weight"] = weight.tolist()
    if orientation != 1:
        features["image/orientation"] = [orientation]
    return example.encode(features)


def from_example(
    content: bytes, where: str, names: Mapping[int, str] | None = None, found: list[Finding] | None = None
) -> Sample:
    """A sample from an Example's bytes; image/object/class/text wins over class/label.

    Args:
        where: file and record number, for messages.
        names: id -> class name, for records that carry numbers only.
        found: findings are appended here.

    Raises:
        DataError: no Example, no picture in it, or lists that do not fit together.
    """
    features = example.decode(content, where)
    get = _Getter(features, where)
    encoded = get.one("image/encoded", b"")
    if not encoded:
        raise DataError(
            f"{where}: the record has no image/encoded, so no picture.",
            "Check which program wrote the file: Mirilla reads the Object Detection API's features.",
        )
    try:
        header = images.header_of(encoded)
    except DataError as error:
        raise DataError(f"{where}: {error.what}", error.remedy) from error
    coordinates = [get.many(f"image/object/bbox/{c}") for c in ("ymin", "xmin", "ymax", "xmax")]
    count = len(coordinates[0])
    texts, ids = get.many("image/object/class/text"), get.many("image/object/class/label")
    if any(len(c) != count for c in coordinates) or ((texts or ids) and len(texts or ids) != count):
        raise DataError(
            f"{where}: the box lists have {[len(c) for c in coordinates]} values (ymin, xmin, ymax, xmax) "
            f"and there are {len(texts or ids)} labels; all must be equally many.",
            "The program that wrote the record is wrong: write it again.",
        )
    boxes = np.array(coordinates, np.float64).T.reshape(-1, 4)
    declared = (int(get.one("image/height", 0)), int(get.one("image/width", 0)))
    boxes = _upright(boxes, declared, header, bool(get.many("image/orientation")), where, found)
    if texts:
        labels = tuple(t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in texts)
    else:
        labels = tuple((names or {}).get(int(i), str(int(i))) for i in ids) or ("object",) * count
    flags = {}
    for name in ("difficult", "group_of", "is_crowd", "ignore"):
        if values := get.many(f"image/object/{name}"):
            flags[name] = get.exactly(f"image/object/{name}", values, count)
    weight: np.ndarray | None = None
    if weights := get.many("image/object/weight"):
        weight = np.array(get.exactly("image/object/weight", weights, count), np.float64)
        if "ignore" in flags:
            weight = np.where(np.asarray(flags["ignore"], bool), 1.0, weight)
    height, width = header.upright_px
    filename = get.one("image/filename", b"") or get.one("image/source_id", b"") or b"record"
    name = filename.decode("utf-8", "replace") if isinstance(filename, bytes) else str(filename)
    return Sample(
        encoded,
        safe_name(name, header.format),
        height,
        width,
        boxes,
        labels,
        where=where,
        weight=weight,  # type: ignore[arg-type]
        **flags,
    )


def safe_name(name: str, picture_format: str = "jpeg") -> str:
    """A file name from outside, made safe to write below a folder: no drive, no leading '/', no '..'."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..") and not p.endswith(":")]
    safe = "/".join(parts).replace("\0", "") or "picture"
    if os.path.splitext(safe)[1].lower() not in images.EXTENSIONS:
        safe += {"jpeg": ".jpg"}.get(picture_format, f".{picture_format}")
    return safe


def write_tfrecords(
    samples: Iterable[Sample],
    labels: object,
    path: str | os.PathLike[str],
    shards: int = 1,
    advance: Callable[[int], object] | None = None,
) -> list[Path]:
    """Write samples into one file, or spread evenly over `shards` files named as TensorFlow names them.

    Either all files are written or none is: they are moved into place together at the end.

    Args:
        labels: a LabelMap, class names in order (ids from 1), or a mapping name -> id.
        path: `train.tfrecord`; with 10 shards, `train-00000-of-00010.tfrecord` and so on.

    Returns:
        The files.

    Raises:
        DataError: no sample at all, a picture that cannot be read, or a label that is not in the map.
    """
    ids = label_ids(labels)
    paths = records.shard_paths(path, shards)
    count = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(writing(p)) for p in paths]
        # the next pictures are read and packed while this one is written
        for content in in_order(lambda sample: to_example(sample, ids), samples):
            with explaining(paths[count % shards]):
                records.write_record(files[count % shards], content)
            count += 1
            if advance is not None:
                advance(1)
        if not count:
            raise DataError(f"{path}: there is no picture to write.", "Check the data set with 'mirilla data check'.")
        if count < shards:
            raise DataError(f"{path}: {count} pictures do not fill {shards} shards.", "Ask for fewer shards.")
    return paths


def read_tfrecords(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    labels: object = None,
    digests: Mapping[Path, records.Digest] | None = None,
) -> Iterator[Sample]:
    """The samples of TFRecord files, globs or shard sets, in the files' sorted order; pictures as bytes.

    Args:
        labels: as in `write_tfrecords`, for records that carry class numbers without text.
        digests: by file, given the file's bytes on the way.

    Raises:
        DataError: a file is missing, cut short or damaged, or a record cannot be used; names file and record
            number.
    """
    names: dict[int, str] = {}
    for label, number in label_ids(labels).items() if labels is not None else ():
        names.setdefault(number, label)
    for path in records.expand(paths):
        for index, content in enumerate(records.read_records(path, (digests or {}).get(path))):
            yield from_example(content, f"{path}, record {index}", names)


def load(
    paths: Sequence[Path],
    source: Path,
    name: str,
    parts: Mapping[Path, str] | None = None,
    names: Mapping[int, str] | None = None,
    labels: Sequence[str] = (),
    advance: Callable[[int], object] | None = None,
) -> Dataset:
    """A data set from TFRecord files; records that cannot be used become problems.

    Args:
        parts: file -> "train" or "eval".
        names: id -> class name, for records that carry numbers only.
    """
    samples: list[Sample] = []
    problems: list[Finding] = []
    which: dict[str, str] = {}
    taken: dict[str, str] = {}
    for path in paths:
        index = 0
        stream = records.read_records(path)
        while True:
            try:
                content = next(stream)
            except StopIteration:
                break
            except DataError as error:  # what follows a broken record cannot be found
                problems.append(Finding("error", "broken-record", str(path), error.what, error.remedy or ""))
                break
            where = f"{path}, record {index}"
            index += 1
            if advance is not None:
                advance(1)
            try:
                sample = from_example(content, where, names, problems)
            except DataError as error:
                problems.append(Finding("error", "unusable-record", where, error.what, error.remedy or ""))
                continue
            if sample.filename in taken:
                new = free_name(sample.filename, set(taken))
                problems.append(
                    Finding(
                        "warning",
                        "listed-twice",
                        where,
                        f"the file name {sample.filename} occurs twice (first in {taken[sample.filename]}); "
                        f"this picture is called {new} here.",
                        "Is it the same picture twice?",
                    )
                )
                sample = Sample(**{**sample.__dict__, "filename": new})
            taken[sample.filename] = where
            samples.append(sample)
            if parts and path in parts:
                which[sample.filename] = parts[path]
    if not samples:
        raise empty(source, problems)
    found = {label for s in samples for label in s.labels}
    ordered = tuple(labels) or tuple(n for _, n in sorted((names or {}).items()))
    return Dataset(
        name, "tfrecord", tuple(samples), tuple(problems), source, ordered or tuple(sorted(found)), (), which
    )


def _upright(
    boxes: np.ndarray,
    declared: tuple[int, int],
    header: images.Header,
    ours: bool,
    where: str,
    found: list[Finding] | None,
) -> np.ndarray:
    if header.orientation != 1 and (ours or declared != header.upright_px or header.stored_px == header.upright_px):
        boxes = images.to_upright(boxes, header.orientation)
        declared = (declared[1], declared[0]) if header.orientation >= 5 else declared
    if found is not None and declared not in ((0, 0), header.upright_px):
        height, width = header.upright_px
        found.append(
            Finding(
                "warning",
                "size-mismatch",
                where,
                f"the record says {declared[1]}x{declared[0]} px, its picture has {width}x{height}; boxes "
                "are relative, so they are taken as they are.",
            )
        )
    return boxes


class _Getter:
    """Reads features of one record, with messages that name it."""

    def __init__(self, features: Mapping[str, example.Value], where: str):
        self.features, self.where = features, where

    def many(self, name: str) -> list:
        return list(self.features.get(name, ()))

    def one(self, name: str, default: T) -> T:
        values = self.features.get(name) or [default]
        if not isinstance(values[0], type(default)):
            raise DataError(f"{self.where}: {name} holds a {type(values[0]).__name__}, not a {type(default).__name__}.")
        return values[0]  # type: ignore[return-value]

    def exactly(self, name: str, values: list, count: int) -> list:
        if len(values) != count:
            raise DataError(
                f"{self.where}: {name} has {len(values)} values for {count} boxes.",
                "The program that wrote the record is wrong: write it again.",
            )
        return values
