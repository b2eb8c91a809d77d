"""Reading a data set of any format: `read_dataset`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mirilla.data import coco, csv_table, fddb, records, tfrecord, voc, widerface, yolo
from mirilla.data.dataset import EVAL, TEST, TRAIN, Annotations, Dataset, build, empty, wanted
from mirilla.data.split import part_name, read_split
from mirilla.errors import DataError, UsageError
from mirilla.findings import Finding

FORMATS = ("widerface", "voc", "csv", "coco", "yolo", "tfrecord", "fddb")
PARTS = (TRAIN, EVAL, TEST)
_FACE_TEXTS = ("bbx_gt_ignore.txt", "bbx_gt.txt")


def read_dataset(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    split: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> Dataset:
    """Read a data set: a folder, an annotation file, or TFRecord files.

    Args:
        path: may end in '@train', '@eval' or '@test', which chooses a part as `split` does (a path that
            exists under its whole name wins).
        format: one of FORMATS; recognised where it is None.
        split: "train", "eval" or "test": that part by the data set's own split; None: all of it.
        advance: called with 1 for every picture whose header was read.

    Raises:
        DataError: nothing there, no known format, an empty set, or no split although one is asked for. Single
            pictures that cannot be used are no errors: they are in `problems`.
        UsageError: an unknown format or part.
    """
    where, chosen = select(path)
    split = part_name(split) if split and part_name(split) else split
    if split is not None and split not in PARTS:
        raise UsageError(f"'{split}' is no part of a data set: the parts are {', '.join(PARTS)}.")
    if chosen and split and chosen != split:
        raise UsageError(f"{path} chooses the part '{chosen}', but the part '{split}' is asked for as well.")
    split = split or chosen
    if format is not None and format not in FORMATS:
        raise UsageError(f"'{format}' is no format that Mirilla reads: they are {', '.join(FORMATS)}.")
    found, notes = (format, ()) if format else recognise(where)
    dataset = _READERS[found](where, split, advance)
    dataset = replace(dataset, notes=(*notes, *dataset.notes))
    return dataset.part(split) if split else dataset


def select(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """`PATH@train` -> (PATH, "train"); a path that exists as it stands is left alone."""
    text = os.fspath(path)
    before, at, after = text.rpartition("@")
    if at and before and not os.path.exists(text) and (part := part_name(after)):
        return Path(before), part
    return Path(text), None


def recognise(path: Path) -> tuple[str, tuple[str, ...]]:
    """The format of a path, and a note if it could be read as another one too.

    Raises:
        DataError: the path does not exist, or holds no known format.
    """
    try:
        if path.is_dir():
            return _recognise_folder(path)
    except PermissionError as error:
        raise DataError(f"{path}: the folder may not be read.", "Change its permissions.") from error
    name = path.name.lower()
    if path.suffix.lower() in tfrecord.SUFFIXES or "-of-" in name:
        return "tfrecord", ()
    if not path.exists():
        if any(c in name for c in "*?["):
            return "tfrecord", ()
        raise DataError(f"{path}: no such file or folder.", "Check the path.")
    if name.endswith("ellipselist.txt"):
        return "fddb", ()
    by_suffix = {
        ".csv": "csv",
        ".json": "coco",
        ".yaml": "yolo",
        ".yml": "yolo",
        ".xml": "voc",
        ".mat": "widerface",
    }
    if path.suffix.lower() in by_suffix:
        return by_suffix[path.suffix.lower()], ()
    if path.suffix.lower() == ".txt" and "bbx_gt" in name:
        return "widerface", ()
    raise DataError(
        f"{path}: its format is not recognised by its name.",
        f"Say which it is with --from: {', '.join(FORMATS)}.",
    )


def _recognise_folder(path: Path) -> tuple[str, tuple[str, ...]]:
    tests = {
        "widerface": lambda: bool(face_files(path) or widerface.find(path)),
        "fddb": lambda: bool(fddb.find(path)),
        "voc": lambda: bool(voc.find(path)),
        "coco": lambda: bool(coco.find(path)),
        "yolo": lambda: bool(yolo.find(path)),
        "tfrecord": lambda: bool(record_files(path)),
        "csv": lambda: bool(csv_table.find(path)),
    }
    hits = [name for name, test in tests.items() if test()]
    if not hits:
        raise DataError(
            f"{path}: no data set was recognised in this folder. Looked for: bbx_gt*.txt or "
            "wider_face_split/ (WIDER "
            "FACE), FDDB-folds/, Annotations/*.xml (VOC), instances_*.json or _annotations.coco.json "
            "(COCO), data.yaml "
            "with labels/*.txt (YOLO), *.tfrecord or *.record, *.csv.",
            "Check the path, or name the annotation file itself and its format with --from.",
        )
    own = hits[0] == "widerface" and face_files(path)  # its reader says which of the files it chose
    note = (
        ()
        if len(hits) == 1 or own
        else (f"{path} can be read as {', '.join(hits)}; it is read as {hits[0]} (--from chooses another).",)
    )
    return hits[0], note


def face_files(folder: Path) -> list[Path]:
    """bbx_gt_ignore.txt and bbx_gt.txt of a folder that has images/ beside them, the preferred one first."""
    if not (folder / "images").is_dir():
        return []
    return [folder / n for n in _FACE_TEXTS if (folder / n).is_file()]


def record_files(folder: Path) -> list[Path]:
    """The TFRecord files of a folder."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and (p.suffix.lower() in tfrecord.SUFFIXES or ("record" in p.name.lower() and "-of-" in p.name))
    )


