"""The pictures of an export: those that choose the ranges of integers, and those that measure the result."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import resize
from mirilla.data import read_dataset
from mirilla.data.dataset import EVAL, TEST, TRAIN, Dataset
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.data.split import share_of
from mirilla.errors import DataError
from mirilla.model.card import ModelCard
from mirilla.targets.target import Pixels, to_bytes
from mirilla.toy import dataset as toy

CALIBRATION_PICTURES, MEASURED_PICTURES = 128, 200
_DRAWN_CALIBRATION, _DRAWN_MEASURED = 64, 80
_RUN_STATE, _RUN_DATA = "run.json", "data"  # in the folder of a run
_FEWEST = 8  # fewer pictures do not show the ranges of a network's maps


@dataclass(frozen=True)
class Pictures:
    """calibration: pictures for the ranges; measured: labelled pictures for the comparison. They share none."""

    calibration: tuple[Sample, ...]
    measured: tuple[Sample, ...]
    name: str


@contextlib.contextmanager
def found(calibrate: str | None, model: Path) -> Iterator[Pictures]:
    """The pictures for an export: those of `calibrate`, else of the run that the model belongs to, else drawn faces.

    Drawn pictures lie in a temporary folder, which is removed at the end.

    Raises:
        DataError: the data set cannot be read, or has too few pictures.
    """
    if calibrate is not None:
        yield choose(read_dataset(calibrate))
        return
    for folder in (model, model.parent):
        if (folder / _RUN_STATE).is_file() and any((folder / _RUN_DATA).glob("*.tfrecord*")):
            yield choose(read_dataset(folder / _RUN_DATA))
            return
    with tempfile.TemporaryDirectory() as folder:
        drawn = toy.write(folder, train=_DRAWN_CALIBRATION, val=_DRAWN_MEASURED)
        yield replace(choose(read_dataset(drawn)), name="drawn faces")


def choose(dataset: Dataset) -> Pictures:
    """Pictures of a data set for an export: by its own split if it has one, else by a hash of their names.

    Raises:
        DataError: the data set has too few pictures.
    """
    shuffled = sorted(dataset.samples, key=lambda sample: share_of(sample.filename, 1))
    parts = [dataset.parts.get(sample.filename) for sample in shuffled]
    calibration = [sample for sample, part in zip(shuffled, parts, strict=True) if part == TRAIN]
    measured = [sample for sample, part in zip(shuffled, parts, strict=True) if part in (EVAL, TEST)]
    if not calibration or not measured:
        half = len(shuffled) // 2
        calibration, measured = shuffled[:half], shuffled[half:]
    if len(calibration) < _FEWEST:
        raise DataError(
            f"{dataset.name}: {len(dataset.samples)} pictures are too few to choose the ranges of integers; at least "
            f"{2 * _FEWEST} are needed.",
            "Give more pictures with --calibrate; 100 to 200 are enough.",
        )
    return Pictures(tuple(calibration[:CALIBRATION_PICTURES]), tuple(measured[:MEASURED_PICTURES]), dataset.name)


def calibration_pixels(samples: Sequence[Sample], card: ModelCard) -> Pixels:
    """Pictures (N, height, width, 3) resized to the model's input: every second one letterboxed, the others squashed.

    Both, because an application may resize in either way.

    Raises:
        DataError: a picture cannot be decoded.
    """
    size = card.spec.height_px, card.spec.width_px
    pictures = np.empty((len(samples), *size, 3), np.uint8)
    for i, sample in enumerate(samples):
        resized, _ = resize.to_input(decode_rgb(sample.image), *size, keep_aspect_ratio=bool(i % 2))
        pictures[i] = to_bytes(resized)
    return pictures
