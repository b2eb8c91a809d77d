"""legacy/train.py and legacy/eval.py; both take a pipeline.config, or three files with its parts."""

from __future__ import annotations

from pathlib import Path

from mirilla import config
from mirilla.console import echo
from mirilla.errors import UsageError
from mirilla.files import explaining
from mirilla.job.training import require_training
from mirilla.protos import text
from mirilla.tf1.evaluation import Evaluation, EvaluationOptions, follow
from mirilla.tf1.flags import Values

_PIPELINE = "pipeline_config_path"


def train(values: Values) -> int:
    """Run legacy/train.py.

    Raises:
        UsageError: the files of the configuration are not given, or too many.
        MirillaError: see `training.trainer.train`.
    """
    fields = {"train_config_path": "train_config", "input_config_path": "train_input_reader"}
    pipeline, path = _pipeline(values, fields | {"model_config_path": "model"})
    require_training()
    from mirilla.training.trainer import train as run

    device = "cpu" if values.switch("clone_on_cpu") else None
    tf_checkpoints = values.switch("tf_checkpoints")
    run(pipeline, Path(values.text("train_dir")), device=device, config_path=path, tf_checkpoints=tf_checkpoints)
    return 0


def evaluate(values: Values) -> int:
    """Run legacy/eval.py.

    Raises:
        UsageError: the files of the configuration are not given, or too many.
        MirillaError: see `Evaluation` and `follow`.
    """
    on_train = values.switch("eval_training_data")
    reader = "train_input_reader" if on_train else "eval_input_reader"
    fields = {"eval_config_path": "eval_config", "input_config_path": reader, "model_config_path": "model"}
    pipeline, path = _pipeline(values, fields)
    eval_dir = Path(values.text("eval_dir"))
    options = EvaluationOptions(on_train, default_metric="pascal")
    evaluation = Evaluation.open(pipeline, path, eval_dir, options)
    with explaining(eval_dir):
        eval_dir.mkdir(parents=True, exist_ok=True)
    config.save(eval_dir / "pipeline.config", pipeline)
    follow(
        Path(values.text("checkpoint_dir")),
        evaluation.run,
        once=values.switch("run_once"),
        limit=pipeline.eval_config.max_evals or None,
        every_s=float(pipeline.eval_config.eval_interval_secs),
    )
    return 0


def _pipeline(values: Values, fields: dict[str, str]) -> tuple[config.Pipeline, Path]:
    """The pipeline of --pipeline_config_path, or joined from its parts, and a path for messages.

    Args:
        fields: flag of a part's file -> field of the pipeline.

    Raises:
        UsageError: both forms are given, or a file is missing.
    """
    given = [name for name in fields if values.text(name)]
    path = values.text(_PIPELINE)
    if path and given:
        raise UsageError(f"--{_PIPELINE} and --{given[0]} cannot be combined.", "Give one of the two forms.")
    if path:
        return config.load(path), Path(path)
    if missing := [name for name in fields if name not in given]:
        raise UsageError(f"--{missing[0]} is missing.", f"Give --{_PIPELINE}, or all of: --{', --'.join(fields)}.")
    pipeline = config.Pipeline()
    for name, field in fields.items():
        file = values.text(name)
        part = getattr(pipeline, field)
        part.SetInParent()
        text.parse(text.read_text(file, field), part, file)
    echo(f"{', '.join(values.text(name) for name in fields)}: joined into one pipeline.config")
    return pipeline, Path(values.text(given[-1]))
