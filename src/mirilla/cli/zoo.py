"""`mirilla zoo`: the named models, and what they cost."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mirilla.cli.arguments import add_options
from mirilla.job.options import JobOptions

if TYPE_CHECKING:
    from mirilla.config.zoo import ZooModel
    from mirilla.doctor.cost import Cost


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
    from mirilla.bonnet.format import ARENA_BYTES
    from mirilla.config import zoo
    from mirilla.console import echo, print_table
    from mirilla.doctor.rules import VERDICTS

    models = _costs(args.size_px, args.classes)
    if args.json:
        echo(json.dumps([_plain(model, cost) for model, cost in models], indent=1))
        return 0
    columns = ("model", "parameters", "MACs", "anchors", "arena, bytes", "file, bytes", "doctor")
    title = f"{args.size_px}x{args.size_px} px, {args.classes} class(es)"
    print_table(title, (*columns, *zoo.ACCURACY_COLUMNS), [_row(model, cost) for model, cost in models])
    for model, cost in models:
        problem = "" if cost.runs else f" ({VERDICTS[cost.findings[0].severity]}: {cost.findings[0].what})"
        echo(f"{model.name}: {model.description}{problem}")
    echo(
        f"The arena has {ARENA_BYTES:,} bytes. AP is that of short trainings of equal length; longer ones reach more: "
        "benchmarks/accuracy.md."
    )
    echo("Train one: mirilla run DATASET --model NAME")
    return 0


def _costs(size_px: int, classes: int) -> list[tuple[ZooModel, Cost]]:
    """Build and compile every model."""
    from mirilla import config
    from mirilla.config import zoo
    from mirilla.config.to_spec import model_spec
    from mirilla.console import progress
    from mirilla.doctor.cost import cost

    costs = []
    with progress("Compiling", len(zoo.names()), "models") as bar:
        for name in zoo.names():
            pipeline = config.sample(classes, "train", "eval", "labels", height=size_px, width=size_px)
            zoo.apply(name, pipeline)
            config.require(pipeline, ("model",))
            costs.append((zoo.find(name), cost(model_spec(pipeline))))
            bar.advance()
    return costs


def _row(model: ZooModel, cost: Cost) -> tuple[str, ...]:
    from mirilla.config import zoo
    from mirilla.doctor.rules import VERDICTS

    accuracy = zoo.ACCURACY.get(model.name, {})
    return (
        model.name,
        f"{cost.parameters:,}",
        f"{cost.multiplications / 1e6:.1f} M",
        f"{cost.anchors:,}",
        _or_dash(cost.peak_bytes, ","),
        _or_dash(cost.file_bytes, ","),
        "runs" if cost.runs else VERDICTS[cost.findings[0].severity],
        *(_or_dash(accuracy.get(column), ".3f") for column in zoo.ACCURACY_COLUMNS),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plain(model: ZooModel, cost: Cost) -> dict[str, object]:
    from mirilla.config import zoo
    from mirilla.doctor.rules import to_json

    return {
        "name": model.name,
        "description": model.description,
        "depth_multiplier": model.depth_multiplier,
        "feature_maps": list(model.feature_maps),
        "anchors_per_location": list(model.counts),
        "parameters": cost.parameters,
        "multiplications": cost.multiplications,
        "anchors": cost.anchors,
        "arena_peak_bytes": cost.peak_bytes,
        "arena_peak_op": cost.peak_op,
        "file_bytes": cost.file_bytes,
        "runs": cost.runs,
        "findings": [to_json(finding) for finding in cost.findings],
        "accuracy": zoo.ACCURACY.get(model.name, {}),
    }
