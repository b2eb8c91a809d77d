"""Predictions in WIDER FACE's official text form: a folder per event, a text file per picture.

Each file: the picture's name, the number of boxes, then a line "xmin ymin width height score" per box, in
pixels. A tar archive (.tar.gz) of such a folder can be read as well.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError
from mirilla.evaluation.widerface import picture_name
from mirilla.files import explaining, write_text

_REMEDY = "Each file holds the picture's name, the number of boxes, and a line 'xmin ymin width height score' per box."


def read_predictions(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Read a folder or a tar archive of predictions.

    Returns:
        "EVENT/PICTURE" -> (N, 5) [xmin, ymin, width, height, score] in the picture's pixels.

    Raises:
        DataError: no such path, no prediction file, a repeated picture, or a malformed line (with file and line).
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.", "Check the path given with --predictions.")
    found: dict[str, NDArray[np.float64]] = {}
    for where, event, text in _texts(path):
        name, rows = parse(text, where)
        key = f"{event}/{name}"
        if key in found:
            raise DataError(f"{where}: repeated predictions for {key}.", "Remove one of the two files.")
        found[key] = rows
    if not found:
        raise DataError(f"{path}: no prediction file (EVENT/PICTURE.txt).", _REMEDY)
    return found


def parse(text: str, where: str) -> tuple[str, NDArray[np.float64]]:
    """The picture's name without folder and suffix, and its rows (N, 5), from a file's text.

    Raises:
        DataError: a malformed line, or a number of boxes that differs from the second line.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"{where}: the file has {len(lines)} lines; it needs a name and a number of boxes.", _REMEDY)
    try:
        count = int(float(lines[1]))
    except (ValueError, OverflowError):
        raise DataError(f"{where}:2: '{_shown(lines[1])}' is not a number of boxes.", _REMEDY) from None
    body = lines[2:]
    if len(body) != count:
        raise DataError(f"{where}:2: the file states {count} boxes, but {len(body)} lines follow.", _REMEDY)
    rows = np.zeros((count, 5))
    for number, line in enumerate(body):
        try:
            rows[number] = [float(word) for word in line.split()]
        except ValueError:
            raise DataError(f"{where}:{number + 3}: '{_shown(line)}' is not five numbers.", _REMEDY) from None
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        at = int(bad[0])
        raise DataError(f"{where}:{at + 3}: '{_shown(body[at])}' contains a number that is not finite.", _REMEDY)
    return picture_name(lines[0].strip()).rpartition("/")[2], rows


def write_predictions(folder: str | os.PathLike[str], predictions: Mapping[str, NDArray]) -> list[Path]:
    """Write a text file per picture to a folder per event; returns the files.

    Args:
        predictions: "EVENT/PICTURE" -> (N, 5) [xmin, ymin, width, height, score] in pixels, highest score first.
    """
    written = []
    for name, rows in predictions.items():
        event, _, picture = picture_name(name).rpartition("/")
        lines = [f"{event}/{picture}.jpg" if event else f"{picture}.jpg", str(len(rows))]
        lines += [" ".join(f"{v:.9g}" for v in row) for row in rows.tolist()]
        written.append(Path(folder) / event / f"{picture}.txt")
        write_text(written[-1], "\n".join(lines) + "\n")
    return written


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place for messages, event, text) of every .txt file below the folder or in the archive."""
    with explaining(path):
        if path.is_dir():
            for file in sorted(path.rglob("*.txt")):
                yield str(file), file.parent.name, _decoded(file.read_bytes(), str(file))
            return
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".txt"):
                        where = f"{path}/{member.name.removeprefix('./')}"
                        file = archive.extractfile(member)
                        content = file.read() if file else b""
                        yield where, Path(member.name).parent.name, _decoded(content, where)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(
                f"{path}: neither a folder nor a complete tar archive: {error}.",
                "Give the folder of predictions, or a .tar.gz of it.",
            ) from error


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text.", _REMEDY) from error


def _shown(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "..."
