"""Read the data sets that `mirilla run` and `mirilla init` are given; divide them into training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.data import Dataset, combine, read_dataset
from mirilla.data.check import unlisted
from mirilla.data.dataset import EVAL, TEST, TRAIN
from mirilla.data.read import select
from mirilla.data.split import read_split, split_share
from mirilla.errors import DataError, UsageError
from mirilla.findings import Finding

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Source:
    """One data set of the command line.

    path: as the user gave it, with '@train' or another part if one was chosen.
    """

    path: str
    dataset: Dataset

    @property
    def is_part(self) -> bool:
        """Whether the user chose a part of the data set: then it is used as a whole."""
        return select(self.path)[1] is not None

    @property
    def has_evaluation_part(self) -> bool:
        return not self.is_part and not {EVAL, TEST}.isdisjoint(self.dataset.parts.values())

    def for_training(self) -> Dataset | None:
        """The train part, else the pictures in no part; the whole set if it has no split. None if there are none."""
        parts = self.dataset.parts
        if self.is_part or not parts:
            return self.dataset
        if TRAIN in parts.values():
            return self.dataset.part(TRAIN)
        rest = tuple(sample for sample in self.dataset.samples if sample.filename not in parts)
        return replace(self.dataset, samples=rest) if rest else None

    def for_evaluation(self) -> Dataset:
        """The eval part, or else the test part; all of a set that has neither."""
        return self.dataset.part(EVAL) if self.has_evaluation_part else self.dataset

    def describe(self, use: str = "") -> str:
        """One line with the path, format and size."""
        data = self.for_evaluation() if use else self.dataset
        return f"{self.path}{use}: {data.format}, {len(data)} pictures, {data.boxes} boxes"


@dataclass(frozen=True)
class Split:
    """Pictures for training and for evaluation.

    train, evaluation: several data sets are joined to one.
    by_share: a share of the pictures was held out, since no data set had a part for evaluation.
    notes: choices that were made, in sentences.
    """

    train: Dataset
    evaluation: Dataset
    by_share: bool
    notes: tuple[str, ...] = ()


def read_sources(paths: Iterable[str], format: str | None = None, advance: Advance | None = None) -> list[Source]:
    """Read data sets; arguments as for `data.read_dataset`.

    Raises:
        DataError, UsageError: as for `data.read_dataset`.
    """
    return [Source(path, read_dataset(path, format=format, advance=advance)) for path in paths]


def split_sources(
    sources: Sequence[Source], evaluation_sources: Sequence[Source] = (), *, share: float, seed: int = 0
) -> Split:
    """Divide data sets into training and evaluation.

    Evaluation is on `evaluation_sources` if there are any; else on the eval parts of `sources`; else on a share of
    their pictures, chosen by a hash of the file names. Parts for evaluation are never trained on.

    Args:
        share: the share to hold out, in (0, 1).
        seed: of the hash.

    Raises:
        DataError: no picture is left for training, or a picture is on both sides.
    """
    training = [part for source in sources if (part := source.for_training()) is not None]
    if not training:
        raise DataError(
            f"{', '.join(source.path for source in sources)}: all pictures are in the part 'eval'; none is left to "
            "train on.",
            "Add a data set to train on.",
        )
    train = combine(training, "train")
    evaluations = evaluation_sources or [source for source in sources if source.has_evaluation_part]
    if evaluations:
        evaluation = combine([source.for_evaluation() for source in evaluations], "eval")
        _refuse_overlap(train, evaluation)
        return Split(train, evaluation, by_share=False, notes=evaluation.notes)
    train, evaluation = split_share(train, share, seed)
    note = (
        f"Held out for evaluation: {len(evaluation)} of {len(evaluation) + len(train)} pictures, chosen by a hash of "
        f"their names (share {share:g})."
    )
    return Split(train, evaluation, by_share=True, notes=(note,))


def assign_parts(sources: Sequence[Source], split_file: Path) -> tuple[list[Source], list[str]]:
    """Replace the data sets' own splits by that of a file; pictures that it does not name are for training.

    Returns:
        The data sets, and the file's names that no data set has.

    Raises:
        DataError: a line of the file is malformed.
        UsageError: none of its names is a picture of the data sets.
    """
    parts = read_split(split_file)
    used: set[str] = set()
    assigned = []
    for source in sources:
        placed = {}
        for sample in source.dataset.samples:
            basename = sample.filename.rpartition("/")[2]
            key = next((name for name in (sample.filename, basename) if name in parts), None)
            placed[sample.filename] = TRAIN if key is None else parts[key]
            used |= set() if key is None else {key}
        assigned.append(replace(source, dataset=replace(source.dataset, parts=placed)))
    if not used:
        raise UsageError(
            f"--split-file {split_file}: none of its {len(parts)} names is a picture of the data sets.",
            "Write rows 'file,train' or 'file,eval', with the file names as the data set has them.",
        )
    return assigned, [name for name in parts if name not in used]


def classes_of(train: Dataset) -> tuple[list[str], list[str]]:
    """The classes that the training data has boxes of, and those that it names but has no box of."""
    used = {label for sample in train.samples for label in sample.labels}
    named = dict.fromkeys((*train.labels, *sorted(used)))
    return [name for name in named if name in used], [name for name in named if name not in used]


def findings_of(sources: Iterable[Source]) -> tuple[Finding, ...]:
    """The readers' findings, and those about pictures that no annotation names, without duplicates."""
    findings = (finding for source in sources for finding in (*source.dataset.problems, *unlisted(source.dataset)))
    return tuple(dict.fromkeys(findings))


def notes_of(sources: Iterable[Source]) -> tuple[str, ...]:
    """The readers' notes, without duplicates."""
    return tuple(dict.fromkeys(note for source in sources for note in source.dataset.notes))


def _refuse_overlap(train: Dataset, evaluation: Dataset) -> None:
    paths = {sample.image.resolve() for sample in train.samples if isinstance(sample.image, Path)}
    both = [s for s in evaluation.samples if isinstance(s.image, Path) and s.image.resolve() in paths]
    if both:
        raise DataError(
            f"{len(both)} pictures are in both training and evaluation, first {both[0].filename}: the figures would "
            "be meaningless.",
            "Give another set with --eval, or omit --eval to hold out a share.",
        )