def _name_of(path: Path) -> str:
    path = Path(os.path.abspath(path))
    return (path.stem if path.suffix and not path.is_dir() else path.name) or "dataset"


def _read_widerface(path: Path, split: str | None, advance) -> Dataset:
    notes: tuple[str, ...] = ()
    if path.is_dir():
        texts = face_files(path)
        files = texts[:1] or widerface.find(path)
        if not files:
            raise DataError(
                f"{path}: no wider_face_split/*_bbx_gt.txt, .mat or bbx_gt.txt in this folder.",
                "Give the folder that holds wider_face_split, WIDER_train and WIDER_val.",
            )
        others = [p.name for p in [*texts[1:], path / "annotations.csv"] if p.exists()]
        if texts and others:
            notes = (f"{path}: {texts[0].name} is read (rather than {', '.join(others)}).",)
        name = _name_of(path)
    else:
        files, name = [path], _name_of(path)
    annotations = widerface.load(files, path, name, split)
    return build(with_split_file(replace(annotations, notes=notes), files[0].parent, split), advance)


def _read_tfrecord(path: Path, split: str | None, advance) -> Dataset:
    if path.is_dir():
        files = record_files(path)
        if not files:
            raise DataError(f"{path}: no TFRecord file in this folder.", f"They end in {', '.join(tfrecord.SUFFIXES)}.")
        files = records.expand([str(f) for f in files])
    else:
        files = records.expand(path)
    folder = path if path.is_dir() else files[0].parent
    parts = {f: p for f in files if (p := _part_by_file_name(f.name))}
    if len(parts) == len(files):
        keep = wanted(list(parts.values()), split, path)
        files = [f for f in files if parts[f] in keep]
    ids, labels = _label_map_beside(folder)
    if not files:
        raise empty(path, [])
    return tfrecord.load(files, path, _name_of(path), parts, ids, labels, advance)


def _part_by_file_name(name: str) -> str | None:
    words = name.lower().replace(".", "-").replace("_", "-").split("-")
    return next((p for w in words if (p := part_name(w))), None)


def _label_map_beside(folder: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    for path in (folder / "label_map.pbtxt", *sorted(folder.glob("*label_map*.pbtxt"))):
        if path.is_file():
            from mirilla.labels import load_label_map

            label_map = load_label_map(path)
            return {label_map.id_of(n): n for n in label_map.names}, tuple(label_map.names)
    return {}, ()


def _annotation_reader(load):
    def read(path: Path, split: str | None, advance) -> Dataset:
        annotations: Annotations = load(path, _name_of(path), split)
        folder = path if path.is_dir() else path.parent
        return build(with_split_file(annotations, folder, split), advance)

    return read


def with_split_file(annotations: Annotations, folder: Path, split: str | None) -> Annotations:
    """Set the entries' parts by a split.csv in `folder`, where there is one; keep those of `split` only."""
    path = folder / "split.csv"
    entries, problems = annotations.entries, list(annotations.problems)
    if path.is_file():
        parts = read_split(path)
        used: set[str] = set()
        placed = []
        for entry in entries:
            key = next((k for k in (entry.filename, entry.picture.name) if k in parts), None)
            if key is None:
                problems.append(
                    Finding(
                        "warning",
                        "not-in-split",
                        entry.where,
                        f"{entry.filename} is in no part of {path}: it is in neither train nor eval.",
                        "Add a line for it.",
                    )
                )
            else:
                used.add(key)
            placed.append(replace(entry, part=parts.get(key or "")))
        problems += [
            Finding(
                "warning",
                "split-without-picture",
                str(path),
                f"{name} is in the split file but not in the annotations.",
                "Remove the line, or add the annotation.",
            )
            for name in parts
            if name not in used
        ]
        entries = tuple(placed)
    if split and any(e.part for e in entries):
        keep = wanted([e.part for e in entries], split, annotations.source)
        entries = tuple(e for e in entries if e.part in keep)
    return replace(annotations, entries=entries, problems=tuple(problems))


_READERS: dict[str, Callable[..., Dataset]] = {
    "widerface": _read_widerface,
    "tfrecord": _read_tfrecord,
    "voc": _annotation_reader(voc.load),
    "csv": _annotation_reader(csv_table.load),
    "coco": _annotation_reader(coco.load),
    "yolo": _annotation_reader(yolo.load),
    "fddb": _annotation_reader(fddb.load),
}
