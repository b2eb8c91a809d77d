"""Read typed values from parsed JSON; every error names the key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from mirilla.errors import ModelError

T = TypeVar("T")

_LARGEST = float(np.finfo(np.float32).max)  # Python reads integers of any size from JSON
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a whole number",
    bool: "true or false",
}


class JsonFields:
    """Reads values of a parsed JSON file.

    Args:
        where: the file's name, for messages.
        remedy: remedy in every error.
    """

    def __init__(self, where: str, remedy: str):
        self.where, self.remedy = where, remedy

    def error(self, key: str, rule: str) -> ModelError:
        return ModelError(f"{self.where}: '{key}' {rule}.", self.remedy)

    def get(self, value: Mapping[str, object], key: str, kind: type[T], prefix: str = "") -> T:
        """The value of a required key."""
        if key not in value:
            raise self.error(prefix + key, "is missing")
        return self.plain(kind, value[key], prefix + key)

    def plain(self, kind: type[T], value: object, key: str) -> T:
        """Check that a value has this type, and return it; true and false are not numbers."""
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
            raise self.error(key, f"must be {_NAMES.get(kind, kind.__name__)}")
        return value

    def number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise self.error(key, "must be a finite number")
        return float(value)

    def dataclass(self, kind: type[T], value: Mapping[str, object], path: str) -> T:
        """Build a frozen dataclass from an object with a key per field: numbers, strings, tuples or dataclasses.

        Fields with the metadata `mirilla.model.spec.OPTIONAL` may be missing.
        """
        assert dataclasses.is_dataclass(kind)
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        value = {field.name: field.default for field in fields if field.metadata.get("optional")} | dict(value)
        names = [field.name for field in fields]
        for key in value:
            if key not in names:
                raise self.error(f"{path}.{key}", "is not a known key")
        for name in names:
            if name not in value:
                raise self.error(f"{path}.{name}", "is missing")
        return kind(**{name: self._typed(hints[name], value[name], f"{path}.{name}") for name in names})

    def _typed(self, hint: object, value: object, key: str) -> object:
        """Check a value against the type of a dataclass field."""
        if typing.get_origin(hint) is tuple:
            return self._tuple(typing.get_args(hint), value, key)
        if isinstance(hint, types.UnionType):
            kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
            return None if value is None else self._typed(kinds[0], value, key)
        assert isinstance(hint, type)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(hint, self.plain(dict, value, key), key)
        return self.number(value, key) if hint is float else self.plain(hint, value, key)

    def _tuple(self, kinds: Sequence[object], value: object, key: str) -> tuple[object, ...]:
        """kinds: types of the elements, or one type and an ellipsis."""
        if not isinstance(value, list | tuple):
            raise self.error(key, "must be a list")
        if kinds[-1] is not ... and len(value) != len(kinds):
            raise self.error(key, f"must be a list of {len(kinds)} values")
        return tuple(self._typed(kinds[0], element, key) for element in value)
