"""`train`: a training run from a pipeline.config to its last checkpoint; it can be stopped and resumed at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mirilla import config, console
from mirilla.config.rules import PRECISIONS
from mirilla.errors import UsageError
from mirilla.files import explaining, locked
from mirilla.model import fused
from mirilla.training import distributed
from mirilla.training.device import pick_device
from mirilla.training.loop import OnCheckpoint, TrainingLoop
from mirilla.training.setup import Setup, config_hash, prepare, warn_of_changes
from mirilla.weights import checkpoint as checkpoints

LOCK = ".train.lock"


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    images_per_s: mean of this run; 0 if there was nothing left to do.
    is_main: whether this process is rank 0, which writes files and prints.
    """

    step: int
    checkpoint: Path
    images_per_s: float
    seconds: float
    is_main: bool = True


def train(
    pipeline: config.Pipeline,
    model_dir: Path,
    *,
    num_steps: int | None = None,
    device: str | None = None,
    config_path: Path | None = None,
    precision: str | None = None,
    device_batches: bool | None = None,
    tf_checkpoints: bool = False,
    on_checkpoint: OnCheckpoint | None = None,
) -> Result:
    """Train as a pipeline.config describes, resuming from the newest checkpoint in `model_dir`.

    Without a checkpoint, training starts from train_config.fine_tune_checkpoint or from initial values.

    Ctrl-C (or SIGTERM) finishes the current step, writes a checkpoint and raises KeyboardInterrupt. If torchrun has
    started several processes, each makes its shard of every batch; only rank 0 writes files.

    Args:
        num_steps: the last step; None takes `train_config.num_steps`.
        device: 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'; None takes the config's.
        config_path: where the pipeline was read from, for messages.
        precision: precision of the network's layers, one of PRECISIONS; None takes the config's.
        device_batches: whether the GPU stores and augments the pictures; None: if it can.
        tf_checkpoints: write every checkpoint as a TensorFlow checkpoint too.
        on_checkpoint: called by rank 0 after each checkpoint, with its path and whether it is the last.

    Raises:
        ConfigError, DataError: the config, the label map or the records are wrong.
        ModelError: the checkpoint to resume or start from cannot be read, or does not fit the network.
        TrainingError: the loss became infinite or NaN, or another process has ended.
    """
    precision = precision or pipeline.mirilla.precision
    if precision not in PRECISIONS:
        raise UsageError(f"Unknown precision '{precision}'.", f"Choose from: {', '.join(PRECISIONS)}.")
    torch_device = pick_device(distributed.device_of_rank(device or pipeline.mirilla.device))
    with (
        distributed.process_group(str(torch_device)) as group,
        console.muted(not group.is_main),
        _only_one(model_dir) if group.is_main else contextlib.nullcontext(),
    ):
        finished = _finished(pipeline, model_dir, num_steps, tf_checkpoints) if group.is_main else None
        if group.any(finished is not None, torch_device):
            last = num_steps or pipeline.train_config.num_steps
            return finished or Result(last, model_dir, 0.0, 0.0, is_main=False)
        setup = prepare(pipeline, model_dir, num_steps, torch_device, group, precision, config_path)
        step, last = setup.learner.state.step, setup.last
        if last is not None and step and step >= last:
            console.echo(f"step {step} of {last}: nothing left to do")
            return Result(step, checkpoints.path_of(model_dir, step), 0.0, 0.0, group.is_main)
        console.echo(_description(setup))
        use_kernels = torch_device.type == "cpu" and setup.learner.network.use_kernels
        with fused.threads_for_kernels(use_kernels), fused.flushed_denormals():
            loop = TrainingLoop(setup, device_batches, tf_checkpoints, on_checkpoint)
            stopped = loop.run()
        return _result(loop, stopped)


@contextlib.contextmanager
def _only_one(model_dir: Path) -> Iterator[None]:
    """Only one training at a time may write to a folder.

    Raises:
        UsageError: another process trains there.
    """
    with explaining(model_dir):
        model_dir.mkdir(parents=True, exist_ok=True)
    what = f"{model_dir}: another process is training in this folder."
    with locked(model_dir / LOCK, what, "Wait for it, or give another --model-dir."):
        yield


def _finished(pipeline: config.Pipeline, model_dir: Path, num_steps: int | None, tf_checkpoints: bool) -> Result | None:
    """The result of a run that has already reached its last step, read from its checkpoint alone; otherwise None."""
    last = num_steps if num_steps is not None else pipeline.train_config.num_steps or None
    path = checkpoints.newest(model_dir)
    if last is None or path is None:
        return None
    saved = checkpoints.load(path)
    if not saved.step or saved.step < last:
        return None
    warn_of_changes(saved, {"config": config_hash(pipeline)})
    config.save(model_dir / "pipeline.config", pipeline)
    console.echo(f"step {saved.step} of {last}: nothing left to do")
    if tf_checkpoints and not path.with_suffix(".index").is_file():
        checkpoints.save(model_dir, saved, permanent=checkpoints.all_checkpoints(model_dir), tensorflow=True)
        console.echo(f"wrote {path.with_suffix('.index')} and its data, for TensorFlow")
    return Result(saved.step, path, 0.0, 0.0)


def _description(setup: Setup) -> str:
    learner, spec = setup.learner, setup.learner.spec
    processes = learner.group.size
    shared = f", batches shared by {processes} processes" if processes > 1 else ""
    return (
        f"training {spec.feature_extractor} x{spec.depth_multiplier:g} at {spec.height_px}x{spec.width_px} on "
        f"{learner.device}{shared}: {len(setup.data)} pictures, "
        f"{sum(p.numel() for p in learner.network.parameters()):,} parameters, "
        f"steps {learner.state.step} to {setup.last if setup.last is not None else 'until stopped'}"
    )


def _result(loop: TrainingLoop, stopped: bool) -> Result:
    learner, seconds = loop.learner, loop.seconds
    path = checkpoints.path_of(loop.setup.model_dir, learner.state.step)
    if stopped:
        console.echo(f"stopped at step {learner.state.step}; saved {path}. Run the same command again to resume.")
        raise KeyboardInterrupt
    images_per_s = loop.steps * learner.plan.batch_size / max(seconds, 1e-9)
    return Result(learner.state.step, path, images_per_s, seconds, learner.group.is_main)
