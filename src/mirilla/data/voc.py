"""Pascal VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt.

Coordinates are pixels and taken as edges, as the Object Detection API takes them (no pixel is subtracted).
XML files beside their pictures, images/ instead of JPEGImages/, and train/, valid/, test/ folders are read
too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np

from mirilla.data import images
from mirilla.data.csv_table import number
from mirilla.data.dataset import EVAL, FLAGS, TEST, TRAIN, Annotations, Entry
from mirilla.data.sample import Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.findings import Finding

_ANNOTATIONS = ("Annotations", "annotations", "xml", "xmls", "labels")
_PICTURES = ("JPEGImages", "images", "Images", "img", "imgs")
_INTEGERS = ("truncated", "occluded")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def find(folder: Path) -> list[Path]:
    """The folders of XML files of a data set (one, or one per part or year)."""
    if (folder.name.startswith("VOC") and folder.name[3:].isdigit()) or (folder / "JPEGImages").is_dir():
        candidates = [folder]
    else:
        subfolders = sorted(p for p in folder.iterdir() if p.is_dir())
        devkit = folder / "VOCdevkit"
        candidates = [
            folder,
            *(p for p in subfolders if part_name(p.name) or re.fullmatch(r"VOC\d{4}", p.name)),
        ]
        candidates += sorted(devkit.glob("VOC*")) if devkit.is_dir() else []
    found = []
    for base in candidates:
        places = [base / n for n in _ANNOTATIONS if (base / n).is_dir()] + [base]
        hit = next(
            (p for p in places if next(p.glob("*.xml"), None) or (p != base and next(p.rglob("*.xml"), None))),
            None,
        )
        if hit is not None:
            found.append(hit)
    return found


def load(path: Path, name: str, split: str | None = None) -> Annotations:
    """Read every XML file of a data set, or one file.

    Raises:
        DataError: no XML file there.
    """
    places = find(path) if path.is_dir() else [path]
    if not places:
        raise DataError(f"{path}: no Annotations/*.xml in this folder.", "Give the folder that holds Annotations.")
    entries: list[Entry] = []
    problems: list[Finding] = []
    several = len(places) > 1
    for place in places:
        if place.is_file():
            base, files, place = place.parent, [place], place.parent
        else:
            base = place.parent if place.name in _ANNOTATIONS else place
            files = sorted(place.rglob("*.xml") if place != base else place.glob("*.xml"))
        if base.name in _ANNOTATIONS:
            base = base.parent
        folder = next((base / n for n in _PICTURES if (base / n).is_dir()), base)
        lists, found = _image_sets(base)
        problems += found
        whole = part_name(base.name) if several else None
        seen: set[str] = set()
        for file in files:
            key = file.relative_to(place).with_suffix("").as_posix()
            seen.add(key)
            try:
                entry = parse(file.read_bytes(), str(file), folder, key, base.name + "/" if several else "")
            except (OSError, ValueError) as error:
                problems.append(
                    Finding(
                        "error",
                        "bad-annotation",
                        str(file),
                        f"{error}; the picture is left out.",
                        "Mend the file.",
                    )
                )
                continue
            if Path(entry.filename).stem != Path(key).name:
                problems.append(
                    Finding("note", "name-differs", str(file), f"the file names the picture {entry.filename}.")
                )
            entries.append(Entry(**{**entry.__dict__, "part": lists.get(key, whole)}))
        problems += [
            Finding(
                "error",
                "missing-annotation",
                str(base / "ImageSets" / "Main"),
                f"'{key}' is listed, but {place / key}.xml does not exist.",
                "Add the file, or remove the line.",
            )
            for key in lists
            if key not in seen
        ]
    return Annotations(name, "voc", path, tuple(entries), tuple(problems))


def parse(content: bytes, name: str, folder: Path, key: str, prefix: str = "") -> Entry:
    """One XML file.

    Args:
        name: the file's name, for messages. folder: where its picture lies. key: its name without '.xml',
        relative to the folder of annotations. prefix: put before the sample's file name.

    Raises:
        ValueError: the file cannot be read; says why.
    """
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"not well-formed XML ({error})") from None
    size = root.find("size")
    declared = None
    if size is not None and size.findtext("width") and size.findtext("height"):
        declared = (int(_float(size, "height")), int(_float(size, "width")))
    boxes, labels = [], []
    extras: dict[str, list[float]] = {n: [] for n in (*FLAGS, *_INTEGERS, "weight")}
    for i, item in enumerate(root.findall("object"), 1):
        label, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if not label:
            raise ValueError(f"object {i} has no name")
        if box is None:
            raise ValueError(f"object {i} ({label}) has no bndbox")
        boxes.append([_float(box, n) for n in ("xmin", "ymin", "xmax", "ymax")])
        labels.append(label)
        for n, values in extras.items():
            values.append(_float(item, n) if (item.findtext(n) or "").strip() else float(n == "weight"))
    given = (root.findtext("filename") or "").strip().replace("\\", "/")
    filename = _picture(folder, given, key)
    flags = {n: np.array(extras[n]) != 0 for n in FLAGS}
    attributes = {n: np.array(extras[n]).astype(np.int64) for n in _INTEGERS if any(extras[n])}
    return Entry(
        folder / filename,
        prefix + filename,
        np.array(boxes, np.float64).reshape(-1, 4),
        tuple(labels),
        name,
        declared,
        flags=flags,
        attributes=attributes,
        weight=np.array(extras["weight"]),
    )


def _picture(folder: Path, given: str, key: str) -> str:
    parent = Path(key).parent
    candidates = [given, (parent / Path(given).name).as_posix()] if given else []
    for candidate in candidates:
        if (folder / candidate).is_file() and ".." not in Path(candidate).parts:
            return candidate
    stems = [key, *([given] if given else [])]
    for stem in stems:
        for suffix in (".jpg", ".jpeg", ".png", *sorted(images.EXTENSIONS)):
            for one in (suffix, suffix.upper()):
                if (folder / (stem + one)).is_file():
                    return stem + one
    return candidates[-1] if candidates else key + ".jpg"


def _float(element: ElementTree.Element, name: str) -> float:
    text = element.findtext(name)
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        what = "is missing" if text is None else f"is {text!r}, no number"
        raise ValueError(f"<{name}> in <{element.tag}> {what}") from None
    if not np.isfinite(value):
        raise ValueError(f"<{name}> in <{element.tag}> is not finite")
    return value


def _image_sets(base: Path) -> tuple[dict[str, str], list[Finding]]:
    """Key -> part from ImageSets/Main; trainval.txt counts as train where train.txt is missing."""
    folder = base / "ImageSets" / "Main"
    lists = [(n, p) for n, p in (("test", TEST), ("val", EVAL), ("train", TRAIN)) if (folder / f"{n}.txt").is_file()]
    if ("train", TRAIN) not in lists and (folder / "trainval.txt").is_file():
        lists.append(("trainval", TRAIN))
    parts: dict[str, str] = {}
    found: list[Finding] = []
    for n, part in lists:
        path = folder / f"{n}.txt"
        for line_number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").splitlines(), 1):
            words = line.rsplit(None, 1)
            if not words:
                continue
            key = words[0] if len(words) == 2 and words[1] in ("1", "-1", "0") else line.strip()
            if key in parts and n != "trainval":
                found.append(
                    Finding(
                        "warning",
                        "in-two-parts",
                        f"{path}, line {line_number}",
                        f"'{key}' is in '{parts[key]}' as well; it stays there.",
                    )
                )
            parts.setdefault(key, part)
    return parts, found


def xml_of(sample: Sample, filename: str) -> str:
    """A sample as an XML file; whole numbers where they are whole, otherwise up to 2 decimals.

    Flags that VOC does not know (ignore, group_of, is_crowd, weight) are written as further elements where
    set.
    """
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{_text(filename)}</filename>",
        "  <size>",
        f"    <width>{sample.width_px}</width>",
        f"    <height>{sample.height_px}</height>",
        "    <depth>3</depth>",
        "  </size>",
        "  <segmented>0</segmented>",
    ]
    for i, box in enumerate(sample.boxes_px_xyxy):
        lines += ["  <object>", f"    <name>{_text(sample.labels[i])}</name>", "    <pose>Unspecified</pose>"]
        for n in _INTEGERS:
            lines.append(f"    <{n}>{int(sample.attributes[n][i]) if n in sample.attributes else 0}</{n}>")
        lines.append(f"    <difficult>{int(sample.difficult[i])}</difficult>")
        lines += [f"    <{n}>1</{n}>" for n in FLAGS if n != "difficult" and getattr(sample, n)[i]]
        if sample.weight[i] != 1:
            lines.append(f"    <weight>{float(sample.weight[i])!r}</weight>")
        lines.append("    <bndbox>")
        lines += [f"      <{n}>{number(v)}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)]
        lines += ["    </bndbox>", "  </object>"]
    return "\n".join([*lines, "</annotation>", ""])


def _text(value: str) -> str:
    return escape(_FORBIDDEN.sub("?", value))


def image_sets(keys: Sequence[str], parts: dict[str, str]) -> dict[str, str]:
    """File name below ImageSets/Main -> its content."""
    result = {}
    for n, wanted in (("train", {TRAIN}), ("val", {EVAL}), ("test", {TEST}), ("trainval", {TRAIN, EVAL})):
        chosen = [k for k in keys if parts.get(k) in wanted]
        if chosen:
            result[f"{n}.txt"] = "\n".join(chosen) + "\n"
    return result
