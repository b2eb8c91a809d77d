"""`mirilla data check`: everything that is wrong with a data set."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirilla.cli.data.source import add_source, read_source

if TYPE_CHECKING:
    from mirilla.findings import Finding

HELP = "list everything that is wrong"
DESCRIPTION = "List everything that is wrong with a data set. The exit code is 1 if there are errors."


@dataclass(frozen=True)
class _Checked:
    """The data set in numbers, and the findings."""

    format: str | None
    pictures: int
    boxes: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    findings: list[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--label-map", metavar="P", help="a label that is not in this label_map.pbtxt is an error")
    parser.add_argument("--quick", action="store_true", help="read only the pictures' headers; decode no picture")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo, print_table

    checked = _check(args)
    counts = Counter(finding.severity for finding in checked.findings)
    exit_code = 1 if counts["error"] else 0
    if args.json:
        content = {
            "source": args.source,
            "format": checked.format,
            "pictures": checked.pictures,
            "boxes": checked.boxes,
            "labels": checked.labels,
            "counts": counts,
            "findings": [_plain(finding) for finding in checked.findings],
        }
        echo(json.dumps(content, indent=1, ensure_ascii=False))
        return exit_code
    for line in (*checked.notes, *map(str, checked.findings)):
        echo(line)
    if checked.findings:
        kinds = Counter((finding.severity, finding.code) for finding in checked.findings)
        print_table("Findings", ("severity", "kind", "count"), [(*kind, count) for kind, count in kinds.items()])
    echo(
        f"{checked.pictures} usable pictures, {checked.boxes} boxes, {len(checked.labels)} labels: "
        f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes."
    )
    return exit_code


def _check(args: argparse.Namespace) -> _Checked:
    """Read and check; a data set without a usable picture gives the reasons as findings."""
    from mirilla.console import progress
    from mirilla.data.check import check
    from mirilla.data.dataset import EmptyDatasetError
    from mirilla.labels import load_label_map

    names = load_label_map(args.label_map).names if args.label_map else None
    try:
        dataset = read_source(args)
    except EmptyDatasetError as error:
        if not error.problems:
            raise
        return _Checked(args.from_format, 0, 0, (), (), list(error.problems))
    with progress("Checking", len(dataset), "pictures") as bar:
        findings = check(dataset, labels=names, decode=not args.quick, advance=bar.advance)
    return _Checked(dataset.format, len(dataset), dataset.boxes, dataset.labels, dataset.notes, list(findings))


def _plain(finding: Finding) -> dict[str, str]:
    """A finding as `--json` prints it."""
    return {
        "severity": finding.severity,
        "code": finding.code,
        "where": finding.where,
        "text": finding.what,
        "remedy": finding.remedy,
    }
