"""FDDB: FDDB-folds/FDDB-fold-NN-ellipseList.txt and originalPics/. Read only.

Per picture: its name without '.jpg'; the number of faces; a line 'major_radius minor_radius angle centre_x centre_y 1'
per face, in pixels and radians. The box is the smallest upright box around the ellipse.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build, read_each
from mirilla.data.dataset import Dataset
from mirilla.data.folders import files_in
from mirilla.data.names import PictureFinder
from mirilla.errors import DataError
from mirilla.findings import Finding

LABEL = "face"
_FORM = "The form is: a picture's name, its number of faces, then 'major minor angle x y 1' per face."


def find(folder: Path) -> list[Path]:
    """The ellipse lists of a folder."""
    for place in (folder / "FDDB-folds", folder):
        if files := files_in(place, "*ellipselist.txt"):
            return files
    return []


def ellipse_box(major: float, minor: float, angle: float, centre_x: float, centre_y: float) -> NDArray[np.float64]:
    """[xmin, ymin, xmax, ymax] of the upright box around an ellipse; `angle` is the major axis's, from the x axis."""
    half_width = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_height = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    return np.array([centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height])


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read the ellipse lists of a folder, or a single list; FDDB has no train and eval parts.

    Raises:
        DataError: there is no ellipse list.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no FDDB-fold-*-ellipseList.txt in this folder.", "Give the folder above FDDB-folds.")
    entries: list[Entry] = []
    problems: list[Finding] = []
    contents = read_each(files, text.read, problems)
    for file, content in contents:
        lines = [line.strip() for line in content.split("\n")]
        file_entries, file_problems = _parse(lines, str(file), _picture_folder(file))
        entries += file_entries
        problems += file_problems
    unused = () if len(contents) == len(files) else None
    return build(Annotations("fddb", path, tuple(entries), tuple(problems), (LABEL,), unused=unused), split, advance)


def _picture_folder(file: Path) -> Path:
    above = file.parent.parent
    candidates = [file.parent / "originalPics", above / "originalPics", above / "images"]
    return next((folder for folder in candidates if folder.is_dir()), above / "originalPics")


def _parse(lines: list[str], name: str, folder: Path) -> tuple[list[Entry], list[Finding]]:
    """The entries of a list; a picture whose lines are wrong is left out and becomes a finding."""
    entries: list[Entry] = []
    problems: list[Finding] = []
    pictures = PictureFinder(folder)
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        where = f"{name}, line {at + 1}"
        try:
            boxes = _parse_ellipses(lines, at + 1)
        except ValueError as error:
            what = f"{lines[at][:80]!r}: {error}; the picture {lines[at].rpartition('/')[2][:80]}.jpg is left out."
            problems.append(bad_annotation(where, what, _FORM))
            at = next((i for i in range(at + 1, len(lines)) if _is_name(lines[i])), len(lines))
            continue
        picture = pictures.find(f"{lines[at]}.jpg")
        entries.append(Entry(picture.path, picture.name, boxes, (LABEL,) * len(boxes), where))
        at += 2 + len(boxes)
    return entries, problems


def _is_name(line: str) -> bool:
    """Whether a line is a picture's name: not numbers only."""
    try:
        return not [float(word) for word in line.split()] and bool(line)
    except ValueError:
        return True


def _parse_ellipses(lines: list[str], at: int) -> NDArray[np.float64]:
    """Boxes (N, 4) of the ellipses whose number is in line `at`."""
    if at >= len(lines) or not (lines[at].isascii() and lines[at].isdigit() and len(lines[at]) < 8):
        raise ValueError("the number of faces is missing")
    boxes: list[NDArray[np.float64]] = []
    for number in range(at + 1, at + 1 + int(lines[at])):
        if number >= len(lines):
            raise ValueError("the file ends before the last ellipse")
        values = [text.number(word, f"a number in line {number + 1}") for word in lines[number].split()]
        if len(values) not in (5, 6):
            raise ValueError(f"line {number + 1} is not an ellipse")
        boxes.append(ellipse_box(*values[:5]))
    return np.array(boxes).reshape(-1, 4)
