"""model_main.py: train, and evaluate after checkpoints; or only evaluate the checkpoints of a folder."""

from __future__ import annotations

import time
from pathlib import Path

from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.console import echo
from mirilla.errors import UsageError
from mirilla.job.training import require_training
from mirilla.targets import frozen_graph, saved_model
from mirilla.targets.preprocessor_graph import EXAMPLE, InputType
from mirilla.tf1.evaluation import Evaluation, EvaluationOptions, Throttle, follow
from mirilla.tf1.flags import Values
from mirilla.weights.export import save_saved_model
from mirilla.weights.load import load_weights


def model_main(values: Values) -> int:
    """Run the script.

    Raises:
        UsageError: a flag's value is not possible.
        MirillaError: see `training.trainer.train` and `Evaluation`.
    """
    path = Path(values.text("pipeline_config_path"))
    model_dir = Path(values.text("model_dir"))
    steps = values.number("num_train_steps")
    if steps is not None and steps < 1:
        raise UsageError(f"--num_train_steps={steps}: it must be at least 1.")
    pipeline = config.load(path)
    if not loads_pretrained(values.text("hparams_overrides")):
        pipeline.train_config.ClearField("fine_tune_checkpoint")
    if values.text("checkpoint_dir"):
        _evaluate(values, pipeline, path, model_dir)
    else:
        _train(values, pipeline, path, model_dir, steps)
    return 0


def _train(values: Values, pipeline: config.Pipeline, path: Path, model_dir: Path, steps: int | None) -> None:
    for name in ("eval_training_data", "run_once"):
        if values.switch(name):
            echo(f"note: --{name} is ignored: it needs --checkpoint_dir.")
    require_training()
    from mirilla.training.trainer import train

    config.require(pipeline, ("model", "train"), path)
    options = EvaluationOptions(one_of=values.number("sample_1_of_n_eval_examples") or 1)
    evaluation = Evaluation.open(pipeline, path, model_dir / "eval_0", options)
    result = train(
        pipeline,
        model_dir,
        num_steps=steps,
        config_path=path,
        tf_checkpoints=values.switch("tf_checkpoints"),
        on_checkpoint=Throttle(evaluation.run),
    )
    folder = _export_servo(pipeline, path, result.checkpoint, model_dir) if result.is_main else None
    if folder is not None:
        echo(f"exported {folder}")


def _export_servo(pipeline: config.Pipeline, path: Path, checkpoint: Path, model_dir: Path) -> Path:
    """Write the saved model that the original's exporter wrote after training; returns its folder.

    It takes serialised tf.train.Examples. The folder's name is the time in seconds, as in the original.
    """
    weights = load_weights(checkpoint, pipeline.eval_config.use_moving_averages)
    spec = model_spec(pipeline)
    graph = frozen_graph.build(spec, weights.variables, InputType(EXAMPLE))
    folder = model_dir / "export" / "Servo" / str(int(time.time()))
    if not folder.exists():
        save_saved_model(folder, saved_model.build(graph, spec, "serialized_example", ("serving_default", "predict")))
    return folder


def loads_pretrained(overrides: str) -> bool:
    """Whether the original's hyperparameters, 'load_pretrained=false', start from fine_tune_checkpoint.

    Raises:
        UsageError: another hyperparameter, which the original did not have either, or another value.
    """
    result = True
    for entry in filter(None, (part.strip() for part in overrides.split(","))):
        name, _, value = entry.partition("=")
        if name.strip() != "load_pretrained":
            raise UsageError(
                f"--hparams_overrides={overrides}: model_main.py has one hyperparameter, load_pretrained.",
                "Set all others in pipeline.config; docs/config.md lists its fields.",
            )
        if value.strip().lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--hparams_overrides={overrides}: load_pretrained must be true or false.")
        result = value.strip().lower() in ("true", "1")
    return result


def _evaluate(values: Values, pipeline: config.Pipeline, path: Path, model_dir: Path) -> None:
    on_train = values.switch("eval_training_data")
    name = "sample_1_of_n_eval_on_train_examples" if on_train else "sample_1_of_n_eval_examples"
    folder = model_dir / ("eval_training_data" if on_train else "eval_validation_data")
    options = EvaluationOptions(on_train, values.number(name) or 1)
    evaluation = Evaluation.open(pipeline, path, folder, options)
    follow(
        Path(values.text("checkpoint_dir")),
        evaluation.run,
        once=values.switch("run_once"),
        last_step=values.number("num_train_steps") or pipeline.train_config.num_steps or None,
    )
