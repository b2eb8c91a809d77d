"""The content of a COCO JSON file: images, annotations and categories, where any value may be of any type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.annotations import Entry, bad_annotation
from mirilla.data.names import PictureFinder
from mirilla.findings import Finding

Json = object  # what json.loads returns
Object = Mapping[str, Json]
_FLAGS = ("ignore", "iscrowd", "is_crowd", "difficult", "group_of")
_NO_GROUP = ("", "none")  # supercategories that mean none
_MAX_SIZE_PX = 1_000_000


@dataclass
class Content:
    """What a file holds.

    Attributes:
        entries: one per picture that can be used.
        unused: the other pictures.
        categories: names in the order of their ids, each once.
        groups: names that are the supercategory of other categories.
        notes: how unusual values were read.
    """

    entries: list[Entry] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def parse(content: Object, name: str, finder: PictureFinder, prefix: str = "", part: str | None = None) -> Content:
    """The content of a file; what cannot be read becomes a finding.

    Args:
        name: the file's name, for messages.
        prefix: added to the pictures' names.
    """
    made = Content()
    categories = _categories(content, name, made)
    pictures = _pictures(content, name, made)
    _collect(content, name, categories, pictures, made)
    for picture in pictures.values():
        found = finder.find(picture.filename or "?")
        if picture.broken:
            made.unused.append(found.path)
        else:
            made.entries.append(
                Entry(
                    found.path,
                    prefix + found.name,
                    np.array(picture.xyxy, np.float64).reshape(-1, 4),
                    tuple(picture.labels),
                    picture.where,
                    picture.size_px,
                    part=part,
                    flags=picture.sample_flags(),
                    weight=np.array(picture.weights, np.float64),
                )
            )
    polygons = sum(picture.polygons for picture in pictures.values())
    if polygons:
        made.notes.append(f"{name}: {polygons} annotations have no bbox; the box around their polygon is read.")
    return made


class _Picture:
    """An image with its annotations; `broken` if one of them cannot be read."""

    def __init__(self, filename: str, where: str, size_px: tuple[int, int] | None):
        self.filename, self.where, self.size_px = filename, where, size_px
        self.xyxy: list[list[float]] = []
        self.labels: list[str] = []
        self.weights: list[float] = []
        self.flags: list[dict[str, bool]] = []
        self.polygons = 0
        self.broken = False

    def add(self, item: Object, categories: Mapping[str, str]) -> None:
        """Add an annotation.

        Raises:
            ValueError: it cannot be read; the message has the reason.
        """
        if item.get("bbox") in (None, []) and (corners := _polygon_corners(item.get("segmentation"))):
            self.polygons += 1
        else:
            x, y, width, height = _box(item)
            corners = [x, y, x + width, y + height]
        category = _key(item.get("category_id"))
        if category is None:
            raise ValueError(f"category_id is {_short(item.get('category_id'))}, not a number")
        if category not in categories:
            raise ValueError(f"category {category} is not in the list of categories")
        weight = item.get("weight")
        flags = {name: _flag(item, name) for name in _FLAGS}
        self.weights.append(1.0 if weight is None else _number(weight, "weight"))
        self.xyxy.append(corners)
        self.labels.append(categories[category])
        self.flags.append(flags)

    def sample_flags(self) -> dict[str, NDArray[np.bool_]]:
        """The flags of a sample."""
        columns = {name: np.array([flags[name] for flags in self.flags], bool) for name in _FLAGS}
        # `save` sets `iscrowd` on every ignored box; Mirilla's own `is_crowd` marks those that are crowds as well.
        crowd = np.where(columns["ignore"], columns.pop("is_crowd"), columns.pop("iscrowd"))
        return {**columns, "is_crowd": crowd}


def _categories(content: Object, name: str, made: Content) -> dict[str, str]:
    """Category id -> name."""
    categories: dict[str, str] = {}
    parents: dict[str, str] = {}
    for item in _list(content, "categories"):
        number, label = (_key(item.get("id")), _text(item.get("name"))) if isinstance(item, dict) else (None, None)
        if number is None or not label:
            made.problems.append(bad_annotation(name, f"the category {_short(item)} has no id or no name."))
            continue
        if categories.setdefault(number, label) != label:
            what = f"two categories have the id {number} ('{categories[number]}' and '{label}'); the first is used."
            made.problems.append(bad_annotation(name, what))
        parents[label] = (isinstance(item, dict) and _text(item.get("supercategory"))) or ""
    made.categories = list(dict.fromkeys(categories[number] for number in sorted(categories, key=_numbers_first)))
    made.groups = {parent for label, parent in parents.items() if parent not in (*_NO_GROUP, label)}
    for label, count in Counter(categories.values()).items():
        if count > 1:
            made.notes.append(f"{name}: {count} categories have the name '{label}'; they are one class.")
    return categories


def _pictures(content: Object, name: str, made: Content) -> dict[str, _Picture]:
    """Image id -> picture; images that share an id are broken, unless they are the same picture."""
    pictures: dict[str, _Picture] = {}
    for number, item in enumerate(_list(content, "images"), 1):
        if not isinstance(item, dict):
            made.problems.append(bad_annotation(name, f"image {number} of the list is {_short(item)}, not an object."))
            continue
        where = f"{name}, image {_short(item.get('id'))}"
        filename, key = _text(item.get("file_name")), _key(item.get("id"))
        if not filename:
            made.problems.append(bad_annotation(where, "it has no file_name; it is left out."))
            filename = ""
        if key is None:
            what = f"its id is {_short(item.get('id'))}, not a number or a text; it is left out."
            made.problems.append(bad_annotation(where, what))
        elif key in pictures and pictures[key].filename == filename:
            what = f"{filename} is listed a second time with the same id; the second entry is left out."
            made.problems.append(Finding("warning", "listed-twice", where, what, "Remove one of the entries."))
        elif key in pictures:
            pictures[key].broken = True
            what = (
                f"the images '{pictures[key].filename}' and '{filename}' have the same id, so nobody knows whose its "
                "annotations are; both are left out."
            )
            made.problems.append(bad_annotation(where, what, "Give every image an id of its own."))
        else:
            pictures[key] = _Picture(filename, where, _size(item))
            pictures[key].broken = not filename
    return pictures


def _collect(
    content: Object, name: str, categories: Mapping[str, str], pictures: Mapping[str, _Picture], made: Content
) -> None:
    """Assign the annotations to their pictures; one that cannot be read becomes a finding."""
    annotations = _list(content, "annotations")
    what = f"its {len(pictures)} pictures count as pictures without objects."
    if not isinstance(content.get("annotations"), list):
        remedy = "Export the annotations as well, or leave the file out."
        made.problems.append(Finding("error", "no-labels", name, f"it has no list 'annotations'; {what}", remedy))
    elif not annotations and pictures:
        made.notes.append(f"{name}: it has no annotations; {what}")
    for number, item in enumerate(annotations, 1):
        if not isinstance(item, dict):
            what = f"annotation {number} of the list is {_short(item)}, not an object; it is left out."
            made.problems.append(bad_annotation(name, what))
            continue
        where = f"{name}, annotation {_short(item.get('id'))}"
        key = _key(item.get("image_id"))
        if key is None or key not in pictures:
            image = "'image_id' is missing" if "image_id" not in item else f"image {_short(item['image_id'])}"
            known = "" if "image_id" not in item else " is not in the list of images"
            made.problems.append(bad_annotation(where, f"{image}{known}; it is left out."))
            continue
        try:
            pictures[key].add(item, categories)
        except ValueError as error:
            made.problems.append(bad_annotation(where, f"{error}; its picture is left out."))
            pictures[key].broken = True


def _box(item: Object) -> list[float]:
    """[x, y, width, height] of an annotation."""
    if "bbox" not in item:
        raise ValueError("'bbox' is missing")
    values = item["bbox"]
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"bbox must be [x, y, width, height], but is {_short(values)}")
    return [_number(value, "a number of bbox") for value in values]


def _polygon_corners(segmentation: Json) -> list[float] | None:
    """[xmin, ymin, xmax, ymax] of polygons [[x, y, x, y, ...], ...]; None if there are none."""
    polygons = segmentation if isinstance(segmentation, list) else []
    try:
        values = [[_number(v, "segmentation") for v in polygon] for polygon in polygons if isinstance(polygon, list)]
    except ValueError:
        return None
    xs = [value for polygon in values for value in polygon[::2]]
    ys = [value for polygon in values for value in polygon[1::2]]
    return [min(xs), min(ys), max(xs), max(ys)] if len(ys) >= 3 and len(xs) == len(ys) else None


def _size(picture: Object) -> tuple[int, int] | None:
    """(height, width), if both are usable numbers."""
    try:
        height, width = _number(picture.get("height"), "height"), _number(picture.get("width"), "width")
    except ValueError:
        return None
    return (int(height), int(width)) if max(abs(height), abs(width)) <= _MAX_SIZE_PX else None


def _list(content: Object, key: str) -> list[Json]:
    items = content.get(key)
    return items if isinstance(items, list) else []


def _key(value: Json) -> str | None:
    """An id as text, so that 1, 1.0 and "1" are the same; None if it is not an id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return None
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return None
    return str(value).strip() or None


def _numbers_first(key: str) -> tuple[bool, int, str]:
    return (False, int(key), key) if key.isascii() and key.isdigit() and len(key) < 40 else (True, 0, key)


def _number(value: Json, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} is {_short(value)}, not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} is {_short(value)}, not a finite number")
    return number


def _flag(item: Object, name: str) -> bool:
    value = item.get(name)
    if value in (None, 0, "", "0", "false", "False"):
        return False
    if value in (1, "1", "true", "True"):
        return True
    raise ValueError(f"{name} is {_short(value)}, not 0 or 1")


def _text(value: Json) -> str | None:
    """A text that can be a file's name or a label; None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value) if not isinstance(value, int) or abs(value) < 1 << 128 else ""
    return None if any("\ud800" <= character <= "\udfff" for character in text) else text


def _short(value: Json) -> str:
    """A value in a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return "a number of many digits"
    text = "missing" if value is None else str(value)
    return ascii(text)[:60] if not text.isprintable() else text[:60]
