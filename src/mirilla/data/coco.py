"""COCO JSON: images, annotations with bbox [x, y, width, height] in pixels, categories.

Files: annotations/instances_train*.json and instances_val*.json, {train,valid,test}/_annotations.coco.json,
or any one .json of that form. `iscrowd` is read as is_crowd. An ignored box is written with `ignore` and
`iscrowd` set, so that pycocotools leaves it out too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirilla.data.dataset import FLAGS, Annotations, Entry, wanted
from mirilla.data.sample import Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding


def find(folder: Path) -> list[Path]:
    """The annotation files of a folder."""
    for pattern in (
        "annotations/instances_*.json",
        "instances_*.json",
        "*/_annotations.coco.json",
        "_annotations.coco.json",
    ):
        if files := sorted(folder.glob(pattern)):
            return files
    return [p for pattern in ("*.json", "annotations/*.json") for p in sorted(folder.glob(pattern)) if _is_coco(p)][:1]


def _is_coco(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(65536)
            file.seek(-min(4096, path.stat().st_size), 2)
            text = head + file.read()
    except OSError:
        return False
    return b'"images"' in text and (b'"annotations"' in text or b'"categories"' in text)


def part_of(path: Path) -> str | None:
    """The part by the file's name (instances_val2017.json) or its folder's (valid/_annotations.coco.json)."""
    if path.name == "_annotations.coco.json":
        return part_name(path.parent.name)
    words = path.stem.lower().replace("-", "_").split("_")
    return next((p for w in words if (p := part_name(w.rstrip("0123456789")))), None)


def load(path: Path, name: str, split: str | None = None) -> Annotations:
    """Read the annotation files of a folder (only those of `split`, where they have parts), or one file.

    Raises:
        DataError: not JSON, or not of COCO's form.
    """
    files = find(path) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"{path}: no COCO file (instances_*.json, _annotations.coco.json) in this folder.",
            "Name the .json file itself.",
        )
    several = len(files) > 1
    keep = wanted([part_of(f) for f in files], split, path)
    files = [f for f in files if part_of(f) in keep]
    entries: list[Entry] = []
    problems: list[Finding] = []
    labels: dict[str, None] = {}
    for file in files:
        content = _json(file)
        names = [str(i.get("file_name", "")) for i in content["images"] if isinstance(i, dict)]
        folder = pictures_of(file, names[:20])
        prefix = f"{folder.name}/" if several else ""
        one, found, categories = parse(content, str(file), folder, prefix, part_of(file))
        entries += one
        problems += found
        labels.update(dict.fromkeys(categories))
    return Annotations(name, "coco", path, tuple(entries), tuple(problems), tuple(labels))


def _json(file: Path) -> dict[str, Any]:
    with explaining(file):
        raw = file.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}.", "Fetch or write the file again: it may be cut short.") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{file}: not of COCO's form: it has no list 'images'.", "Check the path, and --from.")
    return content


def pictures_of(file: Path, names: Sequence[str]) -> Path:
    """The folder of an annotation file's pictures: the first candidate that holds one of `names`."""
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    stem = file.stem.removeprefix("instances_")
    candidates = [base / stem, base / "images" / stem, base / "images", base, file.parent]
    if file.name == "_annotations.coco.json":
        candidates = [file.parent, file.parent / "images"]
    for candidate in candidates:
        if any(n and (candidate / n).is_file() for n in names):
            return candidate
    return next((c for c in candidates if c.is_dir()), candidates[0])


