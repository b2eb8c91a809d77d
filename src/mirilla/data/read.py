"""`read_dataset`: read a data set of any format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mirilla.data import foreign, formats, images, text, widerface, yolo_labels
from mirilla.data.dataset import PARTS, Dataset
from mirilla.data.split import part_name
from mirilla.errors import DataError, UsageError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z")
_INNER_FOLDERS = ("images", "labels", "annotations", "jpegimages", "img", "train", "valid", "val", "test")
_MOST_FOLDERS = 30  # that are searched for data sets
_MOST_KINDS = 6  # of files that a message lists


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
        source_format, location, notes = recognise(location)
    else:
        source_format, notes = formats.readable(format), ()
        if format != "tfrecord" and not os.path.exists(location):  # TFRecord paths may be patterns
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


def recognise(path: Path) -> tuple[formats.Format, Path, tuple[str, ...]]:
    """The format of a path; the path to read, which may be a folder inside it; and notes about these choices.

    Raises:
        DataError: the path does not exist, or holds no known format.
    """
    try:
        if _is_folder(path):
            return _recognise_folder(path)
    except PermissionError as error:
        where = error.filename or path
        raise DataError(f"{where}: the folder may not be read.", "Change its permissions.") from error
    tfrecord = formats.BY_NAME["tfrecord"]
    if tfrecord.recognises(path):
        return tfrecord, path, ()  # may be a pattern or the common name of shards, so it need not exist
    if not os.path.exists(path):
        if any(character in path.name for character in "*?["):
            return tfrecord, path, ()
        raise _missing(path)
    foreign.refuse_file(path)
    for format in formats.FORMATS:
        if format.recognises(path):
            return format, path, ()
    if images.is_picture_name(path.name):
        raise DataError(f"{path}: this is a picture, not a data set.", "Give the folder or file that has its labels.")
    if path.name.lower().endswith(_ARCHIVES):
        raise DataError(f"{path}: this is an archive, not a data set.", "Unpack it, and give the folder.")
    if path.suffix.lower() == ".txt" and yolo_labels.is_label_text(text.head(path)):
        what = f"{path}: this is a label file of a single picture, not a data set."
        raise DataError(what, "Give the folder that has the pictures as well.")
    raise DataError(
        f"{path}: its format is not recognised by its name.",
        f"Give the format with --from: {', '.join(formats.READABLE)}.",
    )


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; False for a name that no file can have.

    Raises:
        PermissionError: a folder above it may not be read.
    """
    try:
        return path.is_dir()
    except PermissionError:
        raise
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _missing(path: Path) -> DataError:
    return DataError(f"{path}: no such file or folder.", "Check the path.")


def _recognise_folder(path: Path) -> tuple[formats.Format, Path, tuple[str, ...]]:
    matches = _matches(path)
    if not matches:
        inside = _data_sets_inside(path)
        if len(inside) == 1:
            ((folder, matches),) = inside.items()
            return matches[0], folder, (f"{path}: the data set is in {folder}; reading it as {matches[0].title}.",)
        raise _not_recognised(path, inside)
    # A small set in WIDER FACE's form may hold other forms of the same boxes; its reader notes which file it chose.
    if len(matches) == 1 or (matches[0].name == "widerface" and widerface.plain_files(path)):
        return matches[0], path, ()
    names = ", ".join(format.name for format in matches)
    note = f"{path} can be read as {names}; reading it as {matches[0].name} (--from chooses another)."
    return matches[0], path, (note,)


def _matches(folder: Path) -> list[formats.Format]:
    """The formats of a folder; XML of other tools is not VOC's."""
    matches = [format for format in formats.FORMATS if format.find(folder)]
    if [format.name for format in matches] == ["voc"]:
        foreign.refuse_xml(formats.BY_NAME["voc"].find(folder))
    return matches


def _data_sets_inside(folder: Path) -> dict[Path, list[formats.Format]]:
    """The folders inside a folder that hold data sets; of a folder that holds one folder only, those inside that."""
    folders = _folders_in(folder)
    found = {path: matches for path in folders[:_MOST_FOLDERS] if (matches := _matches(path))}
    if not found and len(folders) == 1:
        return _data_sets_inside(folders[0])
    return found


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones and archives' __MACOSX."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "__"))]


def _data_set_above(folder: Path) -> list[formats.Format]:
    """The formats of the parent folder, for a folder named like 'images'; empty if the parent is not a data set."""
    if folder.resolve().name.lower() not in _INNER_FOLDERS:
        return []
    try:
        return _matches(folder.resolve().parent)
    except (OSError, DataError):
        return []


def _not_recognised(folder: Path, inside: Mapping[Path, list[formats.Format]]) -> DataError:
    """The error about a folder without a data set of its own: what it has, and why each candidate failed."""
    if inside:
        listed = ", ".join(f"{path.name} ({matches[0].title})" for path, matches in inside.items())
        return DataError(f"{folder}: it holds several data sets: {listed}.", "Give one of them, or several by name.")
    foreign.refuse_folder(folder)
    if above := _data_set_above(folder):
        return DataError(
            f"{folder}: this is a part of the {above[0].title} data set in the folder above it.",
            f"Give that folder: {folder.resolve().parent}.",
        )
    reasons = [f"{format.title}: {reason}" for format in formats.FORMATS if (reason := format.why_not(folder))]
    folders = _folders_in(folder)
    if not reasons and len(folders) == 1 and not any(map(images.is_picture_name, os.listdir(folder))):
        return _not_recognised(folders[0], {})
    if reasons:
        return DataError(
            f"{folder}: no data set was recognised in this folder. It has {_contents(folder)}. " + " ".join(reasons),
            "Correct this, or name the annotation file itself and its format with --from.",
        )
    if any(images.is_picture_name(name) for _, _, names in os.walk(folder) for name in names):
        return DataError(
            f"{folder}: no data set was recognised in this folder: it has pictures, but no labels. It has "
            f"{_contents(folder)}.",
            "Label the pictures and export the labels as COCO, Pascal VOC or YOLO, or give the folder that holds them.",
        )
    layouts = "; ".join(f"{format.layout} ({format.title})" for format in formats.FORMATS)
    return DataError(
        f"{folder}: no data set was recognised in this folder. It has {_contents(folder)}. It should hold one of: "
        f"{layouts}.",
        "Check the path, or name the annotation file itself and its format with --from.",
    )


def _contents(folder: Path) -> str:
    """'3 .jpg, 1 .txt, images/, labels/': the most frequent kinds of files, and the folders."""
    paths = sorted(folder.iterdir())
    kinds = Counter(path.suffix.lower() or "without suffix" for path in paths if not path.is_dir())
    folders = [f"{path.name}/" for path in paths if path.is_dir()]
    shown = [f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS)] + folders[:_MOST_KINDS]
    return ", ".join(shown) + (", ..." if len(folders) > _MOST_KINDS else "") if shown else "nothing"


def is_photo_folder(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a folder without annotations of any known format."""
    folder = select(path)[0]
    return folder.is_dir() and not any(format.find(folder) for format in formats.FORMATS)
