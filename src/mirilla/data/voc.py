"""Pascal VOC: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,trainval,test}.txt.

Coordinates are pixels and are taken as edges, as the Object Detection API takes them (no pixel is subtracted). XML
files beside their pictures, images/ instead of JPEGImages/, and train/, valid/, test/ folders are read too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np

from mirilla.data import text
from mirilla.data.annotations import Advance, Annotations, Entry, bad_annotation, build, unreadable_file
from mirilla.data.dataset import EVAL, TEST, TRAIN, Dataset
from mirilla.data.folders import files_below, files_in
from mirilla.data.names import Picture, PictureFinder
from mirilla.data.output import Output, pixel_text
from mirilla.data.sample import FLAGS, Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError, MirillaError
from mirilla.findings import Finding

_ANNOTATION_FOLDERS = ("Annotations", "annotations", "xml", "xmls", "labels")
_PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "img", "imgs")
_FILES = "*.[xX][mM][lL]"
_ROOT = "<annotation"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ATTRIBUTES = ("truncated", "occluded")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0, section 2.2


def find(folder: Path) -> list[Path]:
    """The folders of XML files of a data set: one, or one per part, year or subfolder."""
    places = (_annotation_folder(base) for base in _bases(folder))
    if found := [place for place in places if place is not None]:
        return found
    inside = (path for path in _folders_in(folder) if not path.name.startswith("."))
    return [path for path in inside if any(map(_is_voc, files_in(path, "*.xml")))]


def _bases(folder: Path) -> list[Path]:
    """The folders that may hold Annotations/ and JPEGImages/."""
    if re.fullmatch(r"VOC\d+", folder.name) or (folder / "JPEGImages").is_dir():
        return [folder]
    parts = [path for path in _folders_in(folder) if part_name(path.name) or re.fullmatch(r"VOC\d{4}", path.name)]
    inside = [path for path in _folders_in(folder / "images") if part_name(path.name)]
    return [folder, *parts, *inside, *sorted((folder / "VOCdevkit").glob("VOC*"))]


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; of a folder with many pictures, no picture is looked at."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:  # a link may lead in a circle, which only os.path.isdir accepts
        found = [entry for entry in entries if (os.path.isdir(entry) if entry.is_symlink() else entry.is_dir())]
    return sorted(folder / entry.name for entry in found)


def _annotation_folder(base: Path) -> Path | None:
    for name in _ANNOTATION_FOLDERS:
        if (base / name).is_dir() and next((base / name).rglob(_FILES), None):
            return base / name
    return base if files_in(base, "*.xml") else None


def _is_voc(path: Path) -> bool:
    return _ROOT in text.head(path)


@dataclass(frozen=True)
class _Place:
    """A folder of XML files: `files` of it, and `base`, which holds the pictures' folder and ImageSets/."""

    folder: Path
    base: Path
    files: tuple[Path, ...]
    problems: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, path: Path) -> _Place:
        """The place of a folder of XML files, or of a single file."""
        if path.is_file():
            folder, files = path.parent, [path]
        else:
            folder, files = path, files_in(path, "*.xml")
        problems: list[Finding] = []
        if path.name in _ANNOTATION_FOLDERS and path.is_dir():
            below, problems = files_below(path)
            files = [file for file in below if file.suffix.lower() == ".xml"]
        base = folder.parent if folder.name in _ANNOTATION_FOLDERS else folder
        return cls(folder, base, tuple(files), tuple(problems))

    def pictures(self) -> PictureFinder:
        """Finds the place's pictures: in a folder of pictures, in its folders of parts, or beside the XML files."""
        named = next((self.base / name for name in _PICTURE_FOLDERS if (self.base / name).is_dir()), self.base)
        parts = [path for path in _folders_in(named) if part_name(path.name)] if named != self.base else []
        return PictureFinder(*dict.fromkeys((named, *parts, self.base, self.folder)))


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read every XML file of a data set, or a single file.

    Raises:
        DataError: there is no XML file.
    """
    folders = find(path) if path.is_dir() else [path]
    if not folders:
        raise DataError(f"{path}: no Annotations/*.xml in this folder.", "Give the folder that holds Annotations.")
    entries: list[Entry] = []
    problems: list[Finding] = []
    unused: list[Path] = []
    for place in map(_Place.of, folders):
        place_entries, place_problems = _read_place(place, len(folders) > 1, unused)
        entries += place_entries
        problems += place_problems
    return build(Annotations("voc", path, tuple(entries), tuple(problems), unused=tuple(unused)), split, advance)


def _read_place(place: _Place, with_prefix: bool, unused: list[Path]) -> tuple[list[Entry], list[Finding]]:
    """The entries of a place; pictures whose file cannot be read are added to `unused`."""
    parts, problems = _image_sets(place.base)
    problems += place.problems
    default = part_name(place.base.name) if with_prefix else None
    pictures = place.pictures()
    entries: list[Entry] = []
    keys: set[str] = set()
    for file in place.files:
        key = file.relative_to(place.folder).with_suffix("").as_posix()
        keys.add(key)
        try:
            entry, finding = parse(file.read_bytes(), str(file), pictures, key)
        except (OSError, ValueError) as error:
            problems.append(_unreadable(file, error))
            unused.append(pictures.find(key).path)
            continue
        if finding:
            problems.append(finding)
        prefix = f"{place.base.name}/" if with_prefix else ""
        entries.append(replace(entry, filename=prefix + entry.filename, part=parts.get(key, default)))
    for key in parts:
        if key not in keys:
            problems.append(
                Finding(
                    "error",
                    "missing-annotation",
                    str(place.base / "ImageSets" / "Main"),
                    f"'{key}' is listed, but {place.folder / key}.xml does not exist.",
                    "Add the file, or remove the line.",
                )
            )
    return entries, problems


def _unreadable(file: Path, error: OSError | ValueError) -> Finding:
    reason = error.strerror if isinstance(error, OSError) else error
    remedy = "Correct the file."
    if isinstance(error, text.DecodeError):
        remedy = text.SAVE_AS_UTF8
    elif isinstance(error, _OtherFormatError):
        remedy = "Export the labels as Pascal VOC or as COCO."
    return bad_annotation(str(file), f"{reason}; the picture is left out.", remedy)


class _OtherFormatError(ValueError):
    """An XML file that is not Pascal VOC."""


def _image_sets(base: Path) -> tuple[dict[str, str], list[Finding]]:
    """Key -> part from ImageSets/Main; without train.txt, trainval.txt counts as train, or CVAT's default.txt."""
    folder = base / "ImageSets" / "Main"
    lists = [(folder / f"{name}.txt", part) for name, part in (("test", TEST), ("val", EVAL), ("train", TRAIN))]
    if not lists[-1][0].is_file():
        names = ("trainval", "default") if not any(path.is_file() for path, _ in lists) else ("trainval",)
        lists[-1:] = [(folder / f"{name}.txt", TRAIN) for name in names]
    parts: dict[str, str] = {}
    problems: list[Finding] = []
    for path, part in lists:
        try:
            content = text.read(path) if path.is_file() else ""
        except MirillaError as error:
            problems.append(unreadable_file(path, error))
            continue
        for number, line in enumerate(content.split("\n"), 1):
            key = re.sub(r"\s+(1|0|-1)$", "", line.strip())  # the flag in lists of a single class
            if key in parts and path.stem != "trainval":
                what = f"'{key}' is in '{parts[key]}' as well; it stays there."
                problems.append(Finding("warning", "in-two-parts", f"{path}, line {number}", what))
            if key:
                parts.setdefault(key, part)
    return parts, problems


