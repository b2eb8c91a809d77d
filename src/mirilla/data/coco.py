"""COCO JSON: images, annotations with bbox [x, y, width, height] in pixels, categories.

Files: annotations/instances_train*.json and instances_val*.json, {train,valid,test}/_annotations.coco.json, or any
single .json of that form. `iscrowd` is read as is_crowd. An ignored box is written with `ignore` and `iscrowd` set,
so that pycocotools leaves it out too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build
from mirilla.data.dataset import Dataset, parts_to_read
from mirilla.data.output import Output, by_part, part_word
from mirilla.data.sample import FLAGS, Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding

Json = object  # what json.loads returns; its types are checked where it is used
_Id = int | float | str
_ROBOFLOW = "_annotations.coco.json"
_PATTERNS = ("annotations/instances_*.json", "instances_*.json", f"*/{_ROBOFLOW}", _ROBOFLOW)


def find(folder: Path) -> list[Path]:
    """The annotation files of a folder."""
    for pattern in _PATTERNS:
        if files := sorted(folder.glob(pattern)):
            return files
    return [p for pattern in ("*.json", "annotations/*.json") for p in sorted(folder.glob(pattern)) if _is_coco(p)][:1]


def _is_coco(path: Path) -> bool:
    """Whether a file mentions COCO's keys near its beginning or end."""
    try:
        with open(path, "rb") as file:
            head = file.read(65536)
            file.seek(-min(4096, path.stat().st_size), 2)
            text = head + file.read()
    except OSError:
        return False
    return b'"images"' in text and (b'"annotations"' in text or b'"categories"' in text)


def part_of(path: Path) -> str | None:
    """The part named by the file (instances_val2017.json) or its folder (valid/_annotations.coco.json)."""
    if path.name == _ROBOFLOW:
        return part_name(path.parent.name)
    words = path.stem.lower().replace("-", "_").split("_")
    return next((part for word in words if (part := part_name(word.rstrip("0123456789")))), None)


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read the annotation files of a folder (only those of `split`, if they have parts), or a single file.

    Raises:
        DataError: no such file, not JSON, or not in COCO's format.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: no COCO file (instances_*.json, {_ROBOFLOW}) in this folder.",
            "Give the .json file itself.",
        )
    read = parts_to_read([part_of(file) for file in files], split, path)
    entries: list[Entry] = []
    problems: list[Finding] = []
    labels: list[str] = []
    for file in files:
        if part_of(file) not in read:
            continue
        content = _content(file)
        folder = _picture_folder(file, [str(item.get("file_name", "")) for item in _objects(content, "images")[:20]])
        prefix = f"{folder.name}/" if len(files) > 1 else ""
        file_entries, file_problems, categories = parse(content, str(file), folder, prefix, part_of(file))
        entries += file_entries
        problems += file_problems
        labels += categories
    labels = list(dict.fromkeys(labels))
    return build(Annotations("coco", path, tuple(entries), tuple(problems), tuple(labels)), split, advance)


def _content(file: Path) -> dict[str, Json]:
    with explaining(file):
        raw = file.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {error}.", "Fetch or write the file again: it may be truncated.") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{file}: not in COCO's format: it has no list 'images'.", "Check the path, and --from.")
    return content


def _objects(content: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    """The objects in a list; other values are skipped."""
    items = content.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _picture_folder(file: Path, names: Sequence[str]) -> Path:
    """The folder of an annotation file's pictures: the first candidate that holds one of `names`."""
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    stem = file.stem.removeprefix("instances_")
    candidates = [base / stem, base / "images" / stem, base / "images", base, file.parent]
    if file.name == _ROBOFLOW:
        candidates = [file.parent, file.parent / "images"]
    for candidate in candidates:
        if any(name and (candidate / name).is_file() for name in names):
            return candidate
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])


class _Boxes:
    """The annotations of one picture; `broken` if one of them cannot be read."""

    def __init__(self) -> None:
        self.xyxy: list[list[float]] = []
        self.labels: list[str] = []
        self.weights: list[float] = []
        self.items: list[Mapping[str, Json]] = []
        self.broken = False

    def add(self, item: Mapping[str, Json], categories: Mapping[_Id, str]) -> None:
        """Add an annotation.

        Raises:
            KeyError, TypeError, ValueError: it cannot be read.
        """
        if not isinstance(item["bbox"], list):
            raise ValueError("bbox is not a list")
        x, y, width, height = map(float, item["bbox"])
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError("bbox has a number that is not finite")
        category = _id(item, "category_id")
        if category not in categories:
            raise ValueError(f"category {category} is not in the list of categories")
        weight = item.get("weight", 1)
        if not isinstance(weight, int | float):
            raise ValueError("weight is not a number")
        self.xyxy.append([x, y, x + width, y + height])
        self.labels.append(categories[category])
        self.weights.append(weight)
        self.items.append(item)

    def flags(self) -> dict[str, NDArray[np.bool_]]:
        ignore, crowd = self._flag("ignore"), self._flag("iscrowd")
        # `save` sets `iscrowd` on every ignored box; Mirilla's own `is_crowd` marks those that are crowds as well.
        crowd = np.where(ignore, self._flag("is_crowd"), crowd)
        difficult, group_of = self._flag("difficult"), self._flag("group_of")
        return {"ignore": ignore, "difficult": difficult, "group_of": group_of, "is_crowd": crowd}

    def _flag(self, name: str) -> NDArray[np.bool_]:
        return np.array([bool(item.get(name)) for item in self.items], bool)


