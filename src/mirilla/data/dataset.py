"""`Dataset`: the labelled pictures of one source, and the problems found while reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding

TRAIN, EVAL, TEST = "train", "eval", "test"
PARTS = (TRAIN, EVAL, TEST)


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures of one source.

    Attributes:
        name: name of the source, for the names of files made from it.
        format: the format it was read from.
        samples: one per usable picture, in the source's order.
        problems: findings from reading; every picture left out of `samples` is listed here.
        source: the path that was read.
        labels: class names, in the source's own order if it has one, otherwise sorted.
        notes: messages about choices made while reading.
        parts: filename -> "train", "eval" or "test", if the source has a split of its own.
        unused: files of pictures that the annotations name, but that are not in `samples`: they cannot be used, or
            are in another part. None if not all annotations were read.
    """

    name: str
    format: str
    samples: tuple[Sample, ...]
    problems: tuple[Finding, ...]
    source: Path
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[Path, ...] | None = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def boxes(self) -> int:
        """Number of boxes in all samples, ignored boxes included."""
        return sum(len(s) for s in self.samples)

    def with_samples(self, samples: Iterable[Sample]) -> Dataset:
        """A copy with other samples."""
        return replace(self, samples=tuple(samples))

    def part(self, name: str) -> Dataset:
        """The samples of one part ("train", "eval" or "test") of the source's own split.

        Raises:
            DataError: the source has no split of its own, or the part is empty.
        """
        if not self.parts:
            raise DataError(
                f"{self.source}: the data set has no split of its own, so it has no part '{name}'.",
                "Write a split.csv beside the annotations (rows 'file,train' or 'file,eval'), or split by a share "
                "(--eval-share 0.1).",
            )
        read = parts_to_read(list(self.parts.values()), name, self.source)
        chosen = tuple(s for s in self.samples if self.parts.get(s.filename) in read)
        if not chosen:
            raise DataError(f"{self.source}: its own split has no usable picture in the part '{name}'.")
        notes = self.notes
        if name not in read:
            notes += (f"{self.source}: it has no part '{name}'; using its part '{TEST}' instead.",)
        others = (s.image for s in self.samples if self.parts.get(s.filename) not in read)
        unused = None if self.unused is None else (*self.unused, *(p for p in others if isinstance(p, Path)))
        return replace(self, samples=chosen, notes=notes, parts={s.filename: name for s in chosen}, unused=unused)


class EmptyDatasetError(DataError):
    """The data set has no usable picture; `problems` has the reason for each picture."""

    def __init__(self, source: Path, problems: Sequence[Finding] = ()):
        self.problems = tuple(problems)
        if not problems:
            super().__init__(
                f"{source}: the data set is empty: its annotations list no picture.",
                "Check the path, and --from if you gave it.",
            )
            return
        first = "; ".join(f"{p.where}: {p.what}" for p in self.problems[:3])
        if len(problems) == 1:
            super().__init__(
                f"{source}: no picture of the data set can be used: {first}", self.problems[0].remedy or None
            )
            return
        super().__init__(
            f"{source}: no picture of the data set can be used ({len(problems)} problems). First: {first}",
            "Run 'mirilla data check' to list every problem.",
        )


def parts_to_read(parts: Sequence[str | None], split: str | None, source: Path) -> set[str | None]:
    """The parts to read for `split`: all for None; "test" for "eval" if there is only a test part.

    If no file or picture has a part, the result is {None}: a split file or a share can still split them.

    Raises:
        DataError: there are parts, but not this one; the message names `source`.
    """
    if split is None or not any(parts):
        return {*parts}
    if split == EVAL and EVAL not in parts and TEST in parts:
        return {TEST}
    if split not in parts:
        existing = ", ".join(f"'{p}'" for p in PARTS if p in parts)
        raise DataError(
            f"{source}: its own split has no picture in the part '{split}'; it has {existing}.",
            "Choose one of these.",
        )
    return {split}


def combine(datasets: Iterable[Dataset], name: str = "combined") -> Dataset:
    """Combine data sets; a file name that occurs twice is prefixed with its data set's name."""
    datasets = list(datasets)
    if len(datasets) == 1:
        return datasets[0]
    counts = Counter(sample.filename for dataset in datasets for sample in dataset.samples)
    taken = {filename for filename, count in counts.items() if count == 1}
    samples: list[Sample] = []
    parts: dict[str, str] = {}
    for dataset in datasets:
        for sample in dataset.samples:
            part = dataset.parts.get(sample.filename)
            if counts[sample.filename] > 1:
                sample = replace(sample, filename=free_name(f"{dataset.name}/{sample.filename}", taken))
                taken.add(sample.filename)
            if part is not None:
                parts[sample.filename] = part
            samples.append(sample)
    return Dataset(
        name,
        "several",
        tuple(samples),
        tuple(chain.from_iterable(dataset.problems for dataset in datasets)),
        datasets[0].source,
        tuple(dict.fromkeys(chain.from_iterable(dataset.labels for dataset in datasets))),
        tuple(chain.from_iterable(dataset.notes for dataset in datasets)),
        parts,
    )


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, or `name` with '-2', '-3', ... before its suffix, whichever is not taken."""
    if name not in taken:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or "/" in suffix:
        stem, dot, suffix = name, "", ""
    number = 2
    while f"{stem}-{number}{dot}{suffix}" in taken:
        number += 1
    return f"{stem}-{number}{dot}{suffix}"