def parse(
    content: Mapping[str, Any], name: str, folder: Path, prefix: str = "", part: str | None = None
) -> tuple[list[Entry], list[Finding], list[str]]:
    """Entries, findings and category names (by id) of one file's content."""
    problems: list[Finding] = []

    def wrong(where: str, text: str) -> None:
        problems.append(Finding("error", "bad-annotation", where, text, "Mend the file."))

    categories: dict[Any, str] = {}
    for item in content.get("categories") or []:
        if isinstance(item, dict) and "id" in item and item.get("name"):
            categories[item["id"]] = str(item["name"])
        else:
            wrong(name, f"the category {str(item)[:80]} has no id or no name.")
    by_image: dict[Any, list[tuple[list[float], str, dict]]] = {}
    broken: dict[Any, str] = {}
    images = [i for i in content["images"] if isinstance(i, dict)]
    known = {i.get("id") for i in images}
    for item in content.get("annotations") or []:
        where = f"{name}, annotation {item.get('id', '?')}" if isinstance(item, dict) else name
        try:
            image = item["image_id"]
            if image not in known:
                wrong(where, f"it belongs to image {image}, which is not in the list of images; it is left out.")
                continue
            x, y, w, h = (float(v) for v in item["bbox"])
            if not np.isfinite([x, y, w, h]).all():
                raise ValueError("bbox holds a number that is not finite")
            if item["category_id"] not in categories:
                raise ValueError(f"category {item['category_id']} is not in the list of categories")
            by_image.setdefault(image, []).append(([x, y, x + w, y + h], categories[item["category_id"]], item))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            wrong(where, f"{reason}; its picture is left out.")
            if isinstance(item, dict):
                broken[item.get("image_id")] = where
    entries: list[Entry] = []
    for image in images:
        where = f"{name}, image {image.get('id', '?')}"
        if not image.get("file_name"):
            wrong(where, "it has no file_name; it is left out.")
            continue
        if image.get("id") in broken:
            continue
        rows = by_image.get(image.get("id"), [])
        declared = None
        if isinstance(image.get("height"), int | float) and isinstance(image.get("width"), int | float):
            declared = (int(image["height"]), int(image["width"]))
        ignore = np.array([bool(r[2].get("ignore")) for r in rows], bool)
        flags = {n: np.array([bool(r[2].get(n)) for r in rows], bool) for n in ("difficult", "group_of")}
        crowd = np.array([bool(r[2].get("iscrowd")) for r in rows], bool)
        alone = np.array([bool(r[2].get("is_crowd")) for r in rows], bool)
        flags |= {"ignore": ignore, "is_crowd": np.where(ignore, alone, crowd)}
        weight = np.array([float(r[2].get("weight", 1)) for r in rows])
        filename = str(image["file_name"])
        entries.append(
            Entry(
                folder / filename,
                prefix + filename,
                np.array([r[0] for r in rows]).reshape(-1, 4),
                tuple(r[1] for r in rows),
                where,
                declared,
                part=part,
                flags=flags,
                weight=weight,
            )
        )
    return (
        entries,
        problems,
        [categories[i] for i in sorted(categories, key=str if _mixed(categories) else None)],
    )  # type: ignore[arg-type]


def _mixed(ids: Mapping[Any, str]) -> bool:
    return not all(isinstance(i, int | float) for i in ids)


def content_of(samples: Sequence[Sample], filenames: Sequence[str], ids: Mapping[str, int]) -> dict[str, Any]:
    """Samples as COCO's object; coordinates are rounded to 2 decimals and whole where they are whole.

    Args:
        filenames: each sample's file_name. ids: class name -> category id.
    """
    images, annotations = [], []
    for i, (sample, filename) in enumerate(zip(samples, filenames, strict=True), 1):
        images.append({"id": i, "file_name": filename, "width": sample.width_px, "height": sample.height_px})
        for j, (x0, y0, x1, y1) in enumerate(sample.boxes_px_xyxy):
            x, y, w, h = (_plain(v) for v in (x0, y0, x1 - x0, y1 - y0))
            item: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": i,
                "category_id": ids[sample.labels[j]],
                "bbox": [x, y, w, h],
                "area": _plain(max(w, 0) * max(h, 0)),
                "iscrowd": int(sample.is_crowd[j] or sample.ignore[j]),
                "segmentation": [],
            }
            kept = [f for f in FLAGS if f != "is_crowd" or sample.ignore[j]]
            item |= {f: 1 for f in kept if getattr(sample, f)[j]}
            if sample.weight[j] != 1:
                item["weight"] = float(sample.weight[j])
            annotations.append(item)
    return {
        "info": {"description": "written by mirilla data convert"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n, "supercategory": ""} for n, i in ids.items()],
    }


def _plain(value: float) -> int | float:
    rounded = round(float(value), 2)
    return int(rounded) if rounded == int(rounded) else rounded
