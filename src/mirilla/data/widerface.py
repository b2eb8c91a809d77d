"""WIDER FACE: wider_face_split/*_bbx_gt.txt or .mat, and WIDER_{train,val}/images.

The text form, per picture: its name; the number of faces; one line 'x1 y1 w h blur expression illumination
invalid occlusion pose' each, in pixels. A picture with 0 faces is followed by one line of zeros all the same;
the .mat form, and some editions of the text, have one face of zeros there. `invalid` faces become ignored
boxes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import images
from mirilla.data.dataset import EVAL, TRAIN, Annotations, Entry, wanted
from mirilla.data.sample import Sample
from mirilla.errors import DataError, MissingExtraError
from mirilla.files import explaining
from mirilla.findings import Finding

FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
LABEL = "face"


@dataclass(frozen=True)
class Faces:
    """The faces of one picture: boxes_px_xywh (N, 4) float64, flags (N, 6) int64 in the order of FLAGS."""

    filename: str
    boxes_px_xywh: NDArray[np.float64]
    flags: NDArray[np.int64]
    where: str


def parse_text(text: str, name: str) -> tuple[list[Faces], list[Finding]]:
    """Read the text form; a picture whose lines are wrong is left out and becomes a finding.

    Args:
        name: the file's name, for messages.
    """
    lines = text.splitlines()
    faces: list[Faces] = []
    found: list[Finding] = []
    at = 0
    while at < len(lines):
        filename = lines[at].strip()
        if not filename:
            at += 1
            continue
        where = f"{name}, line {at + 1}"
        try:
            rows, after = _parse_faces(lines, at)
        except ValueError as error:
            found.append(
                Finding(
                    "error",
                    "bad-annotation",
                    where,
                    f"{filename[:80]!r}: {error}; the picture is left out.",
                    "Rule: a picture's name, its number of faces, then 'x y w h' and six flags per face.",
                )
            )
            at += 1
            while at < len(lines) and not _is_name(lines[at]):
                at += 1
            continue
        faces.append(Faces(filename, rows[:, :4], rows[:, 4:].astype(np.int64), where))
        at = after
    return faces, found


def _parse_faces(lines: list[str], at: int) -> tuple[NDArray[np.float64], int]:
    if not _is_name(lines[at]):
        raise ValueError("a picture's name is expected here")
    if at + 1 >= len(lines):
        raise ValueError("the file ends before the number of faces")
    try:
        count = int(lines[at + 1])
        if count < 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"line {at + 2} should be the number of faces, but is {lines[at + 1][:40]!r}") from None
    rows = np.zeros((count, 10))
    for i in range(count):
        number = at + 2 + i
        values = lines[number].split() if number < len(lines) else []
        if len(values) not in (4, 10):
            got = "missing" if number >= len(lines) else f"{lines[number][:40]!r}"
            raise ValueError(f"line {number + 1} should be face {i + 1} of {count} (4 or 10 numbers), but is {got}")
        try:
            rows[i, : len(values)] = [float(v) for v in values]
        except ValueError:
            raise ValueError(f"line {number + 1} holds something that is no number: {lines[number][:40]!r}") from None
        if not np.isfinite(rows[i]).all():
            raise ValueError(f"line {number + 1} holds a number that is not finite")
    after = at + 2 + count
    if count == 1 and not rows.any():
        rows = rows[:0]  # some editions of the file say "1 face" of zeros where there is none, as the .mat does
    if count == 0 and after < len(lines):
        zeros = lines[after].split()
        if zeros and len(zeros) in (4, 10) and set(zeros) <= {"0", "0.0"}:
            after += 1
    return rows, after


def _is_name(line: str) -> bool:
    return os.path.splitext(line.strip())[1].lower() in images.EXTENSIONS


def read_text(path: Path) -> tuple[list[Faces], list[Finding]]:
    """Read a *_bbx_gt.txt file.

    Raises:
        MirillaError: the file cannot be opened.
    """
    with explaining(path):
        text = path.read_bytes().decode("utf-8-sig", "replace")
    return parse_text(text, str(path))


def read_mat(path: Path) -> tuple[list[Faces], list[Finding]]:
    """Read wider_face_train.mat or wider_face_val.mat; the faces of zeros that stand for no face are taken
    out.

    Raises:
        MissingExtraError: scipy is not installed.
        DataError: not such a file.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError("scipy", "eval", "Reading WIDER FACE's .mat files") from error
    try:
        with explaining(path), open(path, "rb") as file:
            mat = loadmat(file)
        lists = [mat[f"{name}_label_list"] for name in FLAGS]
        events, files, boxes = mat["event_list"], mat["file_list"], mat["face_bbx_list"]
        faces: list[Faces] = []
        for e in range(len(events)):
            event = str(events[e, 0][0])
            for p in range(len(files[e, 0])):
                name = f"{event}/{files[e, 0][p, 0][0]}.jpg"
                box = np.asarray(boxes[e, 0][p, 0], np.float64).reshape(-1, 4)
                flags = np.stack([np.asarray(one[e, 0][p, 0], np.int64).reshape(-1) for one in lists], 1)
                if len(box) == 1 and not box.any():
                    box, flags = box[:0], flags[:0]
                faces.append(Faces(name, box, flags, f"{path}, {name}"))
    except (KeyError, IndexError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: not one of WIDER FACE's ground-truth .mat files ({error}).",
            "Use wider_face_train.mat, wider_face_val.mat, or the .txt files beside them.",
        ) from error
    return faces, []


