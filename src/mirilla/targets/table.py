"""The targets of `mirilla export --to`. A target's module is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from mirilla.errors import MissingExtraError, UsageError
from mirilla.targets.names import TARGETS
from mirilla.targets.target import Target

ALL = "all"


def target(name: str) -> Target:
    """The target of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in TARGETS:
        raise UsageError(f"Unknown target '{name}'.", f"Choose from: {', '.join(TARGETS)}, {ALL}.")
    module, attribute = TARGETS[name]
    found = getattr(import_module(f"mirilla.targets.{module}"), attribute)
    assert isinstance(found, Target)
    return found


def chosen(names: str, log: Callable[[str], object]) -> list[Target]:
    """The targets of a list such as 'onnx,tflite', or of 'all': all whose packages are installed.

    Args:
        log: prints a line about each target that 'all' leaves out.

    Raises:
        UsageError: an unknown target, or none.
        MissingExtraError: a target that was named needs a package that is not installed.
    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    if not words:
        raise UsageError("--to names no target.", f"Choose from: {', '.join(TARGETS)}, {ALL}.")
    targets = []
    for name in dict.fromkeys(TARGETS if ALL in words else words):
        targets.append(target(name))
        try:
            targets[-1].require()
        except MissingExtraError as error:
            if ALL not in words:
                raise
            targets.pop()
            log(f"{name}: left out. {error.what} {error.remedy}")
    return targets
