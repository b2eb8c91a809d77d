"""FDDB: FDDB-folds/FDDB-fold-NN-ellipseList.txt and originalPics/. Read only.

Per picture: its name without '.jpg'; the number of faces; a line 'major_radius minor_radius angle centre_x centre_y 1'
per face, in pixels and radians. The box is the smallest upright box around the ellipse.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build
from mirilla.data.dataset import Dataset
from mirilla.errors import DataError
from mirilla.findings import Finding

LABEL = "face"


def find(folder: Path) -> list[Path]:
    """The ellipse lists of a folder."""
    for place in (folder / "FDDB-folds", folder):
        if files := sorted(place.glob("*ellipseList.txt")):
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
    for file in files:
        lines = [line.strip() for line in text.read(file).split("\n")]
        file_entries, file_problems = _parse(lines, str(file), _picture_folder(file))
        entries += file_entries
        problems += file_problems
    return build(Annotations("fddb", path, tuple(entries), tuple(problems), (LABEL,)), split, advance)


def _picture_folder(file: Path) -> Path:
    above = file.parent.parent
    candidates = [file.parent / "originalPics", above / "originalPics", above / "images"]
    return next((folder for folder in candidates if folder.is_dir()), above / "originalPics")


def _parse(lines: list[str], name: str, folder: Path) -> tuple[list[Entry], list[Finding]]:
    """The entries of a list, up to the first picture with malformed lines."""
    entries: list[Entry] = []
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        where, filename = f"{name}, line {at + 1}", f"{lines[at]}.jpg"
        try:
            boxes = _parse_ellipses(lines, at + 1)
        except ValueError as error:
            what = f"{lines[at][:80]!r}: {error}; the rest of the file is left out."
            return entries, [bad_annotation(where, what, "Correct the lines from here on.")]
        entries.append(Entry(folder / filename, filename, boxes, (LABEL,) * len(boxes), where))
        at += 2 + len(boxes)
    return entries, []


def _parse_ellipses(lines: list[str], at: int) -> NDArray[np.float64]:
    """Boxes (N, 4) of the ellipses whose number is in line `at`."""
    if at >= len(lines) or not lines[at].isdigit():
        raise ValueError("the number of faces is missing")
    boxes: list[NDArray[np.float64]] = []
    for number in range(at + 1, at + 1 + int(lines[at])):
        if number >= len(lines):
            raise ValueError("the file ends before the last ellipse")
        values = [float(word) for word in lines[number].split()]
        if len(values) not in (5, 6) or not all(map(math.isfinite, values)):
            raise ValueError("an ellipse is not of the form 'major minor angle x y 1'")
        boxes.append(ellipse_box(*values[:5]))
    return np.array(boxes).reshape(-1, 4)
