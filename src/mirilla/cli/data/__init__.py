"""`mirilla data`: verbs for data sets, a module each with `HELP`, `add_arguments` and `run`."""

from __future__ import annotations

import argparse

from mirilla.cli.data import anchors, check, convert, fetch, label, stats

_VERBS = {
    "convert": convert,
    "stats": stats,
    "check": check,
    "anchors": anchors,
    "label": label,
    "fetch": fetch,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-verbs and their options."""
    verbs = parser.add_subparsers(dest="data_verb", metavar="|".join(_VERBS), required=True)
    for name, module in _VERBS.items():
        module.add_arguments(verbs.add_parser(name, help=module.HELP, description=module.DESCRIPTION))


def run(args: argparse.Namespace) -> int:
    """Run one sub-verb; returns the exit code."""
    return _VERBS[args.data_verb].run(args)
