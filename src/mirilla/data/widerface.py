"""WIDER FACE: wider_face_split/*_bbx_gt.txt or .mat, and WIDER_{train,val}/images.

The text form, per picture: its name; the number of faces; a line 'x1 y1 w h blur expression illumination invalid
occlusion pose' per face, in pixels. A picture with 0 faces is still followed by a line of zeros; the .mat form and
some editions of the text have one face of zeros instead. `invalid` faces become ignored boxes.

A small set may have bbx_gt_ignore.txt or bbx_gt.txt in this form beside images/ instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import images, matlab, text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build, read_each
from mirilla.data.dataset import EVAL, TRAIN, Dataset, parts_to_read
from mirilla.data.folders import files_in
from mirilla.data.names import PictureFinder
from mirilla.data.output import Output, by_part, part_word, pixel_text
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.findings import Finding

FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
LABEL = "face"
_LARGEST = 1e9  # of a flag
_PLAIN_FILES = ("bbx_gt_ignore.txt", "bbx_gt.txt")  # the preferred one first


@dataclass(frozen=True)
class Faces:
    """The faces of one picture: boxes_px_xywh (N, 4) float64, flags (N, 6) int64 in the order of FLAGS."""

    filename: str
    boxes_px_xywh: NDArray[np.float64]
    flags: NDArray[np.int64]
    where: str


def find(folder: Path) -> list[Path]:
    """The annotation files of a folder; .txt is preferred to .mat."""
    if plain := plain_files(folder):
        return plain[:1]
    split = folder / "wider_face_split"
    for place in (split, split / split.name, folder):  # archives from Kaggle are unpacked one folder deeper
        if texts := files_in(place, "*_bbx_gt.txt"):
            return texts
        if mats := [path for path in files_in(place, "wider_face_*.mat") if "test" not in path.name]:
            return mats
    if folder.name in ("WIDER_train", "WIDER_val"):  # a folder of pictures: its annotations are beside it
        return [path for path in find(folder.parent) if folder.name.removeprefix("WIDER_") in path.name]
    return []


def plain_files(folder: Path) -> list[Path]:
    """bbx_gt_ignore.txt and bbx_gt.txt of a folder that has images/ beside them, the preferred one first."""
    if not (folder / "images").is_dir():
        return []
    return [folder / name for name in _PLAIN_FILES if (folder / name).is_file()]


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a folder in WIDER FACE's layout, or a single annotation file.

    Pictures are searched for beside each annotation file and in WIDER_train, WIDER_val.

    Raises:
        DataError: there are no annotation files, or a .mat file is malformed.
        MissingExtraError: scipy is needed for a .mat file but not installed.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: no wider_face_split/*_bbx_gt.txt, .mat or bbx_gt.txt in this folder.",
            "Give the folder that holds wider_face_split, WIDER_train and WIDER_val.",
        )
    entries: list[Entry] = []
    problems: list[Finding] = []
    read = parts_to_read([part_of(file) for file in files], split, path)
    contents = read_each([file for file in files if part_of(file) in read], _faces, problems)
    for file, (faces, file_problems) in contents:
        finder = PictureFinder(_picture_folder(file, part_of(file), [picture.filename for picture in faces[:20]]))
        entries += [_entry(picture, finder, part_of(file)) for picture in faces]
        problems += file_problems
    return build(
        Annotations(
            "widerface",
            path,
            tuple(entries),
            tuple(problems),
            (LABEL,),
            _note_of_choice(path),
            split_folder=files[0].parent,
            unused=() if len(contents) == len(files) else None,
        ),
        split,
        advance,
    )


def _faces(file: Path) -> tuple[list[Faces], list[Finding]]:
    return read_mat(file) if file.suffix.lower() == ".mat" else read_file(file)


def _note_of_choice(path: Path) -> tuple[str, ...]:
    """A note if a folder has other files with the same boxes."""
    plain = plain_files(path) if path.is_dir() else []
    others = [file.name for file in (*plain[1:], path / "annotations.csv") if file.exists()]
    return (f"{path}: {plain[0].name} is read (rather than {', '.join(others)}).",) if plain and others else ()


def part_of(path: Path) -> str | None:
    """'train' or 'eval' by an annotation file's name."""
    if "train" in path.name:
        return TRAIN
    return EVAL if "val" in path.name else None


def _picture_folder(file: Path, part: str | None, names: Sequence[str]) -> Path:
    """The folder of an annotation file's pictures: the first candidate that holds one of `names`."""
    own = {TRAIN: "WIDER_train", EVAL: "WIDER_val"}.get(part or "")
    candidates: list[Path] = []
    above = file.parent.parent
    for base in (file.parent, above, *([above.parent] if above.name == file.parent.name else [])):
        if own:
            candidates += [base / own / "images", base / own / own / "images"]
        candidates += [base / "images", base]
    for candidate in candidates:
        if any(os.path.exists(candidate / name) for name in names):  # of any length
            return candidate
    return next((folder for folder in candidates if folder.is_dir() and folder.name == "images"), candidates[0])


def _entry(faces: Faces, pictures: PictureFinder, part: str | None) -> Entry:
    xywh = faces.boxes_px_xywh
    picture = pictures.find(faces.filename)
    attributes = {name: faces.flags[:, i] for i, name in enumerate(FLAGS)}
    return Entry(
        picture.path,
        picture.name,
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
        (LABEL,) * len(xywh),
        faces.where,
        part=part,
        flags={"ignore": attributes["invalid"] != 0},
        attributes=attributes,
    )


def read_file(path: Path) -> tuple[list[Faces], list[Finding]]:
    """Read a *_bbx_gt.txt file.

    Raises:
        MirillaError: the file cannot be opened.
    """
    return parse(text.read(path), str(path))


