"""Arguments that several verbs share, and the command line of an options class (see `job.option_fields`)."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mirilla.job.option_fields import Option, field_named, option_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def size(text: str) -> tuple[int, int]:
    """'256' or '192x256' (rows x columns)."""
    parts = text.lower().strip().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"[1-9][0-9]{0,3}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size in pixels such as 256 or 192x256 (rows x columns)")
    return int(parts[0]), int(parts[-1])


def add_options(parser: argparse.ArgumentParser, options: type[DataclassInstance], names: Sequence[str] = ()) -> None:
    """Add the options of a class to a parser: those named, or all of them."""
    hints = get_type_hints(options)
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for name in names or [item.name for item in fields(options)]:
        item = field_named(options, name)
        declared = option_of(item)
        if declared.group and declared.group not in groups:
            groups[declared.group] = parser.add_mutually_exclusive_group()
        _add(groups.get(declared.group, parser), item, declared, hints[name])


def read_options(options: type[Options], args: argparse.Namespace) -> Options:
    """An options object from the parsed arguments.

    Raises:
        UsageError: a value that the class refuses.
    """
    given = {item.name: getattr(args, item.name) for item in fields(options)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _add(target: argparse._ActionsContainer, item: Field[Any], declared: Option, hint: object) -> None:
    """Add one field's option; its type comes from the field's annotation."""
    kind, many = _value_type(hint)
    settings: dict[str, Any] = {"help": declared.help, "metavar": declared.metavar}
    if many:
        settings["nargs"] = "+"
    if not declared.flag:
        target.add_argument(item.name, **settings)
        return
    settings["dest"] = item.name
    if kind is bool:
        target.add_argument(declared.flag, action="store_true", dest=item.name, help=declared.help)
        return
    if kind is not str:
        settings["type"] = kind
    if item.default is MISSING:
        settings["required"] = True
    else:
        settings["default"] = item.default
        if item.default not in (None, "", ()):
            settings["help"] += " (default: %(default)s)"
    if declared.metavar is None:
        settings["choices"] = declared.choices  # listed in the usage line
    target.add_argument(*filter(None, (declared.flag, declared.alias)), **settings)


def _value_type(hint: object) -> tuple[type, bool]:
    """The type of one value, and whether there may be several: `int | None` -> int, `tuple[str, ...]` -> str."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not types.NoneType)
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return cast("type", hint), False
