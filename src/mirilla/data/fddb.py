"""FDDB: FDDB-folds/FDDB-fold-NN-ellipseList.txt and originalPics/. Read only.

Per picture: its name without '.jpg'; the number of faces; one line each 'major_radius minor_radius angle
centre_x centre_y 1', in pixels and radians. The box is the smallest upright one around the ellipse.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.dataset import Annotations, Entry
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding

LABEL = "face"


def find(folder: Path) -> list[Path]:
    """The ellipse lists of a folder."""
    for place in (folder / "FDDB-folds", folder):
        if files := sorted(place.glob("*ellipseList.txt")):
            return files
    return []


def ellipse_box(major: float, minor: float, angle: float, centre_x: float, centre_y: float) -> NDArray[np.float64]:
    """[xmin, ymin, xmax, ymax] of the upright box around an ellipse; `angle` is the major axis's, from the x
    axis.
    """
    half_width = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_height = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    return np.array([centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height])


def load(path: Path, name: str, split: str | None = None) -> Annotations:
    """Read the ellipse lists of a folder, or one list; FDDB has no training and evaluation parts of its
    own.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no FDDB-fold-*-ellipseList.txt in this folder.", "Give the folder above FDDB-folds.")
    entries: list[Entry] = []
    problems: list[Finding] = []
    for file in files:
        with explaining(file):
            lines = [line.strip() for line in file.read_bytes().decode("utf-8", "replace").splitlines()]
        folder = next(
            (
                p
                for p in (
                    file.parent / "originalPics",
                    file.parent.parent / "originalPics",
                    file.parent.parent / "images",
                )
                if p.is_dir()
            ),
            file.parent.parent / "originalPics",
        )
        at = 0
        while at < len(lines):
            if not lines[at]:
                at += 1
                continue
            where, filename = f"{file}, line {at + 1}", f"{lines[at]}.jpg"
            try:
                count = int(lines[at + 1])
                ellipses = [[float(v) for v in lines[at + 2 + i].split()] for i in range(count)]
                if count < 0 or any(len(e) not in (5, 6) or not np.isfinite(e).all() for e in ellipses):
                    raise ValueError("an ellipse is not of the form 'major minor angle x y 1'")
            except (ValueError, IndexError) as error:
                problems.append(
                    Finding(
                        "error",
                        "bad-annotation",
                        where,
                        f"{lines[at][:80]!r}: {error}; the rest of the file is left out.",
                        "Mend the lines from here on.",
                    )
                )
                break
            boxes = np.array([ellipse_box(*e[:5]) for e in ellipses]).reshape(-1, 4)
            entries.append(Entry(folder / filename, filename, boxes, (LABEL,) * count, where))
            at += 2 + count
    return Annotations(name, "fddb", path, tuple(entries), tuple(problems), (LABEL,))
