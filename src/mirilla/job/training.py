"""The training stage. Only this module calls the trainer; tests replace its functions with stubs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.config import Pipeline
from mirilla.console import echo
from mirilla.errors import MissingExtraError, ModelError, TrainingError, UsageError
from mirilla.job.configure import TrainingIdentity, make_pipeline
from mirilla.job.inputs import Inputs
from mirilla.job.options import DEFAULT_STEPS, JobOptions
from mirilla.job.prepare import Records
from mirilla.job.workspace import Done, Workspace, fingerprint, samples_fingerprint
from mirilla.report.training_log import LOG_FILE, read_log, series

_SPEED_STEPS = 40


@dataclass(frozen=True)
class Trained:
    """A checkpoint's weights.

    weights: TensorFlow variable name -> array; moving averages if the checkpoint has them and they are used.
    step: the number of steps that they were trained for.
    """

    weights: Mapping[str, NDArray[np.float32]]
    step: int


@dataclass(frozen=True)
class _Reached:
    """Facts of the stage: the step that training reached."""

    step: int


@dataclass(frozen=True)
class _Speed:
    """Facts of the stage "speed"."""

    images_per_s: float


def require_training() -> None:
    """Check for the packages that training needs before any data is read.

    Raises:
        MissingExtraError: torch, OpenCV or safetensors is not installed.
    """
    for package in ("torch", "cv2", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train", "Training")


def train(pipeline: Pipeline, model_dir: Path, steps: int, device: str | None) -> None:
    """Train until step `steps`, from the newest checkpoint in `model_dir` if there is one."""
    from mirilla.training.trainer import train as run

    run(pipeline, model_dir, num_steps=steps, device=device)


def trained_step(model_dir: Path) -> int | None:
    """The newest checkpoint's step; None without a checkpoint."""
    path = newest_checkpoint(model_dir)
    return None if path is None else int(path.name.removeprefix("model.ckpt-").partition(".")[0])


def newest_checkpoint(model_dir: Path) -> Path | None:
    """The file of the newest checkpoint."""
    from mirilla.weights import checkpoint

    return checkpoint.newest(model_dir)


def trained(model_dir: Path, averages: bool = True) -> Trained:
    """The newest checkpoint's weights.

    Args:
        averages: use the moving averages, if the checkpoint has them.

    Raises:
        ModelError: there is no checkpoint, or it cannot be read.
    """
    from mirilla.weights import checkpoint

    path = checkpoint.newest(model_dir)
    if path is None:
        raise ModelError(f"{model_dir}: no checkpoint in this folder.", "Run the job again to train from the start.")
    saved = checkpoint.load(path)
    return Trained(saved.weights(averages), saved.step)


def refuse_other_training(workspace: Workspace, identity: TrainingIdentity) -> None:
    """Refuse to continue a model with other data or as another network: its checkpoints would be lost.

    Raises:
        UsageError: names what has changed.
    """
    folder = workspace.out / "train"
    earlier = workspace.state.get("training")
    if earlier is None or earlier["lasting"] == identity.fingerprint or trained_step(folder) is None:
        return
    changed = [
        f"{name}: {earlier['options'].get(name)} then, {value} now"
        for name, value in identity.options.items()
        if earlier["options"].get(name) != value
    ]
    raise UsageError(
        f"{folder}: this model was trained on other data or as another network "
        f"({'; '.join(changed) or 'pictures, boxes or labels of the data sets have changed'}).",
        "Name another --out, or delete the old model with --restart.",
    )


def choose_steps(
    workspace: Workspace, identity: TrainingIdentity, options: JobOptions, inputs: Inputs, records: Records
) -> int:
    """The number of training steps: that of --steps, or as many as fit into --minutes on this machine.

    Raises:
        TrainingError: the speed could not be measured.
    """
    if options.minutes is None:
        return options.steps or DEFAULT_STEPS
    folder = workspace.out / "speed"

    def work() -> Done[_Speed]:
        pipeline = make_pipeline(workspace, options, inputs, records, _SPEED_STEPS)
        try:
            train(pipeline, folder, _SPEED_STEPS, options.device)
            _, speeds = series(read_log(folder / LOG_FILE), "images_per_s")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if not len(speeds) or not speeds[-1] > 0:
            raise TrainingError("The speed of training could not be measured.", "Give --steps instead of --minutes.")
        return Done([], _Speed(float(speeds[-1])))

    key = fingerprint(identity.fingerprint, options.batch_size, options.minutes, options.device)
    speed = workspace.stage("speed", key, _Speed, work).images_per_s
    steps = max(1, int(speed * 60 * options.minutes / options.batch_size))
    echo(f"  {speed:.0f} pictures/s: {steps} steps in {options.minutes:g} min")
    return steps


def train_stage(
    workspace: Workspace,
    identity: TrainingIdentity,
    inputs: Inputs,
    pipeline: Pipeline,
    device: str | None,
) -> Trained:
    """Train from the last checkpoint to the pipeline's number of steps; returns the weights.

    Raises:
        TrainingError: training ended early.
    """
    folder = workspace.out / "train"
    steps, batch_size = pipeline.train_config.num_steps, pipeline.train_config.batch_size
    workspace.state["training"] = {"lasting": identity.fingerprint, "options": dict(identity.options)}
    workspace.save()

    def work() -> Done[_Reached]:
        earlier = trained_step(folder)
        if earlier:
            echo(f"  resuming from step {earlier}")
        train(pipeline, folder, steps, device)
        reached = trained_step(folder)
        if reached is None or reached < steps:
            raise TrainingError(
                f"Training stopped at step {reached or 0} of {steps}.",
                "Run the same command again: it resumes from the last checkpoint.",
            )
        files = [newest_checkpoint(folder), folder / LOG_FILE]
        return Done([path for path in files if path is not None and path.is_file()], _Reached(reached))

    key = fingerprint(identity.fingerprint, samples_fingerprint(inputs.train.samples), steps, batch_size)
    workspace.stage("train", key, _Reached, work)
    return trained(folder, pipeline.eval_config.use_moving_averages)
