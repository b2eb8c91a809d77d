"""`mirilla train`: train the network of a pipeline.config."""

from __future__ import annotations

import argparse
from pathlib import Path

from mirilla.cli.original_flags import add_original_flags

_EVALUATION_FLAGS = (
    "eval_training_data",
    "sample_1_of_n_eval_examples",
    "sample_1_of_n_eval_on_train_examples",
    "run_once",
)
_NO_EVALUATION = "'mirilla train' does not evaluate; 'mirilla tf1 model_main' does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pipeline-config",
        "--pipeline_config_path",
        required=True,
        type=Path,
        metavar="P",
        help="pipeline.config; 'mirilla init' writes one",
    )
    parser.add_argument(
        "--model-dir",
        "--model_dir",
        required=True,
        type=Path,
        metavar="D",
        help="folder for checkpoints and logs; an interrupted training resumes from its last checkpoint",
    )
    parser.add_argument(
        "--num-train-steps",
        "--num_train_steps",
        type=int,
        metavar="N",
        help="train until step N (default: train_config.num_steps)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps or auto (default: auto)")
    parser.add_argument(
        "--precision",
        metavar="KIND",
        help="arithmetic of matrix products on a GPU: float32, tf32 or bfloat16 (default: mirilla.precision)",
    )
    parser.add_argument(
        "--tf-checkpoints",
        "--tf_checkpoints",
        action="store_true",
        help="write every checkpoint as a TensorFlow checkpoint too (model.ckpt-STEP.index, .data-00000-of-00001)",
    )
    add_original_flags(parser, "model_main", dict.fromkeys(_EVALUATION_FLAGS, _NO_EVALUATION))


def run(args: argparse.Namespace) -> int:
    from mirilla import config, console
    from mirilla.cli.extras import need_torch
    from mirilla.errors import UsageError

    need_torch("mirilla train")
    from mirilla.training.trainer import train

    if args.num_train_steps is not None and args.num_train_steps < 1:
        raise UsageError(f"--num-train-steps {args.num_train_steps}: it must be at least 1.")
    result = train(
        config.load(args.pipeline_config),
        args.model_dir,
        num_steps=args.num_train_steps,
        device=args.device,
        config_path=args.pipeline_config,
        precision=args.precision,
        tf_checkpoints=args.tf_checkpoints,
    )
    if not result.is_main:
        return 0
    if result.seconds:
        console.echo(f"made {result.checkpoint} ({result.images_per_s:.0f} images/s)")
    console.echo(f"next: mirilla eval --pipeline-config {args.pipeline_config} --model-dir {args.model_dir}")
    console.echo(
        f"      mirilla export --pipeline-config {args.pipeline_config} --model-dir {args.model_dir} --out exported"
    )
    return 0
