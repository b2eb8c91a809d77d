"""YOLO text: data.yaml, and one labels/*.txt per picture with rows 'class centre_x centre_y width height',
normalised.

A row with more numbers is a polygon ('class x1 y1 x2 y2 ...') and read as the box around it. A picture
without a label file has no objects. The format has no flags: an ignored box cannot be written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mirilla.data import images
from mirilla.data.dataset import EVAL, TEST, TRAIN, Annotations, Entry, wanted
from mirilla.data.sample import Sample
from mirilla.data.split import part_name
from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.findings import Finding

_KEYS = (("train", TRAIN), ("val", EVAL), ("valid", EVAL), ("test", TEST))


def find(folder: Path) -> list[Path]:
    """The .yaml file of a folder whose picture folders exist, or the folder itself where it has
    labels/*.txt.
    """
    for path in [
        folder / "data.yaml",
        *sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")} - {folder / "data.yaml"}),
    ]:
        if path.is_file():
            try:
                if any(p.exists() for p, _ in _places(path, read_yaml(path))):
                    return [path]
            except DataError:
                continue
    labels = folder / "labels"
    if labels.is_dir() and (folder / "images").is_dir() and next(labels.rglob("*.txt"), None):
        return [folder]
    return []


def load(path: Path, name: str, split: str | None = None) -> Annotations:
    """Read a data.yaml or the folder that holds it (only the part `split`), or a folder with images/ and
    labels/.

    Raises:
        DataError: no such files, or a data.yaml that cannot be read.
    """
    hits = find(path) if path.is_dir() else [path]
    if not hits:
        raise DataError(
            f"{path}: no data.yaml whose folders exist, and no images/ with labels/*.txt, in this folder.",
            "Give the folder that holds data.yaml; its 'train' and 'val' must name folders.",
        )
    names: dict[int, str] = {}
    notes: tuple[str, ...] = ()
    problems: list[Finding] = []
    if hits[0].is_file():
        yaml = read_yaml(hits[0])
        given = yaml.get("names", [])
        pairs = given.items() if isinstance(given, dict) else enumerate(given if isinstance(given, list) else [given])
        try:
            names = {int(i): str(n) for i, n in pairs}
        except ValueError as error:
            raise DataError(f"{hits[0]}: 'names' must be a list, or number: name pairs ({error}).") from error
        places = _places(hits[0], yaml)
        if not places:
            raise DataError(f"{hits[0]}: it names neither 'train' nor 'val' pictures.", "Add both keys.")
        first: dict[Path, str] = {}
        for place, part in places:
            if place in first:  # one folder for two parts: it is what its own name says, or else the first
                named = part_name(place.name)
                first[place] = named if named in (part, first[place]) else first[place]
                notes += (f"{hits[0]}: several parts lie in {place.name}; it is read as '{first[place]}'.",)
            first.setdefault(place, part)
        places = list(first.items())
        for place, part in places:
            if not place.exists():
                problems.append(
                    Finding(
                        "error",
                        "missing-folder",
                        str(hits[0]),
                        f"the part '{part}' lies in {place}, which does not exist.",
                        "Mend the path in data.yaml.",
                    )
                )
    else:
        root = hits[0] / "images"
        parts = [(p, part_name(p.name)) for p in sorted(root.iterdir()) if p.is_dir()]
        places = [(p, part) for p, part in parts if part] or [(root, None)]
        listed = next((p for p in (hits[0] / "classes.txt", hits[0] / "labels" / "classes.txt") if p.is_file()), None)
        if listed:
            names = dict(enumerate(listed.read_text("utf-8", "replace").split("\n")))
            names = {i: n.strip() for i, n in names.items() if n.strip()}
    entries: list[Entry] = []
    several = len({p for _, p in places}) > 1
    unnamed = False
    keep = wanted([p for _, p in places], split, path)
    for place, part in places:
        if part not in keep:
            continue
        for picture, relative in _pictures(place):
            label = label_path(picture)
            where = str(label) if label.is_file() else str(picture)
            filename = f"{part}/{relative}" if several else relative
            try:
                boxes, ids = parse(label) if label.is_file() else (np.zeros((0, 4)), [])
                unknown = [i for i in ids if names and i not in names]
                if unknown:
                    raise ValueError(f"class {unknown[0]} is not in data.yaml's names (0 to {max(names)})")
            except ValueError as error:
                problems.append(
                    Finding(
                        "error",
                        "bad-annotation",
                        where,
                        f"{error}; the picture is left out.",
                        "Mend the file.",
                    )
                )
                continue
            unnamed = unnamed or (bool(ids) and not names)
            texts = tuple(names.get(i, str(i)) for i in ids)
            entries.append(Entry(picture, filename, boxes, texts, where, normalised=True, part=part))
    if unnamed:
        notes += ("The classes have no names (no data.yaml or classes.txt): they are called by their numbers.",)
    return Annotations(
        name, "yolo", path, tuple(entries), tuple(problems), tuple(n for _, n in sorted(names.items())), notes
    )


def parse(label: Path) -> tuple[np.ndarray, list[int]]:
    """One label file: boxes (N, 4) [xmin, ymin, xmax, ymax] normalised, and class numbers.

    Raises:
        ValueError: a row cannot be read; says which line and why.
    """
    boxes, ids = [], []
    try:
        lines = label.read_bytes().decode("utf-8-sig", "replace").splitlines()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            kind, values = float(words[0]), [float(w) for w in words[1:]]
        except ValueError:
            raise ValueError(f"line {number} holds something that is no number: {line[:60]!r}") from None
        if kind != int(kind) or kind < 0 or not np.isfinite(values).all():
            raise ValueError(f"line {number} should be 'class x y width height', but is {line[:60]!r}")
        if len(values) == 4:
            x, y, w, h = values
            boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        elif len(values) >= 6 and len(values) % 2 == 0:
            boxes.append([min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])])
        else:
            raise ValueError(f"line {number} has {len(words)} numbers; 5 make a box, 7, 9, 11 ... a polygon")
        ids.append(int(kind))
    return np.array(boxes, np.float64).reshape(-1, 4), ids


def label_path(picture: Path) -> Path:
    """The label file of a picture: the last folder 'images' in its path becomes 'labels'; otherwise beside
    it.
    """
    parts = list(picture.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _pictures(place: Path) -> list[tuple[Path, str]]:
    """The pictures of a folder, or those that a .txt file lists, with their names relative to it."""
    if place.is_file():
        listed = [Path(line.strip()) for line in place.read_text("utf-8", "replace").splitlines() if line.strip()]
        return [
            (
                p if p.is_absolute() else place.parent / p,
                p.name if p.is_absolute() else p.as_posix().removeprefix("./").removeprefix("../"),
            )
            for p in listed
        ]
    files = sorted(p for p in place.rglob("*") if p.suffix.lower() in images.EXTENSIONS) if place.is_dir() else []
    return [(p, p.relative_to(place).as_posix()) for p in files]


def _places(yaml_path: Path, yaml: Mapping) -> list[tuple[Path, str]]:
    """(folder or list file, part); a '../' that leads nowhere is tried without, as exporters write it."""
    root = Path(str(yaml.get("path") or "."))
    root = root if root.is_absolute() else yaml_path.parent / root
    if not root.exists():
        root = yaml_path.parent
    places: dict[tuple[Path, str], None] = {}
    for key, part in _KEYS:
        given = yaml.get(key) or []
        for one in given if isinstance(given, list) else [given]:
            one = str(one)
            place = Path(one) if Path(one).is_absolute() else root / one
            if not place.exists() and one.startswith("../") and (root / one[3:]).exists():
                place = root / one[3:]
            places[place, part] = None
    return list(places)


def read_yaml(path: Path) -> dict[str, object]:
    """The part of YAML that data.yaml files use: keys with a text, a list or number: text pairs.

    Raises:
        DataError: a line of another form where one of our keys is concerned.
    """
    with explaining(path):
        text = path.read_bytes().decode("utf-8-sig", "replace")
    result: dict[str, object] = {}
    key = ""
    pending = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = _without_comment(raw)
        if pending:
            pending += " " + line.strip()
            if _closed(pending):
                result[key], pending = _value(pending), ""
            continue
        if not line.strip() or line.strip() in ("---", "..."):
            continue
        item = line.strip()
        if item.startswith("- ") or item == "-":
            kept = result.get(key)
            result[key] = [*kept, _scalar(item[1:])] if isinstance(kept, list) else [_scalar(item[1:])]
        elif line[0] in " \t":
            name, colon, value = item.partition(":")
            if colon and (result.get(key) is None or isinstance(result[key], dict)):
                result[key] = {**(result.get(key) or {}), _scalar(name): _scalar(value)}  # type: ignore[dict-item]
        else:
            name, colon, value = line.partition(":")
            if not colon:
                raise DataError(f"{path}, line {number}: {raw.strip()[:60]!r} is not of the form 'key: value'.")
            key = _scalar(name)
            value = value.strip()
            if value[:1] in ("[", "{") and not _closed(value):
                pending = value
            else:
                result[key] = _value(value) if value else None
    if pending:
        raise DataError(f"{path}: the value of '{key}' has no closing bracket.")
    return result


def _closed(value: str) -> bool:
    return value.rstrip().endswith("]" if value.startswith("[") else "}")


def _value(value: str) -> object:
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        return [_scalar(v) for v in _split(value[1:-1])]
    if value.startswith("{") and value.endswith("}"):
        pairs = (v.partition(":") for v in _split(value[1:-1]))
        return {_scalar(k): _scalar(v) for k, _, v in pairs}
    return _scalar(value)


def _split(text: str) -> list[str]:
    found = re.findall(r"""((?:"(?:\\.|[^"])*"|'(?:''|[^'])*'|[^,'"]+|['"])+)""", text)
    return [f for f in found if f.strip()]


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _without_comment(line: str) -> str:
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "#" and (i == 0 or line[i - 1] in " \t"):
            return line[:i].rstrip()
    return line.rstrip()


def text_of(sample: Sample, ids: Mapping[str, int]) -> str:
    """A sample's label file; 6 decimals, finer than a hundredth of a pixel at 4,000 px. `ids` count from
    0.
    """
    lines = []
    for label, (y0, x0, y1, x1) in zip(sample.labels, sample.boxes_yxyx, strict=True):
        lines.append(f"{ids[label]} {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}\n")
    return "".join(lines)


def yaml_of(names: Sequence[str], parts: Mapping[str, str]) -> str:
    """data.yaml; `parts` maps its keys (train, val, test) to folders. Names are quoted."""
    lines = ["# written by mirilla data convert", "path: ."]
    lines += [f"{key}: {folder}" for key, folder in parts.items()]
    lines += [f"nc: {len(names)}", "names:"]
    lines += [f"  {i}: '" + n.replace("'", "''") + "'" for i, n in enumerate(names)]
    return "\n".join(lines) + "\n"
