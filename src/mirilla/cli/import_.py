"""`mirilla import`: turn an old checkpoint or frozen graph into a training folder with an export."""

from __future__ import annotations

import argparse

EXAMPLE = """examples:
  mirilla import model.ckpt-200000 --pipeline-config pipeline.config --out face
  mirilla import frozen_inference_graph.pb --pipeline-config pipeline.config --out face
  mirilla train --pipeline-config face/pipeline.config --model-dir face --num-train-steps 210000

A TensorFlow checkpoint is named by its prefix (without .index or .data-...). docs/old-checkpoints.md describes the
conversion."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint's prefix or file, a frozen graph (.pb), .safetensors or .npz",
    )
    parser.add_argument(
        "--pipeline-config",
        "--pipeline_config_path",
        required=True,
        metavar="P",
        help="pipeline.config of its training",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="training folder to write")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="export the raw weights instead of the moving averages (default: by eval_config.use_moving_averages)",
    )
    parser.add_argument("--label-map", metavar="L", help="label map (default: that of pipeline.config)")
    parser.add_argument("--name", help="name of the model (default: the name of DIR)")
    parser.add_argument("--licence", help="licence of the weights, such as Apache-2.0, for model.json")


def run(args: argparse.Namespace) -> int:
    import shlex
    from pathlib import Path

    from mirilla import config, console
    from mirilla.config.to_spec import model_spec
    from mirilla.labels import load_label_map
    from mirilla.weights.importing import EXPORT, import_checkpoint
    from mirilla.weights.training_folder import load_labels

    path, out = Path(args.pipeline_config), Path(args.out)
    pipeline = config.load(path)
    config.require(pipeline, ("model",), path)
    if args.label_map:
        labels = load_label_map(args.label_map)
    else:
        labels = load_labels(pipeline, path.parent, model_spec(pipeline).num_classes)
    made = import_checkpoint(
        Path(args.checkpoint), pipeline, labels, out, raw=args.raw, name=args.name, licence=args.licence
    )
    for note in made.notes:
        console.warn(note)
    kind = "moving averages" if made.averaged else "plain weights"
    slots = f", {made.slots} slots of every trained variable" if made.slots else ", no optimiser slots"
    console.echo(f"{args.checkpoint} -> {made.checkpoint} (step {made.step}{slots})")
    console.echo(f"exported the {kind} to {made.exported.folder} (classes: {', '.join(labels.names)})")
    if made.difference is not None:
        console.echo(f"the old graph's outputs and the new one's differ by at most {made.difference:.2g}")
    folder = shlex.quote(str(out))
    console.echo(
        f"next: mirilla eval {folder} DATASET, mirilla compile {shlex.quote(str(out / EXPORT))}/"
        "frozen_inference_graph.pb,"
    )
    console.echo(
        f"      mirilla train --pipeline-config {shlex.quote(str(out / 'pipeline.config'))} "
        f"--model-dir {folder} --num-train-steps {made.step + 1000}"
    )
    return 0
