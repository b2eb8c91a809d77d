"""Where a data set in YOLO's format has its pictures, its labels and the names of its classes.

data.yaml                                      Ultralytics, Roboflow
obj.data, obj.names, train.txt                 CVAT 'YOLO 1.1', Darknet
images/, labels/, classes.txt                  Label Studio; both may have train/, val/ and test/ inside
train/, valid/, test/ with either or both      Roboflow's Darknet export, with _darknet.labels
pictures, labels and classes.txt together      LabelImg, MakeSense
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.data import data_yaml, images, text, yolo_labels
from mirilla.data.dataset import EVAL, TEST, TRAIN
from mirilla.data.folders import files_below
from mirilla.data.names import PictureFinder
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.findings import Finding

_YAML = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")
_DARKNET_PARTS = {"train": TRAIN, "valid": EVAL, "test": TEST}
_KEYS = re.compile(r"(?m)^\s*(train|names)\s*:")
_ASSIGNMENT = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*([^\n]*?)[ \t]*$")
_MOST_OPENED = 20  # label files that are opened to recognise a folder


@dataclass(frozen=True)
class Layout:
    """The locations of the pictures and the names of the classes.

    Attributes:
        places: (folder, or file that lists pictures; part).
        root: the folder that listed pictures may be relative to.
        names: class number -> name; empty if there are none.
        names_from: the file that has them, for messages.
        keypoints: kpt_shape of data.yaml.
    """

    places: tuple[tuple[Path, str | None], ...]
    root: Path
    names: dict[int, str]
    names_from: str = ""
    keypoints: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()


def find(folder: Path) -> list[Path]:
    """The data.yaml or obj.data of a folder, or the folder itself if it has label files; none if it has neither."""
    yamls = [path for name in _YAML if os.path.isfile(path := folder / name)]
    yamls += sorted(path for path in (*folder.glob("*.yaml"), *folder.glob("*.yml")) if path not in yamls)
    wrong: list[Path] = []
    for path in (*yamls, *sorted(folder.glob("*.data"))):
        try:
            if os.path.isfile(path) and any(os.path.exists(place) for place in _places_of(path)):
                return [path]
        except DataError:
            wrong += [path] if path.name in _YAML and _KEYS.search(text.head(path)) else []
    # The error of a wrong data.yaml is better than a layout without its names.
    return wrong[:1] or ([folder] if _folder_places(folder) else [])


def _places_of(path: Path) -> list[Path]:
    """The folders and lists that a data.yaml or an obj.data names."""
    if path.suffix == ".data":
        return [place for place, _ in _darknet(path).places]
    return [place for place, _ in _Places(data_yaml.read(path)).found]


def of(path: Path) -> Layout:
    """The layout of a data.yaml, an obj.data or a folder.

    Raises:
        DataError: it has none of these layouts, or a file cannot be read.
    """
    if path.is_dir():
        found = find(path)
        if not found:
            raise DataError(
                f"{path}: no data.yaml whose folders exist, no images/ with labels/*.txt, and no pictures with .txt "
                "files beside them in this folder.",
                "Give the folder that holds data.yaml; its 'train' and 'val' must name folders.",
            )
        path = found[0]
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() == ".data":
        return _checked(_darknet(path), path)
    return _of_yaml(path)


def pictures(layout: Layout, place: Path, problems: list[Finding]) -> Iterator[tuple[Path, str]]:
    """The pictures of a folder, or those that a .txt file lists, with their names relative to it.

    Args:
        problems: a list to which findings about folders that cannot be read are added.

    Raises:
        DataError: the list cannot be read, or the folder is the root of the file system.
    """
    if os.path.isdir(place):
        if place.resolve() == Path(place.resolve().anchor):  # reading it would take hours
            what = f"{place}: the root of the file system is named as a folder of pictures."
            raise DataError(what, "Name the folder of the pictures in data.yaml or obj.data.")
        below, unreadable = files_below(place)
        problems += unreadable
        for path in below:
            if images.is_picture_name(path.name):
                yield path, path.relative_to(place).as_posix()
    elif os.path.isfile(place):
        finder = PictureFinder(place.parent, layout.root)
        for line in filter(None, map(str.strip, text.read(place).split("\n"))):
            picture = finder.find(line)
            if not os.path.isfile(picture.path):  # 'data/obj_train_data/a.jpg', where 'data' is now another name
                tail = finder.find(f"/{line}")
                picture = tail if os.path.isfile(tail.path) else picture
            yield picture


def near_miss(folder: Path) -> str | None:
    """Why a folder with a part of a layout is not of this format; None if it has nothing of one."""
    for path in sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")}):
        try:
            content = data_yaml.read(path)
        except DataError:
            continue
        if content.places:
            missing = ", ".join(f"{part}: {place}" for place, part in content.places[:3])
            return f"{path.name} names folders that do not exist here ({missing})"
    labels = _child(folder, "labels")
    if labels and not _child(folder, "images"):
        return "there is labels/ but no images/ beside it"
    if _child(folder, "images") and labels:
        return "labels/ has no .txt file"
    if any(os.path.isfile(folder / name) for name in _NAME_FILES):
        return "there are names of classes, but no picture has a label file (.txt) of the same name"
    return None


class _Places:
    """The folders or lists of a data.yaml, as far as they exist under one of the names that exporters write.

    Attributes:
        found: (folder or list, part), in the order of the file; each once.
        notes: which places were not where the file says.
    """

    def __init__(self, content: data_yaml.DataYaml):
        base = content.path.parent
        given = base / content.root.replace("\\", "/")
        self.root = given if os.path.isdir(given) else base
        self.notes: list[str] = []
        self.found: list[tuple[Path, str]] = []
        for listed, part in content.places:
            place = self._place(content, listed, part)
            if (place, part) not in self.found:
                self.found.append((place, part))

    def _place(self, content: data_yaml.DataYaml, listed: str, part: str) -> Path:
        """A folder or list: as written, else without a leading '../', else without its first folders."""
        slashed = listed.replace("\\", "/")
        for spelling in (listed, slashed, slashed.removeprefix("../")):
            if os.path.exists(place := self.root / spelling):
                return place
        parts = [word for word in slashed.split("/") if word not in ("", ".", "..")]
        for start in range(len(parts)):
            tail = parts[start:]
            place = content.path.parent.joinpath(*tail)
            if os.path.isfile(place) or (os.path.isdir(place) and (len(tail) > 1 or part_name(tail[0]) == part)):
                self.notes.append(f"{content.path}: {listed} does not exist; reading {place}.")
                return place
        return self.root / listed


def _of_yaml(path: Path) -> Layout:
    content = data_yaml.read(path)
    places = _Places(content)
    if not places.found:
        raise DataError(f"{path}: it names neither 'train' nor 'val' pictures.", "Add both keys.")
    part_of: dict[Path, str] = {}
    notes = list(places.notes)
    for place, part in places.found:
        if place in part_of:
            # A folder of two parts belongs to the part with its name, or else to the first.
            named = part_name(place.name)
            part_of[place] = named if named in (part, part_of[place]) else part_of[place]
            notes.append(f"{path}: several parts are in {place.name}; it is read as '{part_of[place]}'.")
        else:
            part_of[place] = part
    problems = ()
    if content.count is not None and content.count != len(content.names):
        what = f"'nc' says {content.count} classes, but 'names' has {len(content.names)}; the names are used."
        problems = (Finding("warning", "names-mismatch", str(path), what, "Correct 'nc', or add the names."),)
    layout = Layout(
        tuple(part_of.items()), places.root, content.names, path.name, content.keypoints, tuple(notes), problems
    )
    return _checked(layout, path)


def _checked(layout: Layout, path: Path) -> Layout:
    """The layout, with a finding for every folder that does not exist; without a test set, nothing is lost."""
    missing = tuple(
        Finding(
            "warning" if part == TEST else "error",
            "missing-folder",
            str(path),
            f"the folder or list of the part '{part}', {place}, does not exist.",
            f"Correct the path in {path.name}.",
        )
        for place, part in layout.places
        if not os.path.exists(place)
    )
    return replace(layout, problems=(*layout.problems, *missing))


def _darknet(path: Path) -> Layout:
    """The layout of an obj.data: 'key = value' lines with train, valid and names; paths may begin at another folder."""
    values = {match[1]: match[2] for match in _ASSIGNMENT.finditer(text.read(path)) if match[2]}
    content = data_yaml.DataYaml(path, ".", tuple((values[k], p) for k, p in _DARKNET_PARTS.items() if k in values), {})
    places = _Places(content)
    names_file = path.parent / Path(values.get("names", "obj.names").replace("\\", "/")).name
    return Layout(tuple(places.found), places.root, _read_names(names_file), names_file.name)


def _of_folder(folder: Path) -> Layout:
    places = _folder_places(folder)
    for base in (folder, folder / "labels", *(path for path, _ in places)):
        for name in _NAME_FILES:
            if names := _read_names(base / name):
                return Layout(tuple(places), folder, names, name)
    return Layout(tuple(places), folder, {})


def _read_names(path: Path) -> dict[int, str]:
    """Line number from 0 -> name; empty if there is no such file."""
    if not os.path.isfile(path):
        return {}
    lines = text.read(path).rstrip().split("\n")
    return {number: line.strip() for number, line in enumerate(lines) if line.strip()}


def _folder_places(folder: Path) -> list[tuple[Path, str | None]]:
    """The folders of pictures, with their parts; empty if no picture has labels."""
    root, labels = _child(folder, "images"), _child(folder, "labels")
    if root and labels and next(labels.rglob("*.txt"), None):
        return _parts_in(root) or [(root, None)]
    parts = []
    for path, part in _parts_in(folder):
        inside = _child(path, "images")
        if inside and _child(path, "labels"):
            parts.append((inside, part))
        elif _has_labels_beside(path):
            parts.append((path, part))
    return parts or ([(folder, None)] if _has_labels_beside(folder) else [])


def _parts_in(folder: Path) -> list[tuple[Path, str | None]]:
    inside = sorted(path for path in _entries(folder) if path.is_dir())
    return [(path, part) for path in inside if (part := part_name(path.name))]


def _has_labels_beside(folder: Path) -> bool:
    """Whether pictures have label files of the same name beside them."""
    inside = _entries(folder)
    stems = {path.stem for path in inside if images.is_picture_name(path.name)}
    labels = sorted(path for path in inside if path.suffix.lower() == ".txt" and path.stem in stems)
    if labels and any(os.path.isfile(folder / name) for name in _NAME_FILES):
        return True
    return any(yolo_labels.is_label_text(text.head(path)) for path in labels[:_MOST_OPENED])


def _child(folder: Path, name: str) -> Path | None:
    """A folder in a folder: of this name, or of this name in another case."""
    if os.path.isdir(folder / name):
        return folder / name
    return next((path for path in sorted(_entries(folder)) if path.name.lower() == name and path.is_dir()), None)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
