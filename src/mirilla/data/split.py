"""Which pictures are for training and which for evaluation."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mirilla.data.dataset import EVAL, TEST, TRAIN, Dataset
from mirilla.errors import DataError
from mirilla.files import explaining

_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "eval": EVAL,
    "val": EVAL,
    "valid": EVAL,
    "validation": EVAL,
    "test": TEST,
}


def part_name(word: str) -> str | None:
    """ "train", "eval" or "test" for the words that data sets use for them; None for any other."""
    return _WORDS.get(word.strip().lower())


def read_split(path: Path) -> dict[str, str]:
    """A split file: rows `file,part[,anything]` without a header, part one of train, eval (or val), test.

    Raises:
        DataError: a row has another form, or a file is put in two parts; names the line.
    """
    with explaining(path):
        text = path.read_bytes().decode("utf-8-sig", "replace")
    result: dict[str, str] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not row or not "".join(row).strip():
            continue
        part = part_name(row[1]) if len(row) > 1 else None
        if part is None:
            if number == 1 and row[0].strip().lower() in ("file", "filename", "image"):
                continue
            raise DataError(
                f"{path}, line {number}: '{','.join(row)[:80]}' is not of the form 'file,train' or 'file,eval'.",
                "Mend the line.",
            )
        name = row[0].strip()
        if result.get(name, part) != part:
            raise DataError(
                f"{path}, line {number}: {name} is in the part '{result[name]}' and in '{part}'.",
                "Keep one of the two lines.",
            )
        result[name] = part
    return result


def share_of(filename: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on the file name (and seed) alone, the same on every machine and
    run.
    """
    digest = hashlib.sha256(f"{seed}:{filename}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_share(dataset: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Part a data set into (train, eval) so that about `share` of the pictures are in eval.

    Each picture's part depends on its own file name alone: adding pictures moves no other picture.

    Raises:
        DataError: the share is not between 0 and 1, or a part would be empty.
    """
    if not 0 < share < 1:
        raise DataError(f"The share for evaluation is {share}: it must lie between 0 and 1.", "Try 0.1.")
    chosen = {s.filename for s in dataset.samples if share_of(s.filename, seed) < share}
    if len(dataset.samples) > 1 and len(chosen) in (0, len(dataset.samples)):
        # a very small set: the picture nearest to the border goes to the other side, so that neither is empty
        ordered = sorted((s.filename for s in dataset.samples), key=lambda n: share_of(n, seed))
        chosen = {ordered[0]} if not chosen else set(ordered[:-1])
    train = [s for s in dataset.samples if s.filename not in chosen]
    evaluated = [s for s in dataset.samples if s.filename in chosen]
    if not train or not evaluated:
        raise DataError(
            f"{dataset.source}: {len(dataset.samples)} pictures cannot be parted by the share {share}.",
            "Use a larger data set, another share, or a data set of its own for evaluation.",
        )
    parts: Mapping[str, str] = {s.filename: EVAL if s.filename in chosen else TRAIN for s in dataset.samples}
    return (
        replace(dataset, samples=tuple(train), parts={s.filename: TRAIN for s in train}),
        replace(dataset, samples=tuple(evaluated), parts={n: p for n, p in parts.items() if p == EVAL}),
    )
