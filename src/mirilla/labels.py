"""Label maps: the ids of the classes.

The file is the Object Detection API's `StringIntLabelMap` in text form:
`item { id: 1 name: 'face' display_name: 'Face' }`. Ids start at 1; 0 is the background and never appears in a file. A
detection's class is the item's `id`, and so is its column in the network's output, with column 0 for the background.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mirilla.errors import ConfigError
from mirilla.files import write_text
from mirilla.protos import text
from mirilla.protos.pipeline_pb2 import StringIntLabelMap


@dataclass(frozen=True)
class Label:
    """A class; `display_name` is the name shown to users; `name` if it is empty."""

    id: int
    name: str
    display_name: str = ""

    @property
    def shown(self) -> str:
        return self.display_name or self.name


@dataclass(frozen=True)
class LabelMap:
    """Classes in the order of their ids.

    Raises:
        ConfigError: an id below 1, a repeated id or name, or no class.
    """

    items: tuple[Label, ...]

    def __post_init__(self):
        items = tuple(sorted(self.items, key=lambda item: item.id))
        object.__setattr__(self, "items", items)
        _verify(items, lambda _: "label map")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelMap:
        """Ids 1, 2, ... in the order given."""
        return cls(tuple(Label(number, name) for number, name in enumerate(names, start=1)))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.items)

    def __contains__(self, name: object) -> bool:
        return any(item.name == name for item in self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of their ids."""
        return tuple(item.name for item in self.items)

    @property
    def max_id(self) -> int:
        return self.items[-1].id

    @property
    def by_column(self) -> list[str]:
        """The names to show, in the order of a model's score columns; an unused id is 'unused'."""
        names = {item.id: item.shown for item in self.items}
        return [names.get(i, "unused") for i in range(1, self.max_id + 1)]

    @property
    def contiguous(self) -> bool:
        """Whether the ids are 1, 2, ... without a gap (MS COCO's map has gaps)."""
        return self.max_id == len(self.items)

    def id_of(self, name: str) -> int:
        """The id of a class by its name, or else by its display name: records use either.

        Raises:
            ConfigError: no class has this name.
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
            f"{hint}Its classes: {known}. Add the class, or correct the data.",
        )

    def name_of(self, number: int) -> str:
        """The name of a class by its id.

        Raises:
            ConfigError: no class has this id.
        """
        for item in self.items:
            if item.id == number:
                return item.name
        if number == 0:
            raise ConfigError("Class 0 is the background and has no name in the label map.")
        raise ConfigError(f"The label map has no class number {number}.", f"Its ids go up to {self.max_id}.")

    def shown(self, number: int) -> str:
        """The name to show for a class id: display name, else name, else the id itself."""
        return next((item.shown for item in self.items if item.id == number), str(number))


def load_label_map(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map file.

    Raises:
        ConfigError: missing or unreadable file, bad syntax, a missing id or one below 1, a repeated id or name (with
            the line of the item).
    """
    return parse_label_map(text.read_text(path, "label map"), str(path))


def parse_label_map(content: str, source: str = "<text>") -> LabelMap:
    """Parse the text form of a label map; `source` names the file in messages.

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
            raise ConfigError(f"{where}: item '{item.name}' has no id.", "Add an id: 1, 2, ...")
        if not item.name and not item.display_name:
            raise ConfigError(f"{where}: item {item.id} has no name.", "Add  name: '...'  to it.")
        found.append((Label(item.id, item.name or item.display_name, item.display_name), where))
    places = {id(label): where for label, where in found}
    _verify([label for label, _ in found], lambda label: places[id(label)], source)
    return LabelMap(tuple(label for label, _ in found))


def label_map_text(labels: LabelMap) -> str:
    """The text form, with the items in the order of their ids."""
    message = StringIntLabelMap()
    for label in labels:
        item = message.item.add(id=label.id, name=label.name)
        if label.display_name:
            item.display_name = label.display_name
    return text.dump(message)


def save_label_map(path: str | os.PathLike[str], labels: LabelMap) -> None:
    """Write a label map file atomically.

    Raises:
        MirillaError: the file cannot be written; no file is left.
    """
    write_text(path, label_map_text(labels))


def _verify(labels: Iterable[Label], where: Callable[[Label], str], source: str = "label map") -> None:
    """Raise ConfigError for a label that breaks a rule; `where(label)` is its place for messages."""
    by_id: dict[int, Label] = {}
    by_name: dict[str, Label] = {}
    for label in labels:
        if label.id < 1:
            reason = "0 is the background" if label.id == 0 else "ids start at 1"
            raise ConfigError(
                f"{where(label)}: id {label.id} of '{label.name}' is not allowed: {reason}.",
                "Remove it, or number the classes from 1.",
            )
        if not label.name:
            raise ConfigError(f"{where(label)}: item {label.id} has no name.", "Add  name: '...'  to it.")
        if label.id in by_id:
            other = by_id[label.id]
            raise ConfigError(
                f"{where(label)}: id {label.id} of '{label.name}' is already used by '{other.name}'.",
                "Give every class its own id.",
            )
        if label.name in by_name:
            first = by_name[label.name].id
            raise ConfigError(
                f"{where(label)}: the name '{label.name}' occurs twice (ids {first} and {label.id}).",
                "Give every class its own name.",
            )
        by_id[label.id], by_name[label.name] = label, label
    if not by_id:
        raise ConfigError(f"{source}: the label map has no class.", "Add  item { id: 1 name: 'face' }.")
