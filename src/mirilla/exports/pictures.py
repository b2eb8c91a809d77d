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
from mirilla.findings import ERROR, Finding
from mirilla.model.card import ModelCard
from mirilla.targets.target import Pixels, to_bytes
from mirilla.toy import dataset as toy

CALIBRATION_PICTURES, MEASURED_PICTURES = 128, 200
_DRAWN_CALIBRATION, _DRAWN_MEASURED = 64, 80
_RUN_STATE, _RUN_DATA = "run.json", "data"  # in the folder of a run
_FEWEST = 8  # fewer pictures do not show the ranges of a network's maps
_SKETCH = 8  # pictures are compared by the means of this many by this many fields
_ALIKE_LEVELS = 2  # of 255: pictures whose sketches differ less everywhere are the same scene


@dataclass(frozen=True)
class Pictures:
    """calibration: pictures for the ranges; measured: labelled pictures for the comparison. They share none.

    problems: what was wrong with pictures of the data set that were left out.
    """

    calibration: tuple[Sample, ...]
    measured: tuple[Sample, ...]
    name: str
    problems: tuple[Finding, ...] = ()

    @property
    def left_out(self) -> str:
        """A line on the pictures that were left out; empty if there are none."""
        missing = [problem for problem in self.problems if problem.severity == ERROR]
        if not missing:
            return ""
        return f"{self.name}: {len(missing)} pictures are left out, first {missing[0].where}: {missing[0].what}"


@contextlib.contextmanager
def found(calibrate: str | None, model: Path) -> Iterator[Pictures]:
    """The pictures for an export: those of `calibrate`, else of the run that the model belongs to, else drawn faces.

    Drawn pictures lie in a temporary folder, which is removed at the end.

    Raises:
        DataError: the data set cannot be read.
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
    """Pictures of a data set for an export: by its own split if it has one, else by a hash of their names."""
    shuffled = sorted(dataset.samples, key=lambda sample: share_of(sample.filename, 1))
    parts = [dataset.parts.get(sample.filename) for sample in shuffled]
    calibration = [sample for sample, part in zip(shuffled, parts, strict=True) if part == TRAIN]
    measured = [sample for sample, part in zip(shuffled, parts, strict=True) if part in (EVAL, TEST)]
    if not calibration or not measured:
        half = len(shuffled) // 2
        calibration, measured = shuffled[:half], shuffled[half:]
    return Pictures(
        tuple(calibration[:CALIBRATION_PICTURES]), tuple(measured[:MEASURED_PICTURES]), dataset.name, dataset.problems
    )


def calibration_pixels(samples: Sequence[Sample], card: ModelCard) -> Pixels:
    """Pictures (N, height, width, 3) resized to the model's input: every second one letterboxed, the others squashed.

    Both, because an application may resize in either way.

    Raises:
        DataError: a picture cannot be decoded, or too few of them differ.
    """
    size = card.spec.height_px, card.spec.width_px
    pictures = np.empty((len(samples), *size, 3), np.uint8)
    kinds: dict[str, list[str]] = {"useful": [], "flat": [], "alike": []}
    sketches: list[np.ndarray] = []
    for i, sample in enumerate(samples):
        photo = decode_rgb(sample.image)
        resized, _ = resize.to_input(photo, *size, keep_aspect_ratio=bool(i % 2))
        pictures[i] = to_bytes(resized)
        kinds[_kind(sketch(photo), sketches)].append(sample.filename)
    if len(kinds["useful"]) < _FEWEST:
        raise DataError(
            f"{len(samples)} pictures are too few to choose the ranges of integers"
            + "".join(
                f"; {len(names)} of them {what}, for example {names[0]}"
                for kind, what in (("flat", "show one colour only"), ("alike", "equal another one"))
                if (names := kinds[kind])
            )
            + f". At least {_FEWEST} different ones are needed.",
            "Give labelled photos like those of the application with --calibrate: 200 to 400, half of them for the "
            "ranges.",
        )
    return pictures


def sketch(photo: np.ndarray) -> np.ndarray:
    """A photo (height, width, 3) as the mean colours of 8 by 8 fields: (8, 8, 3), levels 0 to 255."""
    rows, columns = (np.linspace(0, side, _SKETCH + 1).astype(int)[:-1] for side in photo.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(photo.astype(np.float32), rows, 0), columns, 1)
    ones = np.add.reduceat(np.add.reduceat(np.ones((*photo.shape[:2], 1), np.float32), rows, 0), columns, 1)
    return sums / ones


def _kind(own: np.ndarray, others: list[np.ndarray]) -> str:
    """Whether a picture is flat, or alike one of `others`; else it is useful and joins them."""
    if float(np.ptp(own, axis=(0, 1)).max()) < _ALIKE_LEVELS:
        return "flat"
    if any(float(np.abs(own - other).max()) < _ALIKE_LEVELS for other in others):
        return "alike"
    others.append(own)
    return "useful"
