"""The training set of a pipeline.config: the objects of its TFRecords, and pictures decoded when needed.

The folder of decoded pictures (`pictures.py`) also remembers what was read, so that a second start reads no records:
`pictures.npz` has the pictures' shapes, the records' offsets and the objects; `pictures.json` the records and settings
that all this was made from. The latter is written last and removed first: where it is missing, or anything does not
match it, everything is made again.

Record files are identified by their content. Size and modification time are stored beside its hash, so that a file
that has not been touched is not read again.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import console, files
from mirilla.batches.api_steps import needs_stored_pixels
from mirilla.batches.examples import Objects, joined
from mirilla.batches.pictures import PictureCache, RecordSource, allocate, record_offsets, shrunk_size
from mirilla.config import Pipeline
from mirilla.data import records, tfrecord
from mirilla.data.sample import Sample
from mirilla.errors import ConfigError, DataError
from mirilla.files import explaining, write_bytes, write_text
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec

INDEX, ARRAYS = "pictures.json", "pictures.npz"
SETTLED_NS = 2 * 10**9  # a file changed later than this before it was read may change unnoticed: clocks are coarse
ANY_SIDE_PX = 2**20  # as the long side of the input: no picture is shrunk
SHARE_OF_FREE_MEMORY = 0.8  # that the pictures may take without a message


@dataclass(frozen=True)
class TrainingSet:
    """Pictures and their objects, in the records' order; key: changes with the records."""

    pictures: PictureCache
    objects: Objects
    labels: LabelMap
    key: str

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class RecordFile:
    """A record file's content, and how an unchanged file is recognised (`mtime_ns` 0: it must be read)."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What a folder of decoded pictures was made from.

    pictures_key, objects_key: the settings that pictures and objects depend on.
    shapes: (N, 2) int64, of the pictures as they are stored.
    offsets: (N, 5) int64, of their records (`record_offsets`).
    """

    records: tuple[RecordFile, ...]
    pictures_key: str
    objects_key: str
    shapes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    objects: Objects


def open_training_set(pipeline: Pipeline, spec: ModelSpec, cache: Path) -> TrainingSet:
    """Read the records of `train_input_reader`; decoded pictures are kept in the folder `cache`.

    No picture is decoded here: each is when it is first needed.

    Raises:
        ConfigError: label map and num_classes do not agree.
        DataError: records are missing, damaged or empty, or use a class that the label map lacks.
    """
    reader = pipeline.train_input_reader
    labels = load_label_map(reader.label_map_path)
    if labels.max_id > spec.num_classes:
        raise ConfigError(
            f"{reader.label_map_path} has classes up to id {labels.max_id}, but model.ssd.num_classes is "
            f"{spec.num_classes}.",
            f"Set num_classes: {labels.max_id}.",
        )
    if labels.max_id < spec.num_classes:
        console.warn(
            f"model.ssd.num_classes is {spec.num_classes}, but {reader.label_map_path} has classes up to id "
            f"{labels.max_id} only: the others have no example. Set num_classes: {labels.max_id}."
        )
    source = _Records(pipeline, spec, labels)
    index, pictures = _reopened(source, cache) or _created(source, cache)
    if index.objects_key != source.objects_key:
        objects = _joined_objects(list(map(source.objects_of, source.samples())), source.paths)
        index = replace(index, objects_key=source.objects_key, objects=objects)
        _save(cache, index)
    free = memory_free()
    if free is not None and pictures.nbytes > SHARE_OF_FREE_MEMORY * free:
        console.echo(
            f"The decoded pictures take {pictures.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free: "
            "they will be read from the disk repeatedly, which can be slower."
        )
    key = hashlib.sha256("".join(record.sha256 for record in index.records).encode()).hexdigest()
    key += f"/{source.every}" if source.every > 1 else ""
    return TrainingSet(pictures, index.objects, labels, key)


