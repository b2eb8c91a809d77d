"""`mirilla data anchors`: how well anchors fit a data set's objects, before and after fitting."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mirilla.cli.arguments import add_options
from mirilla.cli.data.source import add_changes, add_source, read_source
from mirilla.job.options import JobOptions

if TYPE_CHECKING:
    from mirilla.config import Pipeline
    from mirilla.config.anchor_fit import FitReport, Row

HELP = "show how well a network's anchors fit the objects, and fit them"
DESCRIPTION = "Show how well a network's anchors fit a data set's objects, and fit them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_changes(parser)
    parser.add_argument(
        "--pipeline-config", metavar="P", help="pipeline.config of the network (default: that of --model)"
    )
    parser.add_argument(
        "--model", metavar="NAME", help=f"network; 'mirilla zoo' lists them (default: {JobOptions.model})"
    )
    add_options(parser, JobOptions, ("size_px",))
    parser.add_argument("--letterbox", action="store_true", help="scale photos and pad them, to keep their proportions")
    parser.add_argument("--fit", action="store_true", help="fit anchors, and report on these as well")
    parser.add_argument(
        "--write", metavar="FILE", help="fit anchors, and write P with them to FILE (which may be P itself)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report; with --fit or --write also that of the fitted anchors.

    Raises:
        UsageError: options that exclude each other.
        ConfigError: the pipeline has errors.
        DataError: the data set has no object.
    """
    from mirilla import config
    from mirilla.config import anchor_fit
    from mirilla.config.to_spec import model_spec, write_anchors
    from mirilla.console import echo

    dataset = read_source(args)
    pipeline = _pipeline(args)
    sizes = anchor_fit.training_sizes(dataset.samples, pipeline)
    before = anchor_fit.report(sizes, model_spec(pipeline))
    after = None
    if args.fit or args.write:
        write_anchors(pipeline, anchor_fit.fit_spec(model_spec(pipeline), sizes))
        after = anchor_fit.report(sizes, model_spec(pipeline))
    if args.write:
        config.require(pipeline, ("model",))
        config.save(args.write, pipeline, f"Anchors fitted to {dataset.source}.")
    if args.json:
        echo(json.dumps({"before": asdict(before), "after": after and asdict(after)}, indent=1))
        return 0
    for note in dataset.notes:
        echo(note)
    spec = model_spec(pipeline)
    _show(before, "Anchors before fitting", spec.height_px, spec.width_px)
    if after is not None:
        _show(after, "Fitted anchors", spec.height_px, spec.width_px)
        echo(
            f"IoU >= 0.5: {before.overall.reached:.1%} -> {after.overall.reached:.1%} of the objects; "
            f"mean best IoU {before.overall.mean_iou:.3f} -> {after.overall.mean_iou:.3f}"
        )
    if args.write:
        echo(f"Wrote {args.write}")
    return 0


def _pipeline(args: argparse.Namespace) -> Pipeline:
    from mirilla import config
    from mirilla.config import zoo
    from mirilla.errors import UsageError

    if args.pipeline_config:
        if args.model or args.letterbox:
            raise UsageError("--pipeline-config describes the network completely.", "Omit --model and --letterbox.")
        pipeline = config.load(args.pipeline_config)
        config.require(pipeline, ("model",), args.pipeline_config)
        return pipeline
    if args.write:
        raise UsageError("--write needs a pipeline.config to write the anchors into.", "Give --pipeline-config P.")
    side = args.size_px
    pipeline = config.sample(1, "", "", "", height=side, width=side, keep_aspect_ratio=args.letterbox)
    zoo.apply(args.model or JobOptions.model, pipeline)
    config.require(pipeline, ("model",))
    return pipeline


def _show(report: FitReport, title: str, height_px: int, width_px: int) -> None:
    from mirilla.console import print_table

    columns = ("objects of", "count", "share", "IoU >= 0.5", "mean best IoU")
    print_table(
        f"{title}: objects by size in the input, sqrt(w h)",
        columns,
        [_cells(row) for row in (*report.by_size, report.overall)],
    )
    rows = []
    for row, boxes, stride in zip(report.by_map, report.boxes, report.strides_px, strict=True):
        sides = ", ".join(f"{h * height_px:.0f}x{w * width_px:.0f}" for h, w in boxes)
        rows.append(
            (
                row.name.partition(" ")[0],
                f"{stride:g}",
                sides,
                f"{row.share_of_objects:.1%}",
                _figure(row.reached, ".1%"),
                _figure(row.mean_iou, ".3f"),
            )
        )
    print_table(
        f"{title}: by feature map",
        ("map", "stride, px", "anchors, height x width in px", "best for", "IoU >= 0.5 there", "mean IoU there"),
        rows,
    )


def _cells(row: Row) -> tuple[object, ...]:
    return (
        row.name,
        row.objects,
        f"{row.share_of_objects:.1%}",
        _figure(row.reached, ".1%"),
        _figure(row.mean_iou, ".3f"),
    )


def _figure(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)
