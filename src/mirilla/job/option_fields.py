"""Dataclass fields that are also options of the command line.

    @dataclass(frozen=True)
    class Options:
        steps: int = option(100, "training steps", metavar="N", rule=AT_LEAST_1)

A field holds everything about its option: default, help, flag, choices and the rule for its values. `cli.arguments`
makes the command line from it, and `check` refuses other values, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mirilla.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_KEY = "option"


@dataclass(frozen=True)
class Rule:
    """The values that an option accepts: `text` completes the sentence "It must ..."."""

    text: str
    holds: Callable[[Any], bool]
    remedy: str | None = None


AT_LEAST_1 = Rule("be at least 1", lambda value: value >= 1)
MORE_THAN_0 = Rule("be more than 0", lambda value: value > 0)


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    Attributes:
        help: what it sets, without the default, which the help text appends.
        flag: "--size", or "" for a positional argument; None: the field's name with dashes.
        metavar: placeholder of the value in the help text.
        choices: the only values; a metavar keeps them out of the usage line.
        rule: what its value must satisfy (None always passes).
        group: options of one group exclude each other.
        alias: the option's name in other programs, which works too.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    choices: Sequence[str] | None = None
    rule: Rule | None = None
    group: str = ""
    alias: str = ""


def option(
    default: T,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    rule: Rule | None = None,
    group: str = "",
    alias: str = "",
) -> T:
    """A field with a default."""
    made = Option(help, flag, metavar, choices, rule, group, alias)
    return cast("T", field(default=default, metadata={_KEY: made}))


def required(help: str, *, flag: str | None = None, metavar: str | None = None) -> Any:
    """A field that must be given; with the flag "" it is a positional argument."""
    return field(metadata={_KEY: Option(help, flag, metavar)})


def same(other: type[DataclassInstance], name: str, **changes: Any) -> Any:
    """The field `name` of another options class, with some of its parts (or its default) replaced."""
    copied = field_named(other, name)
    default = changes.pop("default", copied.default)
    return field(default=default, metadata={_KEY: replace(option_of(copied), **changes)})


def field_named(options: type[DataclassInstance], name: str) -> Field[Any]:
    """A field of an options class."""
    return next(item for item in fields(options) if item.name == name)


def option_of(item: Field[Any]) -> Option:
    """The declaration of a field, with its flag filled in."""
    declared: Option = item.metadata[_KEY]
    if declared.flag is None:
        return replace(declared, flag="--" + item.name.replace("_", "-"))
    return declared


def check(options: DataclassInstance) -> None:
    """Check every field of an options object against its rule and choices.

    Raises:
        UsageError: a value is not allowed.
    """
    for item in fields(options):
        declared, value = option_of(item), getattr(options, item.name)
        if value is None:
            continue
        if declared.choices is not None and value not in declared.choices:
            raise UsageError(f"Unknown {item.name} '{value}'. Choose from: {', '.join(declared.choices)}.")
        if declared.rule is not None and not declared.rule.holds(value):
            raise UsageError(f"{declared.flag} {value}: it must {declared.rule.text}.", declared.rule.remedy)


def words_of(options: DataclassInstance) -> list[str]:
    """The command-line arguments that give these options; those with their default are left out."""
    words: list[str] = []
    for item in fields(options):
        declared, value = option_of(item), getattr(options, item.name)
        if value is None or value == item.default or value is False:
            continue
        values = [str(one) for one in (value if isinstance(value, tuple) else (value,))]
        words += values if not declared.flag else [declared.flag] if value is True else [declared.flag, *values]
    return words
