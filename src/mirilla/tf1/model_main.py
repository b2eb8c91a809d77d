"""model_main.py: train, and evaluate after checkpoints; or only evaluate the checkpoints of a folder."""

from __future__ import annotations

from pathlib import Path

from mirilla import config
from mirilla.console import echo
from mirilla.errors import UsageError
from mirilla.job.training import require_training
from mirilla.tf1.evaluation import Evaluation, EvaluationOptions, Throttle, follow
from mirilla.tf1.flags import Values


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
    train(
        pipeline,
        model_dir,
        num_steps=steps,
        config_path=path,
        tf_checkpoints=values.switch("tf_checkpoints"),
        on_checkpoint=Throttle(evaluation.run),
    )
    echo(f"note: {model_dir / 'export/Servo'} is not written: 'mirilla tf1 export_inference_graph' exports.")


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
