"""`mirilla eval`: measure a model, or a file of predictions, on labelled photos."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "eval"
HELP = "measure a model or a file of predictions on a data set"

EXAMPLE = """examples:
  mirilla eval export/frozen_inference_graph.pb photos/ --split eval --out figures
  mirilla eval export WIDER/ --split eval --metrics widerface --ground-truth eval_tools/ground_truth
  mirilla eval --pipeline-config run/pipeline.config --model-dir run/model
  mirilla eval --predictions my_detector.tar.gz --ground-truth eval_tools/ground_truth --metrics widerface

Metrics: faces (AP at IoU .5 over all faces, those of at least 16 px and those of at least 24 px at a long
side of 256), coco, pascal, widerface. Without --metrics: faces for a model of one class, else coco; with
a pipeline.config, its own. docs/evaluation.md explains each."""

# eval_config.metrics_set -> metric
_API_METRICS = {
    "coco_detection_metrics": "coco",
    "pascal_voc_detection_metrics": "pascal",
    "weighted_pascal_voc_detection_metrics": "pascal",
    "pascal_voc_metrics": "pascal",
}


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
        choices=("faces", "coco", "pascal", "widerface"),
        default=[],
        help="one or several of faces, coco, pascal, widerface",
    )
    parser.add_argument("--split", metavar="PART", help="train, eval or test: that part of the data set's own split")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="the data set's format (default: recognised)")
    parser.add_argument("--label-map", metavar="FILE", help="label map of the model (default: its own)")
    parser.add_argument(
        "--one-class",
        action="store_true",
        help="count every labelled box as the model's first class, whatever it is called",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="leave out weaker detections (default: the model's own, very low; AP needs weak ones)",
    )
    parser.add_argument("--pipeline-config", metavar="FILE", help="evaluate as its eval_input_reader says")
    parser.add_argument(
        "--model-dir",
        "--checkpoint-dir",
        metavar="DIR",
        help="training folder: its newest checkpoint is measured",
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
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")


def run(args: argparse.Namespace) -> int | None:
    from mirilla.cli.extras import need
    from mirilla.errors import UsageError

    if args.out:
        need("matplotlib", "matplotlib", "eval", "Drawing precision-recall curves (--out)")
    if "widerface" in args.metrics and not args.ground_truth:
        raise UsageError(
            "The metric 'widerface' needs the benchmark's ground truth.",
            "Give --ground-truth the folder with its .mat files.",
        )
    if args.predictions:
        results = _from_predictions(args)
    elif args.pipeline_config or args.model_dir:
        results = _from_pipeline(args)
    else:
        results = _from_model(args)
    _show(args, results)
    return 0


def _from_predictions(args: argparse.Namespace) -> list:
    from mirilla.errors import UsageError
    from mirilla.evaluation.widerface import WiderFace
    from mirilla.evaluation.widerface_files import read_predictions

    if args.model or args.dataset or args.pipeline_config or args.model_dir:
        raise UsageError("--predictions takes the place of a model and a data set.", "Give one or the other.")
    if set(args.metrics) - {"widerface"} or not args.ground_truth:
        raise UsageError(
            "--predictions are measured by the metric 'widerface', against --ground-truth.",
            "mirilla eval --predictions PATH --ground-truth DIR --metrics widerface",
        )
    truth = WiderFace.load(args.ground_truth)
    result = truth.evaluate_predictions(read_predictions(args.predictions), source=args.predictions)
    return [result.with_protocol({"predictions": Path(args.predictions).name})]


def _from_model(args: argparse.Namespace) -> list:
    from mirilla.errors import UsageError

    if not args.model or not args.dataset:
        raise UsageError(
            "A MODEL and a DATASET are needed (or --pipeline-config with --model-dir, or --predictions).",
            "mirilla eval MODEL DATASET",
        )
    from mirilla.data import read_dataset

    detector, labels = _detector(args, args.model)
    dataset = read_dataset(args.dataset, format=args.format, split=args.split)
    return _measure(args, detector, labels, dataset, args.metrics, args.model, f"{args.dataset}")


def _from_pipeline(args: argparse.Namespace) -> list:
    from mirilla import config
    from mirilla.console import warn
    from mirilla.data import combine, read_dataset
    from mirilla.errors import UsageError

    if not args.pipeline_config or not args.model_dir or args.model:
        raise UsageError(
            "--pipeline-config and --model-dir go together, without MODEL and DATASET.",
            "mirilla eval --pipeline-config FILE --model-dir DIR",
        )
    pipeline = config.load(args.pipeline_config)
    reader = pipeline.eval_input_reader
    paths = list(reader.tf_record_input_reader.input_path)
    if not paths:
        raise UsageError(
            f"{args.pipeline_config}: its eval_input_reader names no file.",
            "Set eval_input_reader.tf_record_input_reader.input_path.",
        )
    args.label_map = args.label_map or reader.label_map_path or None
    detector, labels = _detector(args, args.model_dir, pipeline.eval_config.use_moving_averages)
    dataset = combine([read_dataset(path, format="tfrecord") for path in paths])
    if reader.sample_1_of_n_examples > 1:
        dataset = dataset.with_samples(dataset.samples[:: reader.sample_1_of_n_examples])
    metrics = list(args.metrics)
    if not metrics:
        for name in pipeline.eval_config.metrics_set:
            if name not in _API_METRICS:
                warn(f"{args.pipeline_config}: the metric '{name}' of eval_config is not one of Mirilla's.")
            elif _API_METRICS[name] not in metrics:
                metrics.append(_API_METRICS[name])
    return _measure(args, detector, labels, dataset, metrics, args.model_dir, ", ".join(paths))


def _detector(args: argparse.Namespace, path: str, averages: bool | None = None):
    """The detector and the label map of its classes."""
    from mirilla.console import warn
    from mirilla.detect.detector import Detector
    from mirilla.labels import load_label_map

    detector = Detector.load(path, threshold=args.score_threshold, averages=averages)
    for note in detector.notes:
        warn(note)
    return detector, load_label_map(args.label_map) if args.label_map else detector.card.labels


def _measure(args: argparse.Namespace, detector, labels, dataset, metrics, model: str, data: str) -> list:
    import numpy as np

    from mirilla.console import progress, warn
    from mirilla.evaluation.interface import GroundTruth
    from mirilla.evaluation.measure import default_metrics, detect_all, measure, prepare
    from mirilla.evaluation.widerface import WiderFace, picture_name, rows_of
    from mirilla.evaluation.widerface_files import write_predictions

    for finding in dataset.problems[:5]:
        warn(str(finding))
    if len(dataset.problems) > 5:
        warn(f"{len(dataset.problems) - 5} more findings; 'mirilla data check {args.dataset or data}' lists them.")
    metrics = list(metrics) or list(default_metrics(labels))
    plain = [m for m in metrics if m != "widerface"]
    prepare(dataset.samples, labels, plain, one_class=args.one_class)
    truth = WiderFace.load(args.ground_truth) if "widerface" in metrics else None
    with progress("detecting", len(dataset.samples), "photos") as bar:
        found = detect_all(detector, dataset.samples, progress=bar)
    protocol = {"model": model, "detector": detector.protocol, "data set": data + _part(args)}
    results = []
    if plain:
        results = measure(found, dataset.samples, labels, plain, protocol=protocol, one_class=args.one_class)
    if truth is not None:
        none = np.zeros((0, 4)), np.zeros(0, np.int64)
        frames = [GroundTruth(s.filename, s.height_px, s.width_px, *none) for s in dataset.samples]
        results.append(truth.evaluate(frames, found).with_protocol(protocol))
        if args.out:
            rows = {
                picture_name(s.filename): rows_of(d, s.height_px, s.width_px)
                for s, d in zip(dataset.samples, found, strict=True)
            }
            write_predictions(Path(args.out) / "widerface_predictions", rows)
    return results


def _show(args: argparse.Namespace, results: list) -> None:
    import json

    from mirilla.console import echo, print_table
    from mirilla.evaluation.measure import save_results

    files = save_results(args.out, results) if args.out else []
    if args.json:
        echo(json.dumps([r.as_json() for r in results], indent=2))
        return
    for result in results:
        print_table(result.metric, ["figure", "value"], [[f.name, str(f)] for f in result.figures])
        echo(f"({result.protocol_text})")
        echo()
    for file in files:
        echo(f"wrote {file}")


def _part(args: argparse.Namespace) -> str:
    return f" (part {args.split})" if args.split else ""
