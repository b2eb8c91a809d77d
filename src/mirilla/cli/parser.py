"""The parser of every verb: errors come from the verb itself, and name the option or verb that was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

# options of other programs -> the option here, if the verb has it
_ELSEWHERE = {
    "--epochs": "--steps",
    "--conf-thres": "--threshold",
    "--img-size": "--size",
    "--output": "--out",
    "--project": "--out",
    "--pretrained": "--start",
    "--classes": "--labels",
}
_INVALID_CHOICE = re.compile(r"argument (.+): invalid choice: '?(.*?)'? \(choose from")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that does not pass unknown arguments on to the parser above it."""

    # argparse's stubs have overloads for namespaces of other classes
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        assert found is not None  # the stubs allow None only if None was given
        if unknown:
            self.error(self._unknown(unknown))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        match = _INVALID_CHOICE.match(message)
        if match is not None:
            choices = self._choices(match[1])
            near = difflib.get_close_matches(match[2], choices, 1)
            what = "verb" if match[1] in ("VERB", "data_verb") or "|" in match[1] else match[1]
            message = f"unknown {what} '{match[2]}'" + (f"; did you mean '{near[0]}'?" if near else "")
            message += "" if near else f" (choose from {', '.join(choices)})"
        super().error(message)

    def _unknown(self, words: Sequence[str]) -> str:
        """The error for arguments that this verb does not have."""
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        if not options:
            return f"unexpected argument '{words[0]}'"
        known = {name for action in self._actions for name in action.option_strings if action.help != argparse.SUPPRESS}
        elsewhere = _ELSEWHERE.get(options[0])
        near = [elsewhere] if elsewhere in known else difflib.get_close_matches(options[0], sorted(known), 1)
        hint = f"; did you mean {near[0]}?" if near else f" ('{self.prog} --help' lists the options)"
        return f"unknown option {options[0]}{hint}"

    def _choices(self, argument: str) -> list[str]:
        names = {argument, *argument.split("/")}
        for action in self._actions:
            if action.choices is not None and names & {str(action.metavar), action.dest, *action.option_strings}:
                return [str(choice) for choice in action.choices]
        return []
