"""The arguments that name a data set and change it, and reading the data set that they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirilla.data import formats

if TYPE_CHECKING:
    from mirilla.data import Dataset
    from mirilla.findings import Finding

_MAX_LISTED = 50


def add_source(parser: argparse.ArgumentParser) -> None:
    """SRC, --from and --split."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="folder, annotation file or TFRecord files; SRC@train and SRC@eval choose a part",
    )
    parser.add_argument(
        "--from", dest="from_format", choices=formats.READABLE, help="format of SRC (default: recognised)"
    )
    parser.add_argument("--split", choices=("train", "eval", "test"), help="read only this part of SRC's own split")


def add_changes(parser: argparse.ArgumentParser) -> None:
    """--filter and --rename."""
    parser.add_argument(
        "--filter",
        choices=("tutorial",),
        help="tutorial: drop faces that are invalid, blurred or under 50 px, as the Vision Kit's tutorial did",
    )
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="rename a class (may be repeated)"
    )


def read_source(args: argparse.Namespace) -> Dataset:
    """Read the data set and apply the changes.

    Raises:
        DataError, UsageError: as `data.read_dataset` and `data.filters`, or --rename is malformed.
    """
    from mirilla.console import progress
    from mirilla.data import filters, read_dataset

    with progress("Reading", unit="pictures") as bar:
        dataset = read_dataset(args.source, format=args.from_format, split=args.split, advance=bar.advance)
    if names := dict(map(_old_and_new, getattr(args, "rename", []))):
        dataset = filters.rename(dataset, names)
    if name := getattr(args, "filter", None):
        dataset = filters.named(name)(dataset)
    return dataset


def print_findings(findings: Sequence[Finding], most: int = _MAX_LISTED) -> None:
    """Print findings, a line each, and how many more there are."""
    from mirilla.console import echo

    for finding in findings[:most]:
        echo(f"  {finding}")
    if len(findings) > most:
        echo(f"  ... and {len(findings) - most} more.")


def _old_and_new(pair: str) -> tuple[str, str]:
    from mirilla.errors import UsageError

    old, _, new = pair.partition("=")
    if not (old and new):
        raise UsageError(f"--rename {pair}: it must have the form OLD=NEW.")
    return old, new
