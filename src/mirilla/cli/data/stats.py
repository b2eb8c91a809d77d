"""`mirilla data stats`: a data set in numbers."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mirilla.cli.data.source import add_changes, add_source, read_source

if TYPE_CHECKING:
    from mirilla.data.statistics import Statistics

HELP = "count pictures, boxes and sizes"
DESCRIPTION = "Describe a data set in numbers."
_BAR_LENGTH = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_changes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo
    from mirilla.data.statistics import statistics

    dataset = read_source(args)
    counted = statistics(dataset)
    if args.json:
        echo(json.dumps(counted.as_json(), indent=1, ensure_ascii=False))
        return 0
    for note in dataset.notes:
        echo(note)
    _print_counts(counted)
    _print_distributions(counted)
    return 0


def _print_counts(counted: Statistics) -> None:
    from mirilla.console import print_table

    rows = [
        ("format", counted.format),
        ("pictures", counted.pictures),
        ("without a box", counted.pictures_without_boxes),
        ("boxes", counted.boxes),
        ("ignored", counted.ignored),
        ("difficult", counted.difficult),
        ("groups", counted.group_of),
        ("crowds", counted.is_crowd),
        ("without an area", counted.empty_boxes),
    ]
    rows += [(f"pictures in '{part}'", count) for part, count in counted.pictures_per_part.items()]
    rows += [(f"problems: {code}", count) for code, count in counted.problems.items()]
    print_table(counted.name, ("what", "count"), rows)
    print_table(
        "Labels",
        ("label", "boxes", "pictures"),
        [(name, count, counted.pictures_per_label.get(name, 0)) for name, count in counted.boxes_per_label.items()],
    )


def _print_distributions(counted: Statistics) -> None:
    from mirilla.console import print_table

    lines = (
        ("picture width, px", counted.picture_width_px),
        ("picture height, px", counted.picture_height_px),
        ("boxes per picture", counted.boxes_per_picture),
        ("box size at 256 px", counted.box_size_px),
        ("box's longer side, px", counted.box_side_px),
        ("box width / height", counted.box_aspect),
    )
    columns = next((tuple(quantiles) for _, quantiles in lines if quantiles), ())
    print_table(
        "Distributions (without ignored boxes)",
        ("of", *columns),
        [(name, *(round(value, 2) for value in quantiles.values())) for name, quantiles in lines if quantiles],
    )
    most = max((count for *_, count in counted.size_histogram), default=0) or 1
    print_table(
        "Box size: square root of width x height, with the photo's long side scaled to 256 px",
        ("px", "boxes", ""),
        [
            (
                f"{low:g} to {high:g}" if high < 10**6 else f"{low:g} and more",
                count,
                "#" * round(_BAR_LENGTH * count / most),
            )
            for low, high, count in counted.size_histogram
        ],
    )
