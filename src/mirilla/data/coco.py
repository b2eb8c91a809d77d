"""COCO JSON: images, annotations with bbox [x, y, width, height] in pixels, categories.

Files: annotations/instances_train*.json and instances_val*.json, {train,valid,test}/_annotations.coco.json, or any
.json of that form. `iscrowd` is read as is_crowd. An ignored box is written with `ignore` and `iscrowd` set, so that
pycocotools leaves it out too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mirilla.data import coco_content, text
from mirilla.data.annotations import Advance, Annotations, Entry, build, read_each
from mirilla.data.coco_content import Content, Json, Object
from mirilla.data.dataset import Dataset, parts_to_read
from mirilla.data.names import PictureFinder
from mirilla.data.output import Output, by_part, part_word
from mirilla.data.sample import FLAGS, Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding

_FEWEST_BOXES, _SHARE_OUTSIDE, _BEYOND = 3, 0.3, 1.02  # to take boxes for corners
_LARGEST = 1e12  # of a number that is used; NaN and infinity are not below it
_ROBOFLOW = "_annotations.coco.json"
_PATTERNS = ("annotations/instances_*.json", "instances_*.json", f"*/{_ROBOFLOW}", _ROBOFLOW)


def find(folder: Path) -> list[Path]:
    """The annotation files of a folder: those of its parts, or the only one, or the first."""
    files = _candidates(folder)
    return files if all(part_of(file, folder) for file in files) else files[:1]


def _candidates(folder: Path) -> list[Path]:
    for pattern in _PATTERNS:
        if files := sorted(folder.glob(pattern)):
            return files
    for pattern in ("*.json", "annotations/*.json", "*/*.json"):
        if files := [path for path in sorted(folder.glob(pattern)) if _may_be_coco(pattern, path)]:
            return files
    return []


def _may_be_coco(pattern: str, path: Path) -> bool:
    """Whether a file mentions COCO's keys near its beginning or end; in a folder that is that of a part."""
    if pattern == "*/*.json" and part_name(path.parent.name) is None:
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(65536)
            file.seek(-min(4096, path.stat().st_size), 2)
            content = (head + file.read()).replace(b"\0", b"")  # UTF-16 has a zero in every letter
    except OSError:
        return False
    return b'"images"' in content and (b'"annotations"' in content or b'"categories"' in content)


def part_of(path: Path, root: Path | None = None) -> str | None:
    """The part named by the file (instances_val2017.json), or by its folder if that is inside `root`."""
    if path.name == _ROBOFLOW:
        return part_name(path.parent.name)
    words = path.stem.lower().replace("-", "_").split("_")
    part = next((part for word in words if (part := part_name(word.rstrip("0123456789")))), None)
    return part or (part_name(path.parent.name) if root not in (None, path.parent) else None)


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
    parts = {file: part_of(file, path) for file in files}
    read = parts_to_read(list(parts.values()), split, path)
    bad: list[Finding] = []
    chosen = [file for file in files if parts[file] in read]
    contents = [c for _, c in read_each(chosen, lambda file: _parsed(file, parts[file], len(files) > 1), bad)]
    entries = [entry for content in contents for entry in content.entries]
    labels, notes = _labels(contents, entries)
    problems = (*bad, *(problem for content in contents for problem in content.problems))
    unused = tuple(picture for content in contents for picture in content.unused)
    known = unused if len(contents) == len(files) else None
    notes = (*notes, *_note_of_choice(path, files))
    return build(Annotations("coco", path, tuple(entries), problems, labels, notes, unused=known), split, advance)


def _note_of_choice(path: Path, files: Sequence[Path]) -> list[str]:
    """A note if a folder has other COCO files than those that are read."""
    others = [file.name for file in (_candidates(path) if path.is_dir() else []) if file not in files]
    return [f"{path}: {files[0].name} is read; not {', '.join(others)} (give a file by its name)."] if others else []