@dataclass
class _Objects:
    """The objects of a file, by column."""

    boxes: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    numbers: dict[str, list[float]] = field(default_factory=lambda: {n: [] for n in (*FLAGS, *_ATTRIBUTES, "weight")})

    def add(self, item: ElementTree.Element, number: int) -> None:
        """Add an <object>.

        Raises:
            ValueError: it cannot be read.
        """
        label, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if not label:
            raise ValueError(f"object {number} has no name")
        if box is None:
            rotated = item.find("robndbox") is not None
            instead = "a <robndbox> (roLabelImg's rotated box) instead of a <bndbox>" if rotated else "no <bndbox>"
            raise ValueError(f"object {number} ({label}) has {instead}")
        self.boxes.append([_float(box, name) for name in _CORNERS])
        self.labels.append(label)
        for name, values in self.numbers.items():
            content = (item.findtext(name) or "").strip()
            values.append(text.flag(content) if name != "weight" else _float(item, name) if content else 1.0)


def parse(content: bytes, name: str, pictures: PictureFinder, key: str) -> tuple[Entry, Finding | None]:
    """Parse an XML file.

    Args:
        name: the file's name, for messages.
        pictures: finds its picture.
        key: the file's name without '.xml', relative to the folder of annotations.

    Returns:
        The entry, and a finding if its <filename> is another than its own name.

    Raises:
        ValueError: the file cannot be read; the message has the reason.
    """
    root = _root(text.decode_xml(content))
    objects = _Objects()
    for number, item in enumerate(root.findall("object"), 1):
        objects.add(item, number)
    given = root.findtext("filename") or root.findtext("path") or ""
    picture, finding = _picture(pictures, given.strip(), key, name)
    entry = Entry(
        picture.path,
        picture.name,
        np.array(objects.boxes, np.float64).reshape(-1, 4),
        tuple(objects.labels),
        name,
        _declared_size(root),
        flags={flag: np.array(objects.numbers[flag]) != 0 for flag in FLAGS},
        attributes={n: np.array(objects.numbers[n]).astype(np.int64) for n in _ATTRIBUTES if any(objects.numbers[n])},
        weight=np.array(objects.numbers["weight"]),
    )
    return entry, finding


