"""The training set of a pipeline.config: the numbered objects of its TFRecords, and pictures decoded when needed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import console
from mirilla.batches import cache as stored
from mirilla.batches.augment import needs_own_pixels
from mirilla.batches.input import Objects, objects_of
from mirilla.batches.pictures import PictureCache, lay_out, memory_free
from mirilla.batches.record_source import RecordPictures, places_of, shrunk
from mirilla.config import Pipeline
from mirilla.data import records, tfrecord
from mirilla.data.sample import Sample
from mirilla.errors import ConfigError, DataError
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec

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

    No picture is decoded here: each is when it is first asked for.

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
    cached, pictures = _cached(source, cache) or _laid_out(source, cache)
    if cached.objects_key != source.objects_key:
        objects = tuple(map(source.objects_of, source.samples()))
        _require_objects(objects, source.paths)
        cached = replace(cached, objects_key=source.objects_key, objects=objects)
        stored.save(cache, cached)
    free = memory_free()
    if free is not None and pictures.nbytes > SHARE_OF_FREE_MEMORY * free:
        console.echo(
            f"the decoded pictures take {pictures.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free: "
            "they are read from the disk again and again, which can be slower"
        )
    key = hashlib.sha256("".join(record.sha256 for record in cached.records).encode()).hexdigest()
    key += f"/{source.every}" if source.every > 1 else ""
    return TrainingSet(pictures, cached.objects, labels, key)


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

    def pictures(self, folder: Path, cached: stored.Cached) -> PictureCache:
        return PictureCache(folder, cached.shapes, RecordPictures(self.paths, cached.places, self.long_side_px))


def _cached(source: _Source, folder: Path) -> tuple[stored.Cached, PictureCache] | None:
    """What is there of these very records; None where there is nothing."""
    cached, why_not = stored.load(folder)
    pictures = None
    if cached is not None and cached.pictures_key == source.pictures_key:
        known = stored.known_contents(cached.records, source.paths)
        if known is not None:
            cached = stored.note_records(folder, cached, known)
            try:
                pictures = source.pictures(folder, cached)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                why_not = f"{folder} is damaged ({error})"
    if why_not:
        console.echo(f"{why_not}: the pictures are decoded again")
    return None if cached is None or pictures is None else (cached, pictures)


def _laid_out(source: _Source, folder: Path) -> tuple[stored.Cached, PictureCache]:
    """Read the records, and make room for their pictures."""
    looks = [stored.look(path) for path in source.paths]
    places = places_of(source.paths)[:: source.every]
    digests = {path: hashlib.sha256() for path in source.paths}
    objects: list[Objects] = []
    shapes: list[tuple[int, int]] = []
    with console.progress("reading records", len(places), "pictures") as bar:
        for sample in source.samples(digests):
            objects.append(source.objects_of(sample))
            shapes.append(shrunk((sample.height_px, sample.width_px), source.long_side_px))
            bar.advance(1)
        bar.note("ready")
    _require_objects(objects, source.paths)
    read = tuple(
        stored.RecordFile(str(path.absolute()), size, mtime_ns, digests[path].hexdigest())
        for path, (size, mtime_ns) in zip(source.paths, looks, strict=True)
    )
    made = stored.Cached(
        read, source.pictures_key, source.objects_key, np.array(shapes, np.int64), places, tuple(objects)
    )
    stored.forget(folder)
    lay_out(folder, made.shapes)
    stored.save(folder, made)
    return made, source.pictures(folder, made)


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