def entries(faces: Sequence[Faces], pictures: Path, part: str | None) -> list[Entry]:
    """Entries for `dataset.build`; `pictures` is the folder that the names are relative to."""
    result = []
    for one in faces:
        xywh = one.boxes_px_xywh
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        attributes = {name: one.flags[:, i] for i, name in enumerate(FLAGS)}
        result.append(
            Entry(
                pictures / one.filename,
                one.filename,
                boxes,
                (LABEL,) * len(boxes),
                one.where,
                part=part,
                flags={"ignore": attributes["invalid"] != 0},
                attributes=attributes,
            )
        )
    return result


def find(folder: Path) -> list[Path]:
    """The annotation files of a folder in WIDER's own layout; .txt is preferred to .mat. Empty where there
    are none.
    """
    for place in (folder / "wider_face_split", folder):
        texts = sorted(place.glob("*_bbx_gt.txt"))
        if texts:
            return texts
        mats = sorted(p for p in place.glob("wider_face_*.mat") if "test" not in p.name)
        if mats:
            return mats
    if folder.name in (
        "WIDER_train",
        "WIDER_val",
    ):  # one of the folders of pictures: its annotations lie beside it
        return [p for p in find(folder.parent) if folder.name.removeprefix("WIDER_") in p.name]
    return []


def load(files: Sequence[Path], source: Path, name: str, split: str | None = None) -> Annotations:
    """Read annotation files; each one's pictures are looked for beside it and in WIDER_train, WIDER_val.

    Args:
        split: read only the files of this part ("train" or "eval").
    """
    collected: list[Entry] = []
    found: list[Finding] = []
    keep = wanted([part_of(p) for p in files], split, source)
    for path in files:
        part = part_of(path)
        if part not in keep:
            continue
        faces, problems = read_mat(path) if path.suffix.lower() == ".mat" else read_text(path)
        pictures = pictures_of(path, part, [f.filename for f in faces[:20]])
        collected += entries(faces, pictures, part)
        found += problems
    return Annotations(name, "widerface", source, tuple(collected), tuple(found), (LABEL,))


def part_of(path: Path) -> str | None:
    """ "train" or "eval" by an annotation file's name."""
    if "train" in path.name:
        return TRAIN
    return EVAL if "val" in path.name else None


def pictures_of(annotations: Path, part: str | None, names: Sequence[str]) -> Path:
    """The folder that holds the pictures of an annotation file: the first candidate with one of `names` in
    it.
    """
    folder = annotations.parent
    own = {TRAIN: "WIDER_train", EVAL: "WIDER_val"}.get(part or "", "")
    candidates = []
    for base in (folder, folder.parent):
        if own:
            candidates += [base / own / "images", base / own / own / "images"]
        candidates += [base / "images", base]
    for candidate in candidates:
        if any((candidate / n).exists() for n in names):
            return candidate
    return next((c for c in candidates if c.is_dir() and c.name == "images"), candidates[0])


def text_of(samples: Sequence[Sample]) -> str:
    """Samples in the text form; whole numbers as such, others with up to 2 decimals."""
    lines: list[str] = []
    for sample in samples:
        boxes = sample.boxes_px_xyxy
        lines += [sample.filename, str(len(boxes))]
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            flags = [int(sample.attributes[n][i]) if n in sample.attributes else 0 for n in FLAGS]
            flags[FLAGS.index("invalid")] = int(sample.ignore[i])
            x, y = round(x0, 2), round(y0, 2)
            numbers = [f"{v:.2f}".rstrip("0").rstrip(".") for v in (x, y, x1 - x, y1 - y)]
            lines.append(" ".join([*("0" if v == "-0" else v for v in numbers), *map(str, flags)]))
        if not len(boxes):
            lines.append(" ".join(["0"] * 10))
    return "\n".join(lines) + "\n"
