"""What the job learns from and is measured on: reading, parting, labels and checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.data import Dataset, combine, read_dataset
from mirilla.data.dataset import EVAL, TRAIN
from mirilla.data.read import select
from mirilla.data.split import read_split, split_share
from mirilla.errors import ConfigError, DataError, UsageError
from mirilla.findings import SEVERITIES, Finding
from mirilla.job.options import JobOptions
from mirilla.labels import LabelMap, load_label_map


@dataclass(frozen=True)
class Inputs:
    """Pictures for training and for evaluation, with all that was found about them.

    train, evaluation: data sets (several become one).
    labels: the classes, by number.
    findings: everything the readers and checks found; notes: choices that were made.
    sources: one line per data set, for people.
    """

    train: Dataset
    evaluation: Dataset
    labels: LabelMap
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    sources: tuple[str, ...]


def read_inputs(options: JobOptions, advance: Callable[[int], object] | None = None) -> Inputs:
    """Read the data sets and part them into training and evaluation.

    Raises:
        DataError: a set cannot be read, nothing can be learned or measured, or a picture is on both sides.
        ConfigError, UsageError: the label map lacks a class, or the split file names no picture.
    """
    sets = [read_dataset(path, advance=advance) for path in options.datasets]
    notes = [note for one in sets for note in one.notes]
    if options.split_file is not None:
        sets, unused = _with_split(sets, options.split_file)
        if unused:
            notes.append(f"{options.split_file} names {len(unused)} pictures that no data set has, {unused[0]} first.")
    chosen = [select(path)[1] is not None for path in options.datasets]
    trains = [_train_part(one, whole) for one, whole in zip(sets, chosen, strict=True)]
    findings = [finding for one in sets for finding in one.problems]
    if options.eval_dataset is not None:
        given = read_dataset(options.eval_dataset, advance=advance)
        findings += [f for f in given.problems if f not in findings]
        notes += [note for note in given.notes if note not in notes]
        whole = select(options.eval_dataset)[1] is not None or EVAL not in given.parts.values()
        evaluation = given if whole else given.part(EVAL)
        train = combine([one for one in trains if one is not None], "train")
    else:
        evals = [
            one.part(EVAL) for one, whole in zip(sets, chosen, strict=True) if EVAL in one.parts.values() and not whole
        ]
        train = combine([one for one in trains if one is not None], "train")
        if evals:
            evaluation = combine(evals, "eval")
        else:
            train, evaluation = split_share(train, options.eval_share, options.seed)
            notes.append(
                f"Held back for evaluation: {len(evaluation)} of {len(evaluation) + len(train)} pictures, "
                f"chosen by a hash of their names (share {options.eval_share:g})."
            )
    _require_apart(train, evaluation)
    labels = _labels(options, train, evaluation)
    _require_boxes(train, evaluation)
    sources = tuple(
        f"{path}: {one.format}, {len(one)} pictures, {one.boxes} boxes"
        for path, one in zip(options.datasets, sets, strict=True)
    )
    if options.eval_dataset is not None:
        sources += (
            f"{options.eval_dataset} (evaluation only): {evaluation.format}, {len(evaluation)} pictures, "
            f"{evaluation.boxes} boxes",
        )
    return Inputs(train, evaluation, labels, tuple(findings), tuple(notes), sources)


def findings_text(findings: Sequence[Finding], notes: Sequence[str]) -> str:
    """All findings and notes, a line each."""
    return "".join(f"{line}\n" for line in (*(f"note: {note}" for note in notes), *map(str, findings)))


def findings_summary(findings: Sequence[Finding]) -> list[tuple[str, str, int, str]]:
    """(severity, code, how many, the first of them), errors first, the most frequent first."""
    counts = Counter((f.severity, f.code) for f in findings)
    first = {(f.severity, f.code): f for f in reversed(findings)}
    keys = sorted(counts, key=lambda key: (SEVERITIES.index(key[0]), -counts[key], key[1]))
    return [(*key, counts[key], f"{first[key].where}: {first[key].what}") for key in keys]


def _train_part(dataset: Dataset, whole: bool) -> Dataset | None:
    """What of a set is for training: its train part; all of it without a split or where a part was chosen."""
    if whole or not dataset.parts:
        return dataset
    if TRAIN not in dataset.parts.values():
        rest = tuple(s for s in dataset.samples if s.filename not in dataset.parts)
        return replace(dataset, samples=rest) if rest else None
    return dataset.part(TRAIN)


def _with_split(sets: Sequence[Dataset], path: Path) -> tuple[list[Dataset], list[str]]:
    """The sets parted as the file says; pictures that it does not name are for training."""
    parts = read_split(path)
    used: set[str] = set()
    result = []
    for dataset in sets:
        placed = {}
        for sample in dataset.samples:
            key = next((k for k in (sample.filename, sample.filename.rpartition("/")[2]) if k in parts), None)
            placed[sample.filename] = parts[key] if key is not None else TRAIN
            used |= {key} if key is not None else set()
        result.append(replace(dataset, parts=placed))
    if not used:
        raise UsageError(
            f"--split-file {path}: not one of its {len(parts)} names is a picture of the data sets.",
            "It has rows 'file,train' or 'file,eval', the file as the data set names it.",
        )
    return result, [name for name in parts if name not in used]


def _labels(options: JobOptions, train: Dataset, evaluation: Dataset) -> LabelMap:
    if options.label_map is None:
        used = {label for s in train.samples for label in s.labels}
        names = [name for name in train.labels if name in used] or sorted(used)
        if not names:
            raise _nothing_to_learn(train)
        labels = LabelMap.from_names(names)
        origin = "the classes of the training data"
    else:
        labels = load_label_map(options.label_map)
        if not labels.contiguous:
            raise ConfigError(
                f"{options.label_map}: its numbers go up to {labels.max_id}, but it has {len(labels)} "
                "classes; training needs 1, 2, ... without gaps.",
                "Number the classes anew.",
            )
        origin = f"the label map {options.label_map}"
    known = set(labels.names) | {item.display_name for item in labels if item.display_name}
    for dataset in (train, evaluation):
        for sample in dataset.samples:
            for label in sample.labels:
                if label not in known:
                    raise DataError(
                        f"{sample.where or sample.filename}: the label '{label}' is not among {origin} "
                        f"({', '.join(labels.names)}).",
                        "Give a label map that has it (--label-map), or mend the label; 'mirilla data check' "
                        "lists all.",
                    )
    return labels


def _require_boxes(train: Dataset, evaluation: Dataset) -> None:
    if not any((~s.ignore).any() for s in train.samples):
        raise _nothing_to_learn(train)
    if not any((~s.ignore).any() for s in evaluation.samples):
        raise DataError(
            f"The {len(evaluation)} held-out pictures have no box that counts; nothing can be measured.",
            "Give labelled pictures with --eval, a larger --eval-share, or another --split-file.",
        )


def _nothing_to_learn(train: Dataset) -> DataError:
    return DataError(
        f"The {len(train)} pictures for training hold no box that counts, so there is nothing to learn.",
        "Check the annotations with 'mirilla data check', and the split.",
    )


def _require_apart(train: Dataset, evaluation: Dataset) -> None:
    """No picture may be learned from and measured on."""
    paths = {str(s.image.resolve()): s for s in train.samples if isinstance(s.image, Path)}
    both = [s for s in evaluation.samples if isinstance(s.image, Path) and str(s.image.resolve()) in paths]
    if both:
        raise DataError(
            f"{len(both)} pictures are for training and for evaluation, {both[0].filename} first: "
            "the figures would say nothing.",
            "Give another set with --eval, or leave --eval out to hold a share back.",
        )
