"""CSV tables: filename,width,height,class,xmin,ymin,xmax,ymax, in pixels, one row per box.

Other names for the columns are read too (file, label, x1, y1, x2, y2). A row with empty coordinates is a
picture without objects. Further columns of ours, written only where they say something: ignore, difficult,
group_of, is_crowd, weight.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mirilla.data.dataset import FLAGS, Annotations, Entry
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding

COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_ALIASES = {
    "filename": ("filename", "file", "image", "file_name", "path"),
    "width": ("width",),
    "height": ("height",),
    "class": ("class", "label", "name", "class_name"),
    "xmin": ("xmin", "x1", "x_min", "left"),
    "ymin": ("ymin", "y1", "y_min", "top"),
    "xmax": ("xmax", "x2", "x_max", "right"),
    "ymax": ("ymax", "y2", "y_max", "bottom"),
}
_PREFERRED = ("annotations.csv", "labels.csv", "_annotations.csv")


def find(folder: Path) -> list[Path]:
    """The tables of a folder whose header names a picture and a box."""
    named = [folder / n for n in _PREFERRED if (folder / n).is_file()]
    others = sorted(p for p in folder.glob("*.csv") if p not in named and p.name != "split.csv")
    return [p for p in [*named, *others] if _columns_of_file(p)]


def load(path: Path, name: str, split: str | None = None) -> Annotations:
    """Read a table, or the preferred table(s) of a folder; pictures lie beside it or in images/.

    A folder with tables named for parts (train_labels.csv, test_labels.csv) is read whole, each with its
    part.

    Raises:
        DataError: the header lacks a column.
    """
    from mirilla.data.split import part_name

    files = [path] if path.is_file() or not path.is_dir() else find(path)
    if not files:
        raise DataError(f"{path}: no CSV table with the columns {','.join(COLUMNS)} in this folder.", "Check the path.")
    parts = [next((p for w in f.stem.lower().replace("-", "_").split("_") if (p := part_name(w))), None) for f in files]
    notes: tuple[str, ...] = ()
    if len(files) > 1 and not all(parts):
        notes = (f"{path}: {files[0].name} is read (rather than {', '.join(f.name for f in files[1:])}).",)
        files, parts = files[:1], parts[:1]
    entries: list[Entry] = []
    problems: list[Finding] = []
    for file, part in zip(files, parts, strict=True):
        with explaining(file):
            text = file.read_bytes().decode("utf-8-sig", "replace")
        one, found = parse(text, str(file), file.parent, part if len(files) > 1 else None)
        entries += one
        problems += found
    return Annotations(name, "csv", path, tuple(entries), tuple(problems), notes=notes)


def parse(text: str, name: str, folder: Path, part: str | None = None) -> tuple[list[Entry], list[Finding]]:
    """The entries of a table; a picture with a row that cannot be read is left out and becomes a finding.

    Raises:
        DataError: the header lacks a column.
    """
    rows = csv.reader(io.StringIO(text))
    header = [c.strip().lower() for c in next(rows, [])]
    columns = _columns(header)
    missing = [c for c in COLUMNS if c not in columns and c not in ("width", "height")]
    if missing:
        raise DataError(
            f"{name}, line 1: the header lacks the column(s) {', '.join(missing)}; it is '{','.join(header)[:120]}'.",
            f"The columns are {','.join(COLUMNS)}.",
        )
    optional = {c: header.index(c) for c in (*FLAGS, "weight") if c in header}
    grouped: dict[str, list[tuple[int, list[str]]]] = {}
    for row in rows:
        if any(c.strip() for c in row):
            key = row[columns["filename"]].strip() if len(row) > columns["filename"] else ""
            grouped.setdefault(key, []).append((rows.line_num, row))
    entries: list[Entry] = []
    problems: list[Finding] = []
    for filename, lines in grouped.items():
        where = f"{name}, line {lines[0][0]}"
        try:
            entries.append(_entry(filename, lines, columns, optional, folder, where, part))
        except ValueError as error:
            problems.append(
                Finding(
                    "error",
                    "bad-annotation",
                    where,
                    f"{error}; the picture {filename!r} is left out.",
                    "Mend the row.",
                )
            )
    return entries, problems


def _entry(
    filename: str,
    lines: Sequence[tuple[int, list[str]]],
    columns: dict[str, int],
    optional: dict[str, int],
    folder: Path,
    where: str,
    part: str | None,
) -> Entry:
    if not filename:
        raise ValueError("the file name is empty")
    boxes: list[list[float]] = []
    labels: list[str] = []
    extras: dict[str, list[float]] = {c: [] for c in optional}
    declared: tuple[int, int] | None = None
    for number, row in lines:
        if len(row) <= max(columns.values()):
            raise ValueError(f"line {number} has {len(row)} cells, too few")
        cells = {c: row[i].strip() for c, i in columns.items()}
        try:
            if cells.get("width") and cells.get("height"):
                size = (int(float(cells["height"])), int(float(cells["width"])))
                if declared not in (None, size):
                    raise ValueError(f"line {number} gives the picture another size than the lines before")
                declared = size
            corners = [cells[c] for c in ("xmin", "ymin", "xmax", "ymax")]
            if not any(corners):
                continue
            box = [float(c) for c in corners]
            for c, i in optional.items():
                extras[c].append(float(row[i]) if len(row) > i and row[i].strip() else float(c == "weight"))
        except ValueError as error:
            if str(error).startswith("line "):
                raise
            raise ValueError(f"line {number}: {error}") from None
        if not np.isfinite(box).all():
            raise ValueError(f"line {number} holds a number that is not finite")
        if not cells["class"]:
            raise ValueError(f"line {number} has a box without a class")
        boxes.append(box)
        labels.append(cells["class"])
    flags = {c: np.array(extras[c]) != 0 for c in FLAGS if c in extras}
    weight = np.array(extras["weight"]) if "weight" in extras else None
    return Entry(
        _picture(folder, filename),
        filename,
        np.array(boxes, np.float64).reshape(-1, 4),
        tuple(labels),
        where,
        declared,
        part=part,
        flags=flags,
        weight=weight,
    )


def _picture(folder: Path, filename: str) -> Path:
    direct = folder / filename
    inside = folder / "images" / filename
    return direct if direct.exists() and not inside.exists() else inside if (folder / "images").is_dir() else direct


def _columns(header: Sequence[str]) -> dict[str, int]:
    found = {}
    for column, names in _ALIASES.items():
        for name in names:
            if name in header:
                found[column] = header.index(name)
                break
    return found


def _columns_of_file(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            header = [c.strip().lower() for c in next(csv.reader([file.readline(4096)]), [])]
    except OSError:
        return False
    return {"filename", "class", "xmin", "ymin", "xmax", "ymax"} <= set(_columns(header))


def text_of(samples: Sequence[Sample]) -> str:
    """Samples as a table; coordinates are whole numbers where they are whole, otherwise with up to 2
    decimals.
    """
    extra = [f for f in FLAGS if any(getattr(s, f).any() for s in samples)]
    weighted = any((s.weight != 1).any() for s in samples)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *extra, *(["weight"] if weighted else [])])
    for sample in samples:
        head = [sample.filename, sample.width_px, sample.height_px]
        boxes = sample.boxes_px_xyxy
        for i, box in enumerate(boxes):
            row = [
                *head,
                sample.labels[i],
                *(number(v) for v in box),
                *(int(getattr(sample, f)[i]) for f in extra),
            ]
            writer.writerow([*row, *([float(sample.weight[i])] if weighted else [])])
        if not len(boxes):
            writer.writerow([*head, "", "", "", "", ""])
    return out.getvalue()


def number(value: float) -> str:
    """A coordinate in pixels: '12', '12.5' or '12.25'."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
