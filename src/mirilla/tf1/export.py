"""export_inference_graph.py: write a checkpoint as a frozen graph, with what belongs to it."""

from __future__ import annotations

from pathlib import Path

from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.console import echo
from mirilla.targets.preprocessor_graph import input_type
from mirilla.tf1.flags import Values
from mirilla.weights.export import export_model
from mirilla.weights.load import load_weights
from mirilla.weights.training_folder import load_labels


def export_inference_graph(values: Values) -> int:
    """Run the script.

    Raises:
        UsageError: an unknown input type, or a wrong shape of it.
        MirillaError: see `load_weights` and `export_model`.
    """
    source = input_type(values.text("input_type"), values.text("input_shape") or None)
    path = Path(values.text("pipeline_config_path"))
    pipeline = config.load(path)
    if override := values.text("config_override"):
        pipeline.MergeFrom(config.loads(override, "--config_override"))
    config.require(pipeline)
    spec = model_spec(pipeline)
    weights = load_weights(values.text("trained_checkpoint_prefix"), pipeline.eval_config.use_moving_averages)
    exported = export_model(
        spec,
        weights.variables,
        load_labels(pipeline, path.parent, spec.num_classes),
        values.text("output_directory"),
        source=source,
        step=weights.step,
        pipeline=pipeline,
        training={"checkpoint": weights.path.name, "steps": weights.step, "averaged": weights.averaged},
        write_inference_graph=values.switch("write_inference_graph"),
    )
    echo(f"{weights.path}{' (moving averages)' if weights.averaged else ''} -> {exported.folder}")
    for file in exported.files:
        echo(f"  {file.relative_to(exported.folder)}  {file.stat().st_size:,} bytes")
    return 0
