"""The training set of a pipeline.config: its TFRecords, read into decoded pictures and numbered objects."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import console
from mirilla.config import Pipeline
from mirilla.data import records, tfrecord
from mirilla.data.sample import Sample
from mirilla.errors import ConfigError, DataError
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec
from mirilla.training import cache as stored
from mirilla.training.augment import needs_own_pixels
from mirilla.training.input import Objects, objects_of
from mirilla.training.pictures import PictureCache, memory_free, write_pictures

ANY_SIDE_PX = 2**20  # as the long side of the input: no picture is shrunk
SHARE_OF_FREE_MEMORY = 0.8  # that the pictures may take without a word


@dataclass(frozen=True)
class TrainingSet:
    """Pictures and what is labelled in them, in the records' order."""

    pictures: PictureCache
    objects: tuple[Objects, ...]
    labels: LabelMap
    key: str


def open_training_set(pipeline: Pipeline, spec: ModelSpec, cache: Path) -> TrainingSet:
    """Read the records of `train_input_reader`; decoded pictures are kept in the folder `cache`.

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
    source = _Source(pipeline, spec, labels)
    cached = _cached(source, cache)
    if cached is None:
        cached = _made(source, cache)
    elif cached.objects_key != source.objects_key:
        objects = tuple(map(source.objects_of, source.samples()))
        _require_objects(objects, source.paths)
        cached = replace(cached, objects_key=source.objects_key, objects=objects)
        stored.save(cache, cached)
    free = memory_free()
    if free is not None and cached.pictures.nbytes > SHARE_OF_FREE_MEMORY * free:
        console.say(
            f"the decoded pictures take {cached.pictures.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free: "
            "they are read from the disk again and again, which can be slower"
        )
    key = hashlib.sha256("".join(record.sha256 for record in cached.records).encode()).hexdigest()
    key += f"/{source.every}" if source.every > 1 else ""
    return TrainingSet(cached.pictures, cached.objects, labels, key)


class _Source:
    """The records of `train_input_reader`, and what their pictures and objects depend on besides."""

    def __init__(self, pipeline: Pipeline, spec: ModelSpec, labels: LabelMap):
        reader = pipeline.train_input_reader
        self.labels, self.most = labels, reader.max_number_of_boxes
        self.ids = {item.name: item.id - 1 for item in labels}
        self.paths = records.expand(list(reader.tf_record_input_reader.input_path))
        self.every = max(reader.sample_1_of_n_examples, 1)
        self.long_side_px = max(spec.height_px, spec.width_px)
        if needs_own_pixels(pipeline.train_config.data_augmentation_options):
            self.long_side_px = ANY_SIDE_PX
        self.pictures_key = f"long side {self.long_side_px}, every {self.every}"
        names = json.dumps(tfrecord.label_ids(labels), sort_keys=True)
        self.objects_key = hashlib.sha256(f"{self.most} {names} {sorted(self.ids.items())}".encode()).hexdigest()

    def samples(self, digests: Mapping[Path, records.Digest] | None = None) -> Iterator[Sample]:
        return itertools.islice(tfrecord.read_tfrecords(self.paths, self.labels, digests), 0, None, self.every)

    def objects_of(self, sample: Sample) -> Objects:
        return _limited(objects_of(sample, self.ids), self.most)


def _cached(source: _Source, folder: Path) -> stored.Cached | None:
    """What is there of these very records; None where there is nothing."""
    cached, why_not = stored.load(folder)
    if why_not:
        console.say(f"{why_not}: the pictures are decoded again")
    if cached is None or cached.pictures_key != source.pictures_key:
        return None
    known = stored.known_contents(cached.records, source.paths)
    return None if known is None else stored.note_records(folder, cached, known)


def _made(source: _Source, folder: Path) -> stored.Cached:
    """Decode everything, in one reading of the records."""
    looks = [stored.look(path) for path in source.paths]
    count = -(-sum(map(records.count_records, source.paths)) // source.every)
    digests = {path: hashlib.sha256() for path in source.paths}
    objects: list[Objects] = []

    def encoded() -> Iterator[bytes]:
        for sample in source.samples(digests):
            objects.append(source.objects_of(sample))
            yield sample.encoded()

    stored.forget(folder)
    with console.progress("decoding pictures", count, "pictures") as bar:
        pictures = write_pictures(folder, encoded(), count, source.long_side_px, bar.advance)
        bar.note("ready")
    _require_objects(objects, source.paths)
    read = tuple(
        stored.RecordFile(str(path.absolute()), size, mtime_ns, digests[path].hexdigest())
        for path, (size, mtime_ns) in zip(source.paths, looks, strict=True)
    )
    made = stored.Cached(read, source.pictures_key, source.objects_key, pictures, tuple(objects))
    stored.save(folder, made)
    return made


def _require_objects(objects: Sequence[Objects], paths: Sequence[Path]) -> None:
    if not objects:
        raise DataError(f"{', '.join(map(str, paths))}: no pictures.", "Convert a data set that has some.")
    if not any((~o.ignore).any() for o in objects):
        raise DataError(
            f"{', '.join(map(str, paths))}: {len(objects)} pictures, but not one object to learn.",
            "Check the annotations with 'mirilla data stats'.",
        )


def _limited(objects: Objects, most: int) -> Objects:
    if len(objects.classes) <= most:
        return objects
    first = np.arange(most)
    return Objects(objects.boxes_yxyx[first], objects.classes[first], objects.weights[first], objects.ignore[first])
