"""mirilla zoo: the named models, and what they cost."""

from __future__ import annotations

import argparse
import json

from mirilla.cli.arguments import add_options
from mirilla.job.options import JobOptions

NAME = "zoo"
HELP = "list the named models: parameters, multiplications, memory on the bonnet, accuracy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "'mirilla run DATASET --model NAME' trains one."
    add_options(parser, JobOptions, ("size_px",))
    parser.add_argument("--classes", type=int, default=1, metavar="N", help="number of classes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        ConfigError: no network can be built for that size or number of classes.
    """
    from mirilla import config
    from mirilla.bonnet.format import ARENA_BYTES
    from mirilla.config import zoo
    from mirilla.config.to_spec import model_spec
    from mirilla.console import echo, print_table, progress
    from mirilla.doctor.cost import cost
    from mirilla.doctor.rules import VERDICTS

    found = []
    with progress("Compiling", len(zoo.names()), "models") as bar:
        for name in zoo.names():
            pipeline = config.sample(args.classes, "train", "eval", "labels", height=args.size_px, width=args.size_px)
            zoo.apply(name, pipeline)
            config.require(pipeline, ("model",))
            found.append((zoo.find(name), cost(model_spec(pipeline))))
            bar.advance()
    if args.json:
        echo(json.dumps([_plain(one, price, zoo.ACCURACY.get(one.name, {})) for one, price in found], indent=1))
        return 0
    rows = [
        (
            one.name,
            f"{price.parameters:,}",
            f"{price.multiplications / 1e6:.1f} M",
            f"{price.anchors:,}",
            "-" if price.peak_bytes is None else f"{price.peak_bytes:,}",
            "-" if price.file_bytes is None else f"{price.file_bytes:,}",
            "runs" if price.runs else VERDICTS[price.findings[0].severity],
            *(_figure(zoo.ACCURACY.get(one.name, {}).get(column)) for column in zoo.ACCURACY_COLUMNS),
        )
        for one, price in found
    ]
    columns = ("model", "parameters", "MACs", "anchors", "arena, bytes", "file, bytes", "doctor")
    print_table(f"{args.size_px}x{args.size_px} px, {args.classes} class(es)", (*columns, *zoo.ACCURACY_COLUMNS), rows)
    for one, price in found:
        against = "" if price.runs else f" ({VERDICTS[price.findings[0].severity]}: {price.findings[0].what})"
        echo(f"{one.name}: {one.description}{against}")
    echo(
        f"The arena has {ARENA_BYTES:,} bytes. AP is that of equal, short trainings; longer ones reach more: "
        "benchmarks/accuracy.md."
    )
    echo("Train one: mirilla run DATASET --model NAME")
    return 0


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(one, price, accuracy) -> dict:
    from mirilla.doctor.rules import to_json

    return {
        "name": one.name,
        "description": one.description,
        "depth_multiplier": one.depth_multiplier,
        "feature_maps": list(one.feature_maps),
        "anchors_per_location": list(one.counts),
        "parameters": price.parameters,
        "multiplications": price.multiplications,
        "anchors": price.anchors,
        "arena_peak_bytes": price.peak_bytes,
        "arena_peak_op": price.peak_op,
        "file_bytes": price.file_bytes,
        "runs": price.runs,
        "findings": [to_json(finding) for finding in price.findings],
        "accuracy": accuracy,
    }
