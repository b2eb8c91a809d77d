"""Flags of the original scripts that Mirilla's own verbs take: ignored with a note, or refused with the reason."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mirilla.tf1.flags import ABSL, ACTS, FLAGS, IGNORED, NEW, Flag

_NOT_HERE = ("help", "helpshort", "helpfull", "helpxml")


def add_original_flags(parser: argparse.ArgumentParser, script: str, ignored: Mapping[str, str]) -> None:
    """Add the flags of a script, and absl's, that the verb has no option for. --help does not list them.

    Args:
        ignored: flag that acts in the script, but is only ignored here -> reason. The others that act in the script
            are refused.
    """
    options = {option for action in parser._actions for option in action.option_strings}
    for flag in (*FLAGS[script], *ABSL):
        if flag.status == NEW or f"--{flag.name}" in options or flag.name in _NOT_HERE:
            continue
        names = [f"--{flag.name}", *([f"--no{flag.name}"] if flag.kind is bool else [])]
        parser.add_argument(
            *names,
            action=_Original,
            flag=flag,
            script=script,
            reason=ignored.get(flag.name, flag.note if flag.status == IGNORED else ""),
            nargs="?" if flag.kind is bool else None,
            help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )


class _Original(argparse.Action):
    """Notes that a flag is ignored (`reason`), or refuses it; its default value asks for nothing."""

    def __init__(self, *, flag: Flag, script: str, reason: str, **settings):
        super().__init__(**settings)
        self.flag, self.script, self.reason = flag, script, reason

    def __call__(self, parser, namespace, values, option_string=None):
        from mirilla.console import echo
        from mirilla.tf1.flags import value_of

        text = str(values) if values is not None else str(option_string == f"--{self.flag.name}").lower()
        if value_of(self.flag, text) == self.flag.default:
            return
        if self.reason:
            echo(f"note: --{self.flag.name} is ignored: {self.reason}.")
        elif self.flag.status == ACTS:
            parser.error(f"--{self.flag.name} is not an option here; 'mirilla tf1 {self.script}' has it")
        else:
            parser.error(f"--{self.flag.name} is not supported: {self.flag.note}. {self.flag.remedy}")