def parse(
    content: Mapping[str, Json], name: str, folder: Path, prefix: str = "", part: str | None = None
) -> tuple[list[Entry], list[Finding], list[str]]:
    """Entries, findings and category names (in the order of their ids) of a file's content."""
    problems: list[Finding] = []
    categories = _categories(content, name, problems)
    pictures = _objects(content, "images")
    boxes = {_picture_id(picture): _Boxes() for picture in pictures}
    _collect(content, name, categories, boxes, problems)
    entries: list[Entry] = []
    for picture in pictures:
        where = f"{name}, image {picture.get('id', '?')}"
        if not picture.get("file_name"):
            problems.append(bad_annotation(where, "it has no file_name; it is left out."))
        elif not boxes[_picture_id(picture)].broken:
            entries.append(_entry(picture, boxes[_picture_id(picture)], where, folder, prefix, part))
    return entries, problems, [categories[number] for number in sorted(categories, key=_numbers_first)]


def _id(item: Mapping[str, Json], key: str = "id") -> _Id:
    """An item's id, converted to a string if it is neither a number nor a string.

    Raises:
        KeyError: the item has no such key.
    """
    value = item[key]
    return value if isinstance(value, int | float | str) else str(value)


def _picture_id(picture: Mapping[str, Json]) -> _Id:
    return _id(picture) if "id" in picture else ""


def _numbers_first(number: _Id) -> tuple[bool, float, str]:
    return (True, 0.0, number) if isinstance(number, str) else (False, float(number), "")


def _categories(content: Mapping[str, Json], name: str, problems: list[Finding]) -> dict[_Id, str]:
    """Category id -> name."""
    categories: dict[_Id, str] = {}
    items = content.get("categories")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and "id" in item and item.get("name"):
            categories[_id(item)] = str(item["name"])
        else:
            problems.append(bad_annotation(name, f"the category {str(item)[:80]} has no id or no name."))
    return categories


def _collect(
    content: Mapping[str, Json],
    name: str,
    categories: Mapping[_Id, str],
    boxes: Mapping[_Id, _Boxes],
    problems: list[Finding],
) -> None:
    """Assign the annotations to their pictures; one that cannot be read becomes a finding."""
    items = content.get("annotations")
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            problems.append(bad_annotation(name, f"the annotation {str(item)[:80]} is not an object; it is left out."))
            continue
        where = f"{name}, annotation {item.get('id', '?')}"
        if "image_id" not in item:
            problems.append(bad_annotation(where, "'image_id' is missing; it is left out."))
            continue
        picture = _id(item, "image_id")
        if picture not in boxes:
            what = f"it belongs to image {picture}, which is not in the list of images; it is left out."
            problems.append(bad_annotation(where, what))
            continue
        try:
            boxes[picture].add(item, categories)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            problems.append(bad_annotation(where, f"{reason}; its picture is left out."))
            boxes[picture].broken = True


def _entry(
    picture: Mapping[str, Json], boxes: _Boxes, where: str, folder: Path, prefix: str, part: str | None
) -> Entry:
    filename = str(picture["file_name"])
    return Entry(
        folder / filename,
        prefix + filename,
        np.array(boxes.xyxy, np.float64).reshape(-1, 4),
        tuple(boxes.labels),
        where,
        _size(picture),
        part=part,
        flags=boxes.flags(),
        weight=np.array(boxes.weights, np.float64),
    )


def _size(picture: Mapping[str, Json]) -> tuple[int, int] | None:
    """(height, width), if both are numbers."""
    height, width = picture.get("height"), picture.get("width")
    if isinstance(height, int | float) and isinstance(width, int | float) and math.isfinite(height * width):
        return int(height), int(width)
    return None


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write PART/ with the pictures and annotations/instances_PART.json."""
    for part, samples in by_part(dataset).items():
        word = part_word(part)
        for sample in samples:
            output.copy_picture(sample, f"{word}/{sample.filename}")
        content = content_of(samples, ids)
        output.write(f"annotations/instances_{word}.json", json.dumps(content, ensure_ascii=False))


def content_of(samples: Sequence[Sample], ids: Mapping[str, int]) -> dict[str, list[dict[str, Json]] | dict[str, str]]:
    """Samples as a COCO JSON object; coordinates have up to 2 decimals. `ids` maps class names to category ids."""
    images: list[dict[str, Json]] = []
    annotations: list[dict[str, Json]] = []
    for number, sample in enumerate(samples, 1):
        size = {"width": sample.width_px, "height": sample.height_px}
        images.append({"id": number, "file_name": sample.filename, **size})
        for i, (x0, y0, x1, y1) in enumerate(sample.boxes_px_xyxy.tolist()):
            head = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[sample.labels[i]]}
            annotations.append({**head, **_annotation(sample, i, x0, y0, x1 - x0, y1 - y0)})
    return {
        "info": {"description": "written by mirilla data convert"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()],
    }


def _annotation(sample: Sample, i: int, x: float, y: float, width: float, height: float) -> dict[str, Json]:
    ignored = bool(sample.ignore[i])
    item: dict[str, Json] = {
        "bbox": [_number(value) for value in (x, y, width, height)],
        "area": _number(max(width, 0) * max(height, 0)),
        "iscrowd": int(sample.is_crowd[i] or ignored),
        "segmentation": [],
    }
    item |= {flag: 1 for flag in FLAGS if getattr(sample, flag)[i] and (flag != "is_crowd" or ignored)}
    if sample.weight[i] != 1:
        item["weight"] = float(sample.weight[i])
    return item


def _number(value: float) -> int | float:
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded
