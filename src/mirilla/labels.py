"""Label maps: which number stands for which class name.

The file is the API's `StringIntLabelMap` in text form: `item { id: 1 name: 'face' display_name: 'Face' }`.
Number 0 is the background's and never appears in a file; numbers start at 1. A detection's class is the
item's `id`; the network's column for it is `id` too, column 0 being the background's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mirilla.errors import ConfigError
from mirilla.files import write_text
from mirilla.protos import text
from mirilla.protos.pipeline_pb2 import StringIntLabelMap


@dataclass(frozen=True)
class Label:
    """One class. display_name is what people are shown; empty means: the name."""

    id: int
    name: str
    display_name: str = ""

    @property
    def shown(self) -> str:
        return self.display_name or self.name


@dataclass(frozen=True)
class LabelMap:
    """Classes in the order of their numbers.

    Raises:
        ConfigError: a number below 1, or a number or a name that occurs twice, or no class at all.
    """

    items: tuple[Label, ...]

    def __post_init__(self):
        items = tuple(sorted(self.items, key=lambda item: item.id))
        object.__setattr__(self, "items", items)
        _verify(items, lambda item: "label map")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelMap:
        """Numbers 1, 2, ... in the order given."""
        return cls(tuple(Label(number, name) for number, name in enumerate(names, start=1)))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.items)

    def __contains__(self, name: object) -> bool:
        return any(item.name == name for item in self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of their numbers."""
        return tuple(item.name for item in self.items)

    @property
    def max_id(self) -> int:
        return self.items[-1].id

    @property
    def contiguous(self) -> bool:
        """Whether the numbers are 1, 2, ... without a gap (MS COCO's map has gaps)."""
        return self.max_id == len(self.items)

    def id_of(self, name: str) -> int:
        """Number of a class by its name, or else by its display name (records of either kind exist).

        Raises:
            ConfigError: no class has that name.
        """
        for item in self.items:
            if item.name == name:
                return item.id
        for item in self.items:
            if item.display_name == name and name:
                return item.id
        guess = text.nearest(name, list(self.names))
        known = ", ".join(self.names[:12]) + (", ..." if len(self) > 12 else "")
        hint = f"Did you mean '{guess}'? " if guess else ""
        raise ConfigError(
            f"The label map has no class '{name}'.",
            f"{hint}It has: {known}. Add the class to it, or mend the data.",
        )

    def name_of(self, number: int) -> str:
        """Name of a class by its number.

        Raises:
            ConfigError: no class has that number.
        """
        for item in self.items:
            if item.id == number:
                return item.name
        if number == 0:
            raise ConfigError("Class 0 is the background and has no name in the label map.")
        raise ConfigError(f"The label map has no class number {number}.", f"Its numbers go up to {self.max_id}.")

    def shown(self, number: int) -> str:
        """What to show people for a class number: display name, else name, else the number itself."""
        return next((item.shown for item in self.items if item.id == number), str(number))


def load_label_map(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map file.

    Raises:
        ConfigError: missing or unreadable file, bad syntax, a number below 1 or missing, a number or name
            twice (with the line of the item).
    """
    return parse_label_map(text.read_text(path, "label map"), str(path))


def parse_label_map(content: str, source: str = "<text>") -> LabelMap:
    """Parse the text form of a label map; `source` stands for the file in messages.

    Raises:
        ConfigError: as for `load_label_map`.
    """
    message = text.parse(content, StringIntLabelMap(), source)
    lines = text.field_lines(content)
    found = []
    for index, item in enumerate(message.item):
        line = lines.get(f"item[{index}]" if index else "item")
        where = f"{source}:{line}" if line else source
        if not item.HasField("id"):
            raise ConfigError(f"{where}: item '{item.name}' has no id.", "Give it one: 1, 2, ...")
        if not item.name and not item.display_name:
            raise ConfigError(f"{where}: item {item.id} has no name.", "Add  name: '...'  to it.")
        found.append((Label(item.id, item.name or item.display_name, item.display_name), where))
    places = {id(label): where for label, where in found}
    _verify([label for label, _ in found], lambda label: places[id(label)], source)
    return LabelMap(tuple(label for label, _ in found))


def label_map_text(labels: LabelMap) -> str:
    """The text form, one item after another in the order of their numbers."""
    message = StringIntLabelMap()
    for label in labels:
        item = message.item.add(id=label.id, name=label.name)
        if label.display_name:
            item.display_name = label.display_name
    return text.dump(message)


def save_label_map(path: str | os.PathLike[str], labels: LabelMap) -> None:
    """Write a label map file atomically.

    Raises:
        MirillaError: the file cannot be written; nothing is left behind.
    """
    write_text(path, label_map_text(labels))


def _verify(labels: Iterable[Label], where, source: str = "label map") -> None:
    by_id: dict[int, Label] = {}
    by_name: dict[str, Label] = {}
    for label in labels:
        if label.id < 1:
            reason = "0 is the background's" if label.id == 0 else "numbers start at 1"
            raise ConfigError(f"{where(label)}: id {label.id} of '{label.name}' is not allowed: {reason}.")
        if not label.name:
            raise ConfigError(f"{where(label)}: item {label.id} has no name.")
        if label.id in by_id:
            other = by_id[label.id]
            raise ConfigError(
                f"{where(label)}: id {label.id} of '{label.name}' is already that of '{other.name}'.",
                "Give every class a number of its own.",
            )
        if label.name in by_name:
            first = by_name[label.name].id
            raise ConfigError(
                f"{where(label)}: the name '{label.name}' occurs twice (ids {first} and {label.id}).",
                "Give every class a name of its own.",
            )
        by_id[label.id], by_name[label.name] = label, label
    if not by_id:
        raise ConfigError(f"{source}: no class in it.", "Add  item { id: 1 name: 'face' }.")
