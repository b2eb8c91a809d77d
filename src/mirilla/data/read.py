"""`read_dataset`: read a data set of any format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mirilla.data import formats, widerface
from mirilla.data.dataset import PARTS, Dataset
from mirilla.data.split import part_name
from mirilla.errors import DataError, UsageError


def read_dataset(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    split: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> Dataset:
    """Read a data set: a folder, an annotation file, or TFRecord files.

    Args:
        path: may end in '@train', '@eval' or '@test', which chooses a part as `split` does (unless a file or folder
            with the full name exists).
        format: a name in `formats.READABLE`; None: recognise it.
        split: "train", "eval" or "test": only that part of the data set's own split; None: all parts.
        advance: called with 1 for every picture whose header was read.

    Raises:
        DataError: the path does not exist, has no known format, is empty, or has no such part. A single picture that
            cannot be used is not an error: it is listed in `problems`.
        UsageError: an unknown format or part.
    """
    location, chosen = select(path)
    if split is not None:
        split = _part(split)
        if chosen and chosen != split:
            raise UsageError(f"{path} chooses the part '{chosen}', but the part '{split}' is given as well.")
    split = split or chosen
    if format is None:
        source_format, notes = recognise(location)
    else:
        source_format, notes = formats.readable(format), ()
        if format != "tfrecord" and not location.exists():  # TFRecord paths may be patterns
            raise _missing(location)
    dataset = source_format.load(location, split, advance)
    dataset = replace(dataset, notes=(*notes, *dataset.notes))
    return dataset.part(split) if split else dataset


def _part(word: str) -> str:
    part = part_name(word)
    if part is None:
        raise UsageError(f"Unknown part '{word}' of a data set. Choose from: {', '.join(PARTS)}.")
    return part


def select(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """'PATH@train' -> (PATH, "train"); a path that exists with its full name is not split."""
    text = os.fspath(path)
    before, at, after = text.rpartition("@")
    if at and before and not os.path.exists(text) and (part := part_name(after)):
        return Path(before), part
    return Path(text), None


def recognise(path: Path) -> tuple[formats.Format, tuple[str, ...]]:
    """The format of a path, and a note if other formats match as well.

    Raises:
        DataError: the path does not exist, or holds no known format.
    """
    try:
        if path.is_dir():
            return _recognise_folder(path)
    except PermissionError as error:
        raise DataError(f"{path}: the folder may not be read.", "Change its permissions.") from error
    tfrecord = formats.BY_NAME["tfrecord"]
    if tfrecord.recognises(path):
        return tfrecord, ()  # may be a pattern or the common name of shards, so it need not exist
    if not path.exists():
        if any(character in path.name for character in "*?["):
            return tfrecord, ()
        raise _missing(path)
    for format in formats.FORMATS:
        if format.recognises(path):
            return format, ()
    raise DataError(
        f"{path}: its format is not recognised by its name.",
        f"Give the format with --from: {', '.join(formats.READABLE)}.",
    )


def _missing(path: Path) -> DataError:
    return DataError(f"{path}: no such file or folder.", "Check the path.")


def _recognise_folder(path: Path) -> tuple[formats.Format, tuple[str, ...]]:
    matches = [format for format in formats.FORMATS if format.find(path)]
    if not matches:
        layouts = "; ".join(f"{format.layout} ({format.title})" for format in formats.FORMATS)
        raise DataError(
            f"{path}: no data set was recognised in this folder. It should hold one of: {layouts}.",
            "Check the path, or name the annotation file itself and its format with --from.",
        )
    # A small set in WIDER FACE's form may hold other forms of the same boxes; its reader notes which file it chose.
    if len(matches) == 1 or (matches[0].name == "widerface" and widerface.plain_files(path)):
        return matches[0], ()
    names = ", ".join(format.name for format in matches)
    return matches[0], (f"{path} can be read as {names}; reading it as {matches[0].name} (--from chooses another).",)


def is_photo_folder(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a folder without annotations of any known format."""
    folder = select(path)[0]
    return folder.is_dir() and not any(format.find(folder) for format in formats.FORMATS)
