"""The targets of `mirilla export --to`. A target's module is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from mirilla.errors import MissingExtraError, UsageError
from mirilla.targets.names import TARGETS
from mirilla.targets.target import Target

ALL = "all"


def target(name: str) -> Target:
    """The target of this name.

    Raises:
        UsageError: there is none.
        MissingExtraError: its module needs a package that is missing.
    """
    if name not in TARGETS:
        raise UsageError(f"Unknown target '{name}'.", f"Choose from: {', '.join(TARGETS)}, {ALL}.")
    module, attribute = TARGETS[name]
    try:
        found = getattr(import_module(f"mirilla.targets.{module}"), attribute)
    except ModuleNotFoundError as error:
        if error.name != "flatbuffers":
            raise
        raise MissingExtraError("flatbuffers", "tflite", f"The target '{name}'") from None
    assert isinstance(found, Target)
    return found


def chosen(names: str, log: Callable[[str], None]) -> list[Target]:
    """The targets of a list such as 'onnx,tflite', or of 'all'.

    Args:
        log: prints which targets 'all' leaves out, since a package is missing.

    Raises:
        UsageError: an unknown target, or none.
        MissingExtraError: a named target cannot be built without a package that is missing.
    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    if not words:
        raise UsageError("--to names no target.", f"Choose from: {', '.join(TARGETS)}, {ALL}.")
    found = []
    for name in dict.fromkeys(TARGETS if ALL in words else words):
        try:
            found.append(_buildable(target(name)))
        except MissingExtraError as error:
            if ALL not in words:
                raise
            log(f"{name}: left out: {error.what} {error.remedy}")
    return found


def _buildable(target: Target) -> Target:
    for package in target.needs:
        if find_spec(package.module) is None:
            raise MissingExtraError(package.name, package.extra, f"Writing '{target.name}'")
    return target
