"""`mirilla eval`: measure a model or a file of predictions on labelled photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mirilla.cli.original_flags import add_original_flags

if TYPE_CHECKING:
    from mirilla.evaluation.interface import Result
    from mirilla.job.measure import MeasureOptions

EXAMPLE = """examples:
  mirilla eval export/frozen_inference_graph.pb photos/ --split eval --out figures
  mirilla eval export WIDER/ --split eval --metrics widerface --ground-truth eval_tools/ground_truth
  mirilla eval --pipeline-config run/pipeline.config --model-dir run/model
  mirilla eval --predictions my_detector.tar.gz --ground-truth eval_tools/ground_truth --metrics widerface

Metrics: faces or objects (the same: AP at IoU .5 over all objects of one class, those of at least 16 px and those of at
least 24 px, with the photo's long side scaled to 256 px), coco, pascal, widerface. Default: faces (or objects, by the
class's name) for a model with one class, else coco; with --pipeline-config, its eval_config.metrics_set.
docs/evaluation.md explains them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a frozen graph, a compiled model, or a folder with one or with checkpoints",
    )
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="labelled photos in any format Mirilla reads")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        choices=("faces", "objects", "coco", "pascal", "widerface"),
        default=[],
        help="one or more of faces, objects, coco, pascal, widerface",
    )
    parser.add_argument(
        "--split", metavar="PART", help="only this part of the data set's own split: train, eval or test"
    )
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of the data set (default: recognised)")
    parser.add_argument("--label-map", metavar="FILE", help="label map of the model (default: its own)")
    parser.add_argument(
        "--one-class",
        action="store_true",
        help="count every labelled box as the model's first class, whatever its name",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="leave out detections with a lower score (default: the model's own, which is very low: AP needs them)",
    )
    parser.add_argument(
        "--pipeline-config",
        "--pipeline_config_path",
        metavar="FILE",
        help="evaluate on the data of its eval_input_reader",
    )
    parser.add_argument(
        "--model-dir",
        "--checkpoint-dir",
        "--checkpoint_dir",
        metavar="DIR",
        help="training folder; its newest checkpoint is measured",
    )
    parser.add_argument(
        "--predictions",
        metavar="PATH",
        help="predictions in WIDER FACE's text form (folder or .tar.gz), instead of a model",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        help="folder with WIDER FACE's wider_face_val.mat and wider_{easy,medium,hard}_val.mat",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="write metrics.json, precision-recall curves, and for widerface the predictions",
    )
    parser.add_argument("--json", action="store_true", help="print only the figures, as JSON")
    add_original_flags(parser, "eval", {"run_once": "'mirilla eval' always evaluates once"})


def run(args: argparse.Namespace) -> int:
    from mirilla.cli.extras import need

    if args.out:
        need("matplotlib", "matplotlib", "eval", "Drawing precision-recall curves (--out)")
    results = _measure(args)
    _print_and_save(args, results)
    return 0


def _measure(args: argparse.Namespace) -> list[Result]:
    from mirilla.errors import UsageError

    if "widerface" in args.metrics and not args.ground_truth:
        raise UsageError(
            "The metric 'widerface' needs the benchmark's ground truth.",
            "Give the folder with its .mat files with --ground-truth.",
        )
    if args.predictions:
        return _from_predictions(args)
    if args.pipeline_config or args.model_dir:
        return _from_pipeline(args)
    return _from_model(args)


def _from_predictions(args: argparse.Namespace) -> list[Result]:
    from mirilla.errors import UsageError

    if args.model or args.dataset or args.pipeline_config or args.model_dir:
        raise UsageError("--predictions replaces the model and the data set.", "Give one or the other.")
    if set(args.metrics) - {"widerface"} or not args.ground_truth:
        raise UsageError(
            "--predictions need --ground-truth and can be measured by the metric 'widerface' only.",
            "mirilla eval --predictions PATH --ground-truth DIR --metrics widerface",
        )
    from mirilla.job.measure import measure_predictions

    return [measure_predictions(Path(args.predictions), Path(args.ground_truth))]


def _from_model(args: argparse.Namespace) -> list[Result]:
    from mirilla.errors import UsageError

    if not args.model or not args.dataset:
        raise UsageError(
            "A MODEL and a DATASET are needed (or --pipeline-config with --model-dir, or --predictions).",
            "mirilla eval MODEL DATASET",
        )
    from mirilla.job.measure import measure_model

    return measure_model(args.model, args.dataset, _options(args), format=args.format, split=args.split)


def _from_pipeline(args: argparse.Namespace) -> list[Result]:
    from mirilla.errors import UsageError

    if not args.pipeline_config or not args.model_dir or args.model:
        raise UsageError(
            "--pipeline-config and --model-dir must be given together, without MODEL and DATASET.",
            "mirilla eval --pipeline-config FILE --model-dir DIR",
        )
    from mirilla.job.measure import measure_checkpoint

    return measure_checkpoint(Path(args.pipeline_config), args.model_dir, _options(args))


def _options(args: argparse.Namespace) -> MeasureOptions:
    from mirilla.job.measure import MeasureOptions

    return MeasureOptions(
        tuple(args.metrics),
        Path(args.label_map) if args.label_map else None,
        args.one_class,
        args.score_threshold,
        Path(args.ground_truth) if args.ground_truth else None,
        Path(args.out) / "widerface_predictions" if args.out else None,
    )


def _print_and_save(args: argparse.Namespace, results: list[Result]) -> None:
    import json

    from mirilla.console import echo, print_table
    from mirilla.evaluation.measure import save_results

    files = save_results(args.out, results) if args.out else []
    if args.json:
        echo(json.dumps([result.as_json() for result in results], indent=2))
        return
    for result in results:
        print_table(result.metric, ("figure", "value"), [(figure.name, str(figure)) for figure in result.figures])
        echo(f"({result.protocol_text})")
        echo()
    for file in files:
        echo(f"wrote {file}")
