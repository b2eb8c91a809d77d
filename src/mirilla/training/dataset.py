"""The training set of a pipeline.config: its TFRecords, read into decoded pictures and numbered objects."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirilla import console, files
from mirilla.config import Pipeline
from mirilla.data import records
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import read_tfrecords
from mirilla.errors import ConfigError, DataError
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.spec import ModelSpec
from mirilla.training.augment import needs_own_pixels
from mirilla.training.input import Objects, objects_of
from mirilla.training.pictures import PictureCache, open_cache

ANY_SIDE_PX = 2**20  # as the long side of the input: no picture is shrunk


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
    ids = {item.name: item.id - 1 for item in labels}
    paths = records.expand(list(reader.tf_record_input_reader.input_path))
    every = max(reader.sample_1_of_n_examples, 1)
    key = hashlib.sha256("".join(files.sha256(p) for p in paths).encode()).hexdigest()
    key += f"/{every}" if every > 1 else ""

    def samples() -> Iterator[Sample]:
        return itertools.islice(read_tfrecords(paths, labels), 0, None, every)

    objects = [_limited(objects_of(sample, ids), reader.max_number_of_boxes) for sample in samples()]
    if not objects:
        raise DataError(f"{', '.join(map(str, paths))}: no pictures.", "Convert a data set that has some.")
    if not any((~o.ignore).any() for o in objects):
        raise DataError(
            f"{', '.join(map(str, paths))}: {len(objects)} pictures, but not one object to learn.",
            "Check the annotations with 'mirilla data stats'.",
        )

    def encoded() -> Iterator[bytes]:
        for sample in samples():
            yield sample.encoded()

    long_side = max(spec.height_px, spec.width_px)
    if needs_own_pixels(pipeline.train_config.data_augmentation_options):
        long_side = ANY_SIDE_PX
    with console.progress("decoding pictures", len(objects), "pictures") as bar:
        pictures = open_cache(cache, key, len(objects), encoded(), long_side, bar.advance)
        bar.note("ready")
    return TrainingSet(pictures, tuple(objects), labels, key)


def _limited(objects: Objects, most: int) -> Objects:
    if len(objects.classes) <= most:
        return objects
    first = np.arange(most)
    return Objects(objects.boxes_yxyx[first], objects.classes[first], objects.weights[first], objects.ignore[first])