def objects_of(sample: Sample, ids: Mapping[str, int]) -> Objects:
    """The objects of a sample that can be learnt or ignored; boxes are cut at the picture, empty ones left out.

    Args:
        ids: class name -> number from 0.

    Raises:
        DataError: a class that the label map lacks.
    """
    unknown = sorted(set(sample.labels) - set(ids))
    if unknown:
        raise DataError(
            f"{sample.where or sample.filename}: class '{unknown[0]}' is not in the label map.",
            f"The label map has: {', '.join(ids)}. Add the class, or correct the label.",
        )
    boxes = np.clip(sample.boxes_yxyx, 0, 1)
    classes = np.array([ids[label] for label in sample.labels], np.int64)
    objects = Objects(boxes, classes, sample.weight, sample.ignore | sample.is_crowd, np.zeros(len(boxes), np.int64))
    return objects.take((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


def memory_free() -> int | None:
    """Bytes of memory that are available without swapping; None if the system does not report it."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


class _Records:
    """The records of `train_input_reader`, and the settings that pictures and objects depend on."""

    def __init__(self, pipeline: Pipeline, spec: ModelSpec, labels: LabelMap):
        reader = pipeline.train_input_reader
        self.labels, self.max_objects = labels, reader.max_number_of_boxes
        self.ids = {item.name: item.id - 1 for item in labels}
        self.paths = records.expand(list(reader.tf_record_input_reader.input_path))
        self.every = max(reader.sample_1_of_n_examples, 1)
        self.long_side_px = max(spec.height_px, spec.width_px)
        if needs_stored_pixels(pipeline.train_config.data_augmentation_options):
            self.long_side_px = ANY_SIDE_PX
        self.pictures_key = f"long side {self.long_side_px}, every {self.every}"
        names = json.dumps(tfrecord.label_ids(labels), sort_keys=True)
        key = f"{self.max_objects} {names} {sorted(self.ids.items())}"
        self.objects_key = hashlib.sha256(key.encode()).hexdigest()

    def samples(self, digests: Mapping[Path, records.Digest] | None = None) -> Iterator[Sample]:
        return itertools.islice(tfrecord.read_tfrecords(self.paths, self.labels, digests), 0, None, self.every)

    def objects_of(self, sample: Sample) -> Objects:
        objects = objects_of(sample, self.ids)
        return objects.take(np.arange(min(len(objects), self.max_objects)))

    def pictures(self, folder: Path, index: Index) -> PictureCache:
        return PictureCache(folder, index.shapes, RecordSource(self.paths, index.offsets, self.long_side_px))


def _reopened(source: _Records, folder: Path) -> tuple[Index, PictureCache] | None:
    """The folder's content if it was made from these very records; None otherwise."""
    index, problem = _load(folder)
    pictures = None
    if index is not None and index.pictures_key == source.pictures_key:
        found = unchanged(index.records, source.paths)
        if found is not None:
            index = _with_records(folder, index, found)
            try:
                pictures = source.pictures(folder, index)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                problem = f"{folder} is damaged ({error})"
    if problem:
        console.echo(f"{problem}. The pictures are decoded again.")
    return None if index is None or pictures is None else (index, pictures)


def _created(source: _Records, folder: Path) -> tuple[Index, PictureCache]:
    """Read the records, and make room for their pictures."""
    stats = [stat_of(path) for path in source.paths]
    offsets = record_offsets(source.paths)[:: source.every]
    digests = {path: hashlib.sha256() for path in source.paths}
    objects: list[Objects] = []
    shapes: list[tuple[int, int]] = []
    with console.progress("reading records", len(offsets), "pictures") as bar:
        for sample in source.samples(digests):
            objects.append(source.objects_of(sample))
            shapes.append(shrunk_size((sample.height_px, sample.width_px), source.long_side_px))
            bar.advance(1)
        bar.note("ready")
    record_files = tuple(
        RecordFile(str(path.absolute()), size, mtime_ns, digests[path].hexdigest())
        for path, (size, mtime_ns) in zip(source.paths, stats, strict=True)
    )
    index = Index(
        record_files,
        source.pictures_key,
        source.objects_key,
        np.array(shapes, np.int64),
        offsets,
        _joined_objects(objects, source.paths),
    )
    _remove_index(folder)
    allocate(folder, index.shapes)
    _save(folder, index)
    return index, source.pictures(folder, index)


def _joined_objects(objects: Sequence[Objects], paths: Sequence[Path]) -> Objects:
    """The objects of all pictures.

    Raises:
        DataError: there are no pictures, or none has an object to learn.
    """
    if not objects:
        raise DataError(f"{', '.join(map(str, paths))}: no pictures.", "Convert a data set that has some.")
    result = joined(objects)
    if result.ignore.all():
        raise DataError(
            f"{', '.join(map(str, paths))}: {len(objects)} pictures, but not one object to learn.",
            "Check the annotations with 'mirilla data stats'.",
        )
    return result


# ---- the index's files


def stat_of(path: Path) -> tuple[int, int]:
    """(size, modification time in ns) before a file is read; the time is 0 if it is too recent to rely on."""
    with explaining(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns if stat.st_mtime_ns < time.time_ns() - SETTLED_NS else 0


def unchanged(before: Sequence[RecordFile], paths: Sequence[Path]) -> tuple[RecordFile, ...] | None:
    """The record files if their content is what it was, else None; only files with another time are read."""
    if len(before) != len(paths):
        return None
    stats = [stat_of(path) for path in paths]
    if any(record.size != size for record, (size, _) in zip(before, stats, strict=True)):
        return None
    result = []
    for record, path, (size, mtime_ns) in zip(before, paths, stats, strict=True):
        name = str(path.absolute())
        if record.path != name or not mtime_ns or record.mtime_ns != mtime_ns:
            if files.sha256(path) != record.sha256:
                return None
            record = RecordFile(name, size, mtime_ns, record.sha256)
        result.append(record)
    return tuple(result)


def _load(folder: Path) -> tuple[Index | None, str]:
    """A folder's index; or None and the reason why it cannot be used ('' if there is none)."""
    try:
        index = _read_json(folder)
        record_files = tuple(RecordFile(**record) for record in index["records"])
        content = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != index["arrays_sha256"]:
            return None, f"{folder / ARRAYS} has been changed"
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            counts = arrays["counts"]
            example = np.repeat(np.arange(len(counts)), counts)
            objects = Objects(arrays["boxes"], arrays["classes"], arrays["weights"], arrays["ignore"], example)
            shapes, offsets = arrays["shapes"], arrays["places"]
        return Index(record_files, index["pictures_key"], index["objects_key"], shapes, offsets, objects), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        return None, f"{folder} is damaged ({error})"


def _save(folder: Path, index: Index) -> None:
    buffer, objects = io.BytesIO(), index.objects
    np.savez(
        buffer,
        shapes=index.shapes,
        places=index.offsets,
        counts=objects.counts(len(index.shapes)),
        boxes=objects.boxes_yxyx,
        classes=objects.classes,
        weights=objects.weights,
        ignore=objects.ignore,
    )
    content = buffer.getvalue()
    _remove_index(folder)
    write_bytes(folder / ARRAYS, content)
    _write_json(
        folder,
        {
            "records": [asdict(record) for record in index.records],
            "pictures_key": index.pictures_key,
            "objects_key": index.objects_key,
            "arrays_sha256": hashlib.sha256(content).hexdigest(),
        },
    )


def _with_records(folder: Path, index: Index, record_files: tuple[RecordFile, ...]) -> Index:
    """Store the record files' new times, if they changed."""
    if record_files == index.records:
        return index
    _write_json(folder, _read_json(folder) | {"records": [asdict(record) for record in record_files]})
    return replace(index, records=record_files)


def _remove_index(folder: Path) -> None:
    with explaining(folder):
        (folder / INDEX).unlink(missing_ok=True)


def _write_json(folder: Path, index: dict) -> None:
    write_text(folder / INDEX, json.dumps(index | {"index_sha256": _checksum(index)}, indent=1) + "\n")


def _read_json(folder: Path) -> dict:
    index = json.loads((folder / INDEX).read_text())
    if index.pop("index_sha256") != _checksum(index):
        raise ValueError(f"{INDEX} has been changed")
    return index


def _checksum(index: dict) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