def _parsed(file: Path, part: str | None, with_prefix: bool) -> Content:
    """The content of a file; `with_prefix`: the pictures' names begin with their folder."""
    content = _content(file)
    _refuse_corners(content, file)
    folders = _picture_folders(file, _file_names(content))
    prefix = f"{folders[0].name}/" if with_prefix else ""
    return coco_content.parse(content, str(file), PictureFinder(*folders), prefix, part)


def _refuse_corners(content: Object, file: Path) -> None:
    """Refuse boxes that are evidently corners, as Pascal VOC has them: every one fits so, and many do not otherwise.

    Raises:
        DataError: they are.
    """
    sizes = {
        str(image.get("id")): _numbers([image.get("width"), image.get("height")])
        for image in _objects(content.get("images"))
    }
    count = outside = 0
    for item in _objects(content.get("annotations")):
        box, size = _numbers(item.get("bbox")), sizes.get(str(item.get("image_id")))
        if box is None or size is None or len(box) != 4:
            continue
        x, y, third, fourth = box
        width, height = size
        if not (x < third <= width and y < fourth <= height):
            return
        count += 1
        outside += x + third > width * _BEYOND or y + fourth > height * _BEYOND
    if count >= _FEWEST_BOXES and outside >= count * _SHARE_OUTSIDE:
        raise DataError(
            f"{file}: the boxes look like corners [x1, y1, x2, y2]: {outside:,} of {count:,} reach beyond their "
            "picture as COCO's [x, y, width, height].",
            "Write width = x2 - x1 and height = y2 - y1, or export the set as Pascal VOC.",
        )


def _objects(values: Json) -> list[Object]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _numbers(values: Json) -> list[float] | None:
    """A list of finite numbers; None if it is none."""
    found = [
        float(value)
        for value in (values if isinstance(values, list) else [])
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    ]
    return found if isinstance(values, list) and len(found) == len(values) else None


def _labels(contents: Sequence[Content], entries: Sequence[Entry]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The class names, without categories that only group others, and all notes."""
    used = {label for entry in entries for label in entry.labels}
    names = dict.fromkeys(name for content in contents for name in content.categories)
    groups = {name for content in contents for name in content.groups if name in names} - used
    notes = [note for content in contents for note in content.notes]
    notes += [
        f"The category '{name}' groups others and has no box; it is no class." for name in names if name in groups
    ]
    return tuple(name for name in names if name not in groups), tuple(notes)


def _content(file: Path) -> Object:
    with explaining(file):
        raw = file.read_bytes()
    try:
        content = json.loads(text.decode(raw))
    except RecursionError as error:
        raise DataError(
            f"{file}: its lists or objects are nested too deeply.", "Check the path, and --from."
        ) from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}.", "Fetch or write the file again: it may be truncated.") from error
    if isinstance(content, list) and content and isinstance(content[0], dict) and "image_id" in content[0]:
        raise DataError(
            f"{file}: these are COCO results, the detections of a model, not the annotations of pictures.",
            "Give the annotation file (with 'images', 'annotations' and 'categories').",
        )
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{file}: not in COCO's format: it has no list 'images'.", "Check the path, and --from.")
    return content


def _file_names(content: Object) -> list[str]:
    """The names of the first pictures."""
    images = content["images"]
    items = images[:20] if isinstance(images, list) else []
    return [name for item in items if isinstance(item, dict) and isinstance(name := item.get("file_name"), str)]


def _picture_folders(file: Path, names: Sequence[str]) -> list[Path]:
    """The folders that may hold an annotation file's pictures; the first that holds one of `names` is put first."""
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    stem = file.stem.removeprefix("instances_")
    candidates = [base / stem, base / "images" / stem, base / "images", base, file.parent]
    if file.name == _ROBOFLOW:
        candidates = [file.parent, file.parent / "images"]
    candidates = [folder for folder in candidates if os.path.isdir(folder)] or [base]
    holding = [folder for folder in candidates if any(name and os.path.isfile(folder / name) for name in names)]
    return list(dict.fromkeys([*holding[:1], *candidates]))


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
