"""YOLO's data.yaml: which folders hold the pictures of each part, and the class names.

path: ../datasets/faces        # optional; other paths are relative to it
train: images/train            # a folder, a .txt file that lists pictures, or a list of these
val: images/val
names: {0: face, 1: mask}      # or a list
nc: 2                          # optional: the number of names
kpt_shape: [5, 2]              # optional: keypoints of each row of the labels, and numbers of each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mirilla.data import text
from mirilla.data.dataset import EVAL, TEST, TRAIN
from mirilla.errors import DataError
from mirilla.files import explaining

MAX_BYTES = 1 << 18  # PyYAML takes some 6 s for 1 MB
_PART_KEYS = {"train": TRAIN, "val": EVAL, "valid": EVAL, "test": TEST}
_NULL = ("", "~", "null")


@dataclass(frozen=True)
class DataYaml:
    """The keys of a data.yaml that Mirilla uses; all others are skipped.

    Attributes:
        path: the file.
        root: the value of 'path', or ".".
        places: (folder or list of pictures as written, part), in the order train, val, valid, test.
        names: class number -> name.
        count: the value of 'nc', the number of classes; None if it is missing.
        keypoints: the value of 'kpt_shape', (keypoints, numbers of each); None if it is missing.
    """

    path: Path
    root: str
    places: tuple[tuple[str, str], ...]
    names: dict[int, str]
    count: int | None = None
    keypoints: tuple[int, int] | None = None


def read(path: Path) -> DataYaml:
    """Read a data.yaml.

    Every scalar is read as the string in the file, so that a class may be called 'yes' or '007'. YAML tags are
    ignored, so a file cannot create other objects.

    Raises:
        DataError: the file is too large, not YAML, or has a value of the wrong type; the message has the line.
    """
    entries = _entries(path, _document(path))
    places = tuple(
        (place, part) for key, part in _PART_KEYS.items() if key in entries for place in _texts(path, key, entries[key])
    )
    root = _scalar(path, "path", entries["path"]) if "path" in entries else None
    return DataYaml(
        path,
        root or ".",
        places,
        _names(path, entries["names"]) if "names" in entries else {},
        _count(path, entries["nc"]) if "nc" in entries else None,
        _keypoints(path, entries["kpt_shape"]) if "kpt_shape" in entries else None,
    )


def _document(path: Path) -> yaml.Node | None:
    with explaining(path):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: it has {size:,} bytes, but a data.yaml has at most {MAX_BYTES:,}.",
                "Check the path: is it a data.yaml?",
            )
        content = path.read_bytes()
    try:
        document = text.decode(content)
    except text.DecodeError as error:
        raise DataError(f"{path}: {error}.", text.SAVE_AS_UTF8) from error
    try:
        # Composing only builds the tree of nodes: no tag is resolved and no alias is copied.
        return yaml.compose(document, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        reason = error.problem or error.context or "it cannot be parsed"
        remedy = "Write paths with '/', or in single quotes." if "escape" in reason else "Correct the line."
        raise DataError(f"{where}: not YAML: {reason}.", remedy) from error
    except yaml.reader.ReaderError as error:
        line = document.count("\n", 0, error.position) + 1
        raise DataError(f"{path}, line {line}: not YAML: {error.reason}.", "Remove the character.") from error
    except RecursionError as error:
        raise DataError(f"{path}: its lists or mappings are nested too deeply.", "Check the path.") from error


def _entries(path: Path, document: yaml.Node | None) -> Mapping[str, yaml.Node]:
    """Top-level key -> its node."""
    if document is None:
        return {}
    if not isinstance(document, yaml.MappingNode):
        raise _wrong_type(path, document, "the file", "'key: value' lines")
    return {key.value: value for key, value in document.value if isinstance(key, yaml.ScalarNode)}


def _names(path: Path, node: yaml.Node) -> dict[int, str]:
    if not isinstance(node, yaml.MappingNode):
        return dict(enumerate(_texts(path, "names", node)))
    names: dict[int, str] = {}
    for key, value in node.value:
        number = key.value if isinstance(key, yaml.ScalarNode) else ""
        if not _is_number(number):
            raise _wrong_type(path, key, "a key of 'names'", "a class number (0, 1, 2, ...)")
        names[int(number)] = _scalar(path, "names", value) or ""
    return names


def _count(path: Path, node: yaml.Node) -> int | None:
    value = _scalar(path, "nc", node)
    if value is None:
        return None
    if not _is_number(value):
        raise _wrong_type(path, node, "'nc'", "the number of classes")
    return int(value)


def _keypoints(path: Path, node: yaml.Node) -> tuple[int, int]:
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    values = [_scalar(path, "kpt_shape", item) or "" for item in items]
    if len(values) != 2 or not all(map(_is_number, values)) or values[1] not in ("2", "3"):
        raise _wrong_type(path, node, "'kpt_shape'", "[number of keypoints, 2 or 3]")
    return int(values[0]), int(values[1])


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10


def _texts(path: Path, key: str, node: yaml.Node) -> Sequence[str]:
    """The strings in a list, or a single string; null counts as an empty list."""
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(path, key, item) or "" for item in node.value]
    value = _scalar(path, key, node)
    return [] if value is None else [value]


def _scalar(path: Path, key: str, node: yaml.Node) -> str | None:
    """The string of a scalar; None for null."""
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong_type(path, node, f"a value of '{key}'", "a string")
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _wrong_type(path, node, f"a value of '{key}'", "Unicode text")
    return None if node.style is None and node.value in _NULL else node.value


def _wrong_type(path: Path, node: yaml.Node, what: str, expected: str) -> DataError:
    if isinstance(node, yaml.ScalarNode):
        actual = repr(node.value[:40])
    else:
        actual = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
    line = node.start_mark.line + 1
    return DataError(f"{path}, line {line}: {what} must be {expected}, but it is {actual}.", "Correct the line.")


def text_of(names: Sequence[str], folders: Mapping[str, str]) -> str:
    """A data.yaml; `folders` maps its keys (train, val, test) to folders. Names are quoted."""
    lines = ["# written by mirilla data convert", "path: ."]
    lines += [f"{key}: {folder}" for key, folder in folders.items()]
    lines += [f"nc: {len(names)}", "names:"]
    lines += [f"  {number}: {_quoted(name)}" for number, name in enumerate(names)]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return yaml.safe_dump(name, default_style="'", allow_unicode=name.isprintable(), width=1 << 30).strip()
