"""`mirilla export`: write a checkpoint as a frozen graph with its model.json, or a model for other runtimes (--to)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mirilla.cli.original_flags import add_original_flags
from mirilla.targets.names import EXAMPLE, TARGETS, TOLERANCE

if TYPE_CHECKING:
    from mirilla.targets.target import Target

ONNX = "onnx"  # the target that --nms changes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="with --to: a frozen graph, an export or training folder, the folder of a run, or 'shipped'",
    )
    parser.add_argument(
        "--to",
        metavar="TARGET[,TARGET...]",
        help=f"files for other runtimes, a folder each: {', '.join(TARGETS)}, or all",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATASET",
        help="with --to: labelled photos that choose the ranges of integers and measure each file "
        "(default: those of the run; else drawn ones)",
    )
    parser.add_argument(
        "--nms",
        action="store_true",
        help="with --to onnx: put NMS into the file, which then takes one picture (not for OpenCV)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="AP",
        help="with --to: the AP that a file may lose (default: %(default)s)",
    )
    parser.add_argument(
        "--pipeline-config",
        "--pipeline_config_path",
        metavar="P",
        help="pipeline.config of the training (default: the one in --model-dir)",
    )
    parser.add_argument(
        "--checkpoint",
        "--trained_checkpoint_prefix",
        metavar="C",
        help="a checkpoint's file or prefix (train/model.ckpt-20000), of Mirilla or of TensorFlow, or exported weights",
    )
    parser.add_argument("--model-dir", metavar="D", help="training folder; its newest checkpoint is exported")
    parser.add_argument(
        "--out", "--output_directory", metavar="DIR", help="folder to write (with --to, by default: exports)"
    )
    parser.add_argument("--label-map", metavar="L", help="label map (default: that of pipeline.config)")
    parser.add_argument("--name", help="name of the model (default: the name of DIR)")
    parser.add_argument("--licence", help="licence of the weights, such as Apache-2.0, for model.json")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="T",
        help="minimum score of detections worth showing, for model.json (default: 0.5)",
    )
    parser.add_argument(
        "--input-type",
        "--input_type",
        default="image_tensor",
        metavar="TYPE",
        help="what the graph takes: image_tensor (pixels), encoded_image_string_tensor (JPEG or PNG files) or "
        "tf_example (tf.train.Examples with image/encoded) (default: image_tensor)",
    )
    parser.add_argument(
        "--input-shape",
        "--input_shape",
        metavar="N,H,W,3",
        help="shape of image_tensor; -1 is any size (default: -1,-1,-1,3)",
    )
    parser.add_argument(
        "--config-override",
        "--config_override",
        default="",
        metavar="TEXT",
        help="fields that replace those of pipeline.config, in its form: 'model { ssd { num_classes: 2 } }'",
    )
    parser.add_argument(
        "--write-inference-graph",
        "--write_inference_graph",
        action="store_true",
        help="also write inference_graph.pbtxt, the graph with variables, in text form",
    )
    add_original_flags(parser, "export_inference_graph", {})


def run(args: argparse.Namespace) -> int:
    from mirilla.errors import UsageError

    if args.to is not None:
        return _export_targets(args)
    if args.model is not None:
        raise UsageError("MODEL is for --to.", f"mirilla export {args.model} --to onnx")
    if args.out is None:
        raise UsageError("--out is missing: the folder to write.", "mirilla export --model-dir train --out export")
    return _export_checkpoint(args)


def _export_targets(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mirilla.console import echo
    from mirilla.detect.models import read_source
    from mirilla.errors import UsageError
    from mirilla.exports import pictures, write
    from mirilla.targets.table import chosen

    if args.model is None:
        raise UsageError("--to needs a model.", f"mirilla export shipped --to {args.to}")
    targets = chosen(args.to, echo)
    if args.nms:
        if ONNX not in {target.name for target in targets}:
            raise UsageError(
                f"--nms is for --to {ONNX}; the other targets have a form of their own.",
                f"mirilla export {args.model} --to {ONNX} --nms",
            )
        targets = [_with_nms(target) if target.name == ONNX else target for target in targets]
    source, notes = read_source(Path(args.model))
    for note in notes:
        echo(note)
    with pictures.found(args.calibrate, Path(args.model)) as used:
        echo(f"Pictures: {used.name}, {len(used.calibration)} for ranges, {len(used.measured)} to compare")
        if used.left_out:
            echo(used.left_out)
        out = Path(args.out or "exports")
        written = write.export(source, targets, out, pictures=used, tolerance=args.tolerance, log=echo)
    for one in written:
        echo(f"{one.folder}")
        for name, size in one.files.items():
            echo(f"  {name}  {size:,} bytes")
    echo(f"Next: {EXAMPLE} in each folder shows how to run its file.")
    return 0


def _with_nms(target: Target) -> Target:
    from dataclasses import replace

    from mirilla.targets.onnx_file import build_with_nms

    return replace(target, build=build_with_nms)


def _export_checkpoint(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mirilla import config, console
    from mirilla.config.to_spec import model_spec
    from mirilla.errors import UsageError
    from mirilla.labels import load_label_map
    from mirilla.targets.preprocessor_graph import input_type
    from mirilla.weights import load as weights
    from mirilla.weights.export import export_model
    from mirilla.weights.training_folder import PIPELINE, load_labels

    if (args.checkpoint is None) == (args.model_dir is None):
        raise UsageError("Give either --checkpoint or --model-dir.", "mirilla export --model-dir train --out export")
    if args.pipeline_config is None and args.model_dir is None:
        raise UsageError("--checkpoint needs --pipeline-config, which describes its network.")
    if not 0 <= args.threshold <= 1:
        raise UsageError(f"--threshold {args.threshold}: it must lie between 0 and 1.")
    source = input_type(args.input_type, args.input_shape)
    pipeline_path = Path(args.pipeline_config or Path(args.model_dir) / PIPELINE)
    pipeline = config.load(pipeline_path)
    pipeline.MergeFrom(config.loads(args.config_override, "--config_override"))
    config.require(pipeline)
    spec = model_spec(pipeline)
    averages = pipeline.eval_config.use_moving_averages
    if args.checkpoint:
        found = weights.load_weights(args.checkpoint, averages)
    else:
        found = weights.load_newest_weights(args.model_dir, averages)
    if args.label_map:
        labels = load_label_map(args.label_map)
    else:
        labels = load_labels(pipeline, pipeline_path.parent, spec.num_classes)
    exported = export_model(
        spec,
        found.variables,
        labels,
        args.out,
        source=source,
        step=found.step,
        pipeline=pipeline,
        name=args.name,
        licence=args.licence,
        threshold=args.threshold,
        training={"checkpoint": found.path.name, "steps": found.step, "averaged": found.averaged},
        write_inference_graph=args.write_inference_graph,
    )
    step = "" if found.step is None else f" of step {found.step}"
    console.echo(f"{found.path}{step}{' (moving averages)' if found.averaged else ''} -> {exported.folder}")
    for path in exported.files:
        console.echo(f"  {path.relative_to(exported.folder)}  {path.stat().st_size:,} bytes")
    return 0
