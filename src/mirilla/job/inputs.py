"""The job's inputs: pictures for training and for evaluation, their classes, and the findings about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mirilla.data import Dataset
from mirilla.errors import ConfigError, DataError
from mirilla.findings import SEVERITIES, Finding
from mirilla.job.datasets import (
    Advance,
    assign_parts,
    classes_of,
    findings_of,
    notes_of,
    read_sources,
    split_sources,
)
from mirilla.job.options import JobOptions
from mirilla.labels import LabelMap, load_label_map


@dataclass(frozen=True)
class Inputs:
    """Pictures for training and for evaluation.

    train, evaluation: data sets (several are joined to one).
    labels: the classes, by number.
    findings: the readers' findings; notes: choices that were made.
    sources: a description of each data set, a line each.
    """

    train: Dataset
    evaluation: Dataset
    labels: LabelMap
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    sources: tuple[str, ...]


def read_inputs(options: JobOptions, advance: Advance | None = None) -> Inputs:
    """Read the data sets and divide them into training and evaluation.

    Raises:
        DataError: a set cannot be read, nothing can be learned or measured, or a picture is on both sides.
        ConfigError, UsageError: the label map lacks a class, or the split file names no picture.
    """
    sources = read_sources(options.datasets, advance=advance)
    notes = list(notes_of(sources))
    if options.split_file is not None:
        sources, unused = assign_parts(sources, options.split_file)
        if unused:
            notes.append(f"{options.split_file}: {len(unused)} of its names are in no data set, first {unused[0]}.")
    evaluation_sources = [] if options.eval_dataset is None else read_sources([options.eval_dataset], advance=advance)
    split = split_sources(sources, evaluation_sources, share=options.eval_share, seed=options.seed)
    labels, origin = _labels(options, split.train)
    if options.label_map is None and (unused := classes_of(split.train)[1]):
        notes.append(f"Classes without a box in the training data are left out: {', '.join(unused)}.")
    _require_known_labels(labels, origin, (split.train, split.evaluation))
    _require_boxes(split.train, split.evaluation)
    return Inputs(
        split.train,
        split.evaluation,
        labels,
        findings_of([*sources, *evaluation_sources]),
        tuple(dict.fromkeys((*notes, *notes_of(evaluation_sources), *split.notes))),
        (
            *(source.describe() for source in sources),
            *(source.describe(" (evaluation only)") for source in evaluation_sources),
        ),
    )


def findings_text(findings: Sequence[Finding], notes: Sequence[str]) -> str:
    """All findings and notes, a line each."""
    return "".join(f"{line}\n" for line in (*(f"note: {note}" for note in notes), *map(str, findings)))


def findings_summary(findings: Sequence[Finding]) -> list[tuple[str, str, int, str]]:
    """(severity, code, count, first finding) of each kind: errors first, then by count."""
    counts = Counter((f.severity, f.code) for f in findings)
    first = {(f.severity, f.code): f for f in reversed(findings)}
    keys = sorted(counts, key=lambda key: (SEVERITIES.index(key[0]), -counts[key], key[1]))
    return [(*key, counts[key], f"{first[key].where}: {first[key].what}") for key in keys]


def _labels(options: JobOptions, train: Dataset) -> tuple[LabelMap, str]:
    """The label map given, or one made from the classes of the training data; and its origin, for messages."""
    if options.label_map is None:
        names, _ = classes_of(train)
        if not names:
            raise _nothing_to_learn(train)
        return LabelMap.from_names(names), "the classes of the training data"
    labels = load_label_map(options.label_map)
    if not labels.contiguous:
        raise ConfigError(
            f"{options.label_map}: the ids go up to {labels.max_id}, but there are {len(labels)} classes; training "
            "needs ids 1, 2, ... without gaps.",
            "Renumber the classes.",
        )
    return labels, f"the label map {options.label_map}"


def _require_known_labels(labels: LabelMap, origin: str, datasets: Sequence[Dataset]) -> None:
    known = {*labels.names, *(item.display_name for item in labels)} - {""}
    for dataset in datasets:
        for sample in dataset.samples:
            for label in sample.labels:
                if label not in known:
                    raise DataError(
                        f"{sample.where or sample.filename}: the label '{label}' is not among {origin} "
                        f"({', '.join(labels.names)}).",
                        "Add the class to a label map (--label-map), or correct the label; 'mirilla data check' lists "
                        "all such labels.",
                    )


def _require_boxes(train: Dataset, evaluation: Dataset) -> None:
    if not _has_boxes(train):
        raise _nothing_to_learn(train)
    if not _has_boxes(evaluation):
        raise DataError(
            f"The {len(evaluation)} held-out pictures have no box that counts; nothing can be measured.",
            "Give labelled pictures with --eval, a larger --eval-share, or another --split-file.",
        )


def _has_boxes(dataset: Dataset) -> bool:
    return any((~sample.ignore).any() for sample in dataset.samples)


def _nothing_to_learn(train: Dataset) -> DataError:
    return DataError(
        f"The {len(train)} pictures for training have no box that counts; there is nothing to learn.",
        "Check the annotations with 'mirilla data check', and the split.",
    )