def _root(document: str) -> ElementTree.Element:
    """The root element of an annotation, whose objects are its children."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        line, column = error.position
        at = document.split("\n")[line - 1 : line]
        ampersand = "&" in "".join(at)[max(0, column - 8) : column + 1] and "DTD" not in str(error)
        reason, _, place = str(error).partition(": ")
        reason = reason.removeprefix("not well-formed ").strip("()")
        remedy = " (write '&' as '&amp;')" if ampersand else ""
        raise ValueError(f"not well-formed XML: {reason} in {place}{remedy}") from None
    if root.tag != "annotation":
        raise _OtherFormatError(f"its root element is <{root.tag[:40]}>, not <annotation>: it is not Pascal VOC")
    if root.find("object") is None and (root.find(".//bndbox") is not None or root.find(".//object") is not None):
        raise _OtherFormatError("its objects are not directly in <annotation>: it is not Pascal VOC")
    return root


def _declared_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width), if the file has both."""
    size = root.find("size")
    if size is None or not (size.findtext("width") and size.findtext("height")):
        return None
    return int(_float(size, "height")), int(_float(size, "width"))


def _picture(pictures: PictureFinder, given: str, key: str, name: str) -> tuple[Picture, Finding | None]:
    """The picture with the XML file's name, or else the one that <filename> gives; a finding if the two differ."""
    own_name = PurePosixPath(key)
    named = pictures.find(given) if given else None
    if named and own_name.parent.parts:  # the folders in <filename> are often the author's own
        beside = pictures.find((own_name.parent / PurePosixPath(named.name).name).as_posix())
        named = beside if os.path.isfile(beside.path) else named
    if named and PurePosixPath(named.name).stem == own_name.name and os.path.isfile(named.path):
        return named, None
    own = pictures.find(key)
    if os.path.isfile(own.path):
        if not (named and named != own and os.path.isfile(named.path)):
            return own, None
        what = f"its <filename> is {named.name}, but {own.name} has its own name and is used."
        return own, Finding("warning", "name-differs", name, what, "Correct the <filename>.")
    if named is None:
        return Picture(own.path.with_name(f"{own.path.name}.jpg"), f"{own.name}.jpg"), None
    what = f"its <filename> is {named.name}, which differs from its own name."
    return named, Finding("note", "name-differs", name, what)


def _float(element: ElementTree.Element, name: str) -> float:
    content = element.findtext(name)
    if content is None:
        raise ValueError(f"<{name}> in <{element.tag}> is missing")
    return text.number(content, f"<{name}> in <{element.tag}>")


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write Annotations/, JPEGImages/ and ImageSets/Main/."""
    parts: dict[str, str] = {}
    for sample in dataset.samples:
        key = PurePosixPath(sample.filename).with_suffix("").as_posix()
        parts[key] = dataset.parts.get(sample.filename, "")
        output.write(f"Annotations/{key}.xml", xml_of(sample), per_picture=True)
        output.copy_picture(sample, f"JPEGImages/{sample.filename}")
    for name, content in image_sets(parts).items():
        output.write(f"ImageSets/Main/{name}", content)


def xml_of(sample: Sample) -> str:
    """A sample as an XML file; coordinates have up to 2 decimals.

    Flags that VOC does not have (ignore, group_of, is_crowd, weight) are written as further elements if set.
    """
    lines = [
        "<annotation>",
        "  <folder>JPEGImages</folder>",
        f"  <filename>{_text(sample.filename)}</filename>",
        "  <size>",
        f"    <width>{sample.width_px}</width>",
        f"    <height>{sample.height_px}</height>",
        "    <depth>3</depth>",
        "  </size>",
        "  <segmented>0</segmented>",
    ]
    for i, box in enumerate(sample.boxes_px_xyxy.tolist()):
        lines += _object_lines(sample, i, box)
    return "\n".join([*lines, "</annotation>", ""])


def _object_lines(sample: Sample, i: int, box: Sequence[float]) -> list[str]:
    lines = ["  <object>", f"    <name>{_text(sample.labels[i])}</name>", "    <pose>Unspecified</pose>"]
    for name in _ATTRIBUTES:
        lines.append(f"    <{name}>{int(sample.attributes[name][i]) if name in sample.attributes else 0}</{name}>")
    lines.append(f"    <difficult>{int(sample.difficult[i])}</difficult>")
    lines += [f"    <{flag}>1</{flag}>" for flag in FLAGS if flag != "difficult" and getattr(sample, flag)[i]]
    if sample.weight[i] != 1:
        lines.append(f"    <weight>{float(sample.weight[i])!r}</weight>")
    corners = [f"      <{name}>{pixel_text(value)}</{name}>" for name, value in zip(_CORNERS, box, strict=True)]
    return [*lines, "    <bndbox>", *corners, "    </bndbox>", "  </object>"]


def _text(value: str) -> str:
    return escape(_FORBIDDEN.sub("?", value))


def image_sets(parts: Mapping[str, str]) -> dict[str, str]:
    """Files below ImageSets/Main: name -> content. `parts` maps keys to parts."""
    files = {}
    for name, members in (("train", [TRAIN]), ("val", [EVAL]), ("test", [TEST]), ("trainval", [TRAIN, EVAL])):
        if keys := [key for key, part in parts.items() if part in members]:
            files[f"{name}.txt"] = "\n".join(keys) + "\n"
    return files
