"""Splitting a data set into pictures for training and for evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from mirilla.data import text
from mirilla.data.csv_rows import rows
from mirilla.data.dataset import EVAL, TEST, TRAIN, Dataset
from mirilla.errors import DataError

_PART_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "eval": EVAL,
    "val": EVAL,
    "valid": EVAL,
    "validation": EVAL,
    "test": TEST,
}
_HEADER_WORDS = ("file", "filename", "image")


def part_name(word: str) -> str | None:
    """'train', 'eval' or 'test' for the words that data sets use for them; None for any other word."""
    return _PART_WORDS.get(word.strip().lower())


def part_in_name(name: str) -> str | None:
    """The part that a file name mentions as a word: 'train-00000-of-00010.tfrecord', 'val_labels'."""
    words = name.lower().replace(".", "-").replace("_", "-").split("-")
    return next((part for word in words if (part := part_name(word))), None)


def read_split(path: Path) -> dict[str, str]:
    """File name -> part, from a split file: rows `file,part[,anything]`; part is train, eval (or val) or test.

    Raises:
        DataError: a row is malformed, or a file has two parts; the message has the line.
    """
    parts: dict[str, str] = {}
    lines = text.read(path).split("\n")
    delimiter = next((character for character in ",;\t" if character in lines[0]), ",")
    for number, row in rows(lines, delimiter):
        if isinstance(row, str):
            raise DataError(f"{path}, line {number}: {row}.", "Correct the line.")
        if not any(row):
            continue
        name = row[0].replace("\\", "/").removeprefix("./")
        part = part_name(row[1]) if len(row) > 1 else None
        if part is None:
            if number == 1 and name.lower() in _HEADER_WORDS:
                continue
            raise DataError(
                f"{path}, line {number}: '{','.join(row)[:80]}' is not of the form 'file,train' or 'file,eval'.",
                "Correct the line.",
            )
        if parts.setdefault(name, part) != part:
            raise DataError(
                f"{path}, line {number}: {name} is in the part '{parts[name]}' and in '{part}'.",
                "Keep one of the two lines.",
            )
    return parts


def share_of(filename: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends only on the file name and the seed, the same on every machine and run."""
    digest = hashlib.sha256(f"{seed}:{filename}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_share(dataset: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split a data set into (train, eval), with about `share` of the pictures in eval.

    A picture's part depends only on its file name, so adding pictures does not move others.

    Raises:
        DataError: the share is not between 0 and 1, or a part would be empty.
    """
    if not 0 < share < 1:
        raise DataError(f"The share for evaluation is {share}, but it must be between 0 and 1.", "Try 0.1.")
    shares = {sample.filename: share_of(sample.filename, seed) for sample in dataset.samples}
    if len(shares) < 2:
        raise DataError(
            f"{dataset.source}: {len(dataset.samples)} pictures cannot be split by the share {share}.",
            "Use a larger data set, another share, or a separate data set for evaluation.",
        )
    ordered = sorted(shares, key=lambda filename: shares[filename])
    # In a very small set, the picture nearest to the threshold changes its part, so that neither part is empty.
    count = sum(value < share for value in shares.values())
    evaluated = set(ordered[: min(max(count, 1), len(ordered) - 1)])
    return _chosen(dataset, shares.keys() - evaluated, TRAIN), _chosen(dataset, evaluated, EVAL)


def _chosen(dataset: Dataset, filenames: set[str], part: str) -> Dataset:
    samples = tuple(sample for sample in dataset.samples if sample.filename in filenames)
    return replace(dataset, samples=samples, parts={sample.filename: part for sample in samples})


def with_eval_share(dataset: Dataset, share: float) -> Dataset:
    """The whole data set, with parts assigned by `share`.

    Raises:
        DataError: as `split_share`.
    """
    train, evaluated = split_share(dataset, share)
    return replace(dataset, parts={**train.parts, **evaluated.parts})