def parse(content: str, name: str) -> tuple[list[Faces], list[Finding]]:
    """Read the text form; a picture whose lines are wrong is left out and becomes a finding.

    Args:
        name: the file's name, for messages.
    """
    lines = content.split("\n")
    faces: list[Faces] = []
    problems: list[Finding] = []
    at = 0
    while at < len(lines):
        filename = lines[at].strip()
        if not filename:
            at += 1
            continue
        where = f"{name}, line {at + 1}"
        try:
            rows, at = _parse_picture(lines, at)
        except ValueError as error:
            what = f"{filename[:80]!r}: {error}; the picture is left out."
            remedy = "The form is: a picture's name, its number of faces, then 'x y w h' and six flags per face."
            problems.append(bad_annotation(where, what, remedy))
            at = next((i for i in range(at + 1, len(lines)) if _is_name(lines[i])), len(lines))
            continue
        faces.append(Faces(filename, rows[:, :4], np.clip(rows[:, 4:], -_LARGEST, _LARGEST).astype(np.int64), where))
    return faces, problems


def _parse_picture(lines: list[str], at: int) -> tuple[NDArray[np.float64], int]:
    """Rows (N, 10) of the picture whose name is in line `at`, and the line after it."""
    if not _is_name(lines[at]):
        raise ValueError("a picture's name is expected here")
    first = at + 2
    after = first + _parse_count(lines, at + 1)
    for i in range(first, after):
        if i >= len(lines) or len(lines[i].split()) not in (4, 10):
            actual = repr(lines[i][:40]) if i < len(lines) else "missing"
            face = f"face {i - first + 1} of {after - first}"
            raise ValueError(f"line {i + 1} must be {face} (4 or 10 numbers), but is {actual}")
    rows = np.array([_parse_face(lines[i], i + 1) for i in range(first, after)], np.float64).reshape(-1, 10)
    if len(rows) == 1 and not rows.any():
        return rows[:0], after  # some editions have '1' and a face of zeros if there is none, as the .mat does
    if not len(rows) and after < len(lines) and _is_line_of_zeros(lines[after]):
        after += 1
    return rows, after


def _parse_count(lines: list[str], at: int) -> int:
    """The number of faces in line `at`."""
    if at >= len(lines):
        raise ValueError("the file ends before the number of faces")
    text = lines[at].strip()
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise ValueError(f"line {at + 1} must be the number of faces, but is {text[:40]!r}")
    return int(text)


def _parse_face(line: str, number: int) -> list[float]:
    """The 10 numbers of a face; flags that are left out are 0."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        raise ValueError(f"line {number} has something other than numbers: {line[:40]!r}") from None
    if not all(map(math.isfinite, values)):
        raise ValueError(f"line {number} has a number that is not finite")
    return values + [0.0] * (10 - len(values))


def _is_line_of_zeros(line: str) -> bool:
    words = line.split()
    return len(words) in (4, 10) and set(words) <= {"0", "0.0"}


def _is_name(line: str) -> bool:
    return images.is_picture_name(line.strip())


def read_mat(path: Path) -> tuple[list[Faces], list[Finding]]:
    """Read wider_face_train.mat or wider_face_val.mat; a face of zeros means that there is none.

    Raises:
        MissingExtraError: scipy is not installed.
        DataError: not such a file.
    """
    faces: list[Faces] = []
    mat = matlab.load(path)
    try:
        lists = [mat[f"{name}_label_list"] for name in FLAGS]
        events, files, boxes = mat["event_list"], mat["file_list"], mat["face_bbx_list"]
        for e in range(len(events)):
            event = str(events[e, 0][0])
            for p in range(len(files[e, 0])):
                name = f"{event}/{files[e, 0][p, 0][0]}.jpg"
                box = np.asarray(boxes[e, 0][p, 0], np.float64).reshape(-1, 4)
                flags = np.stack([np.asarray(values[e, 0][p, 0], np.int64).reshape(-1) for values in lists], 1)
                if len(box) == 1 and not box.any():
                    box, flags = box[:0], flags[:0]
                faces.append(Faces(name, box, flags, f"{path}, {name}"))
    except (KeyError, IndexError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: not one of WIDER FACE's ground-truth .mat files ({error}).",
            "Use wider_face_train.mat, wider_face_val.mat, or the .txt files beside them.",
        ) from error
    return faces, []


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write WIDER_PART/images/ and wider_face_split/wider_face_PART_bbx_gt.txt."""
    for part, samples in by_part(dataset).items():
        word = part_word(part)
        for sample in samples:
            output.copy_picture(sample, f"WIDER_{word}/images/{sample.filename}")
        output.write(f"wider_face_split/wider_face_{word}_bbx_gt.txt", text_of(samples))


def text_of(samples: Sequence[Sample]) -> str:
    """Samples in the text form; coordinates have up to 2 decimals."""
    lines: list[str] = []
    for sample in samples:
        lines += [sample.filename, str(len(sample))]
        flags = np.zeros((len(sample), len(FLAGS)), np.int64)
        for column, name in enumerate(FLAGS):
            if name in sample.attributes:
                flags[:, column] = sample.attributes[name]
        flags[:, FLAGS.index("invalid")] = sample.ignore
        for (x0, y0, x1, y1), row in zip(sample.boxes_px_xyxy.tolist(), flags.tolist(), strict=True):
            x, y = round(x0, 2), round(y0, 2)
            lines.append(" ".join([*map(pixel_text, (x, y, x1 - x, y1 - y)), *map(str, row)]))
        if not len(sample):
            lines.append(" ".join(["0"] * 10))
    return "\n".join(lines) + "\n"
