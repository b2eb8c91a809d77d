"""The training loop: batches in, checkpoints and a diary out; stops and goes on at any step."""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mirilla import config, console
from mirilla.batches.dataset import TrainingSet, open_training_set
from mirilla.batches.input import Batches
from mirilla.config.rules import PRECISIONS
from mirilla.config.to_spec import model_spec
from mirilla.errors import ConfigError, DataError, TrainingError, UsageError
from mirilla.files import explaining, write_text
from mirilla.model import fused
from mirilla.training import distillation, distributed
from mirilla.training.allocator import keep_freed_memory
from mirilla.training.distributed import Group
from mirilla.training.learner import Learner
from mirilla.training.log import Log
from mirilla.training.losses import Losses
from mirilla.training.plan import training_plan
from mirilla.training.step import step_runner
from mirilla.weights import checkpoint as checkpoints
from mirilla.weights import restore as restoring
from mirilla.weights.checkpoint import Checkpoint

CHECKPOINT_EVERY_S = 600.0
LOG_EVERY_STEPS = 20


@dataclass(frozen=True)
class Result:
    """What a run came to. `images_per_s` is the mean of this run, 0 when there was nothing left to do.

    is_main: whether this process is rank 0, the one that writes files and prints.
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
) -> Result:
    """Train as a pipeline.config says, from the newest checkpoint in `model_dir` on.

    Without one it starts from train_config.fine_tune_checkpoint, or from initial values.

    Ctrl-C (or SIGTERM) ends the step under way, writes a checkpoint and raises KeyboardInterrupt. As one of several
    processes started by torchrun it makes its part of every batch; the first alone writes, all go on from its state.

    Args:
        num_steps: train up to this step; None takes `train_config.num_steps`.
        device: 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'; None takes the config's.
        config_path: where the pipeline was read from, for messages.
        precision: of the network's layers, one of PRECISIONS; None takes the config's.
        device_batches: whether pictures lie and are augmented on the device; None: on CUDA, where it can be.

    Raises:
        ConfigError, DataError: what the config asks for cannot be done.
        ModelError: the checkpoint to go on or start from cannot be read, or does not fit.
        TrainingError: the loss is no number any more, or another process has ended.
    """
    precision = precision or pipeline.mirilla.precision
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}' is not known.", f"Use one of: {', '.join(PRECISIONS)}.")
    place = pick_device(distributed.device_of_rank(device or pipeline.mirilla.device))
    with distributed.process_group(str(place)) as group, console.muted(not group.is_main):
        finished = _finished(pipeline, model_dir, num_steps) if group.is_main else None
        if group.any(finished is not None, place):
            return finished or Result(num_steps or pipeline.train_config.num_steps, model_dir, 0.0, 0.0, group.is_main)
        with group.main_process_first():
            learner, data, last, previous = _prepared(
                pipeline, model_dir, num_steps, place, group, precision, config_path
            )
        metadata = {"seed": str(learner.plan.seed), "config": _config_hash(pipeline), "data": data.key}
        if group.is_main:
            if previous is not None:
                saved = checkpoints.load(previous)
                _warn_of_changes(saved, metadata)
                learner.restore(saved)
                console.echo(f"going on from {previous.name}")
            config.save(model_dir / "pipeline.config", pipeline)
        learner.broadcast_from_main()
        step = learner.state.step
        if last is not None and step and step >= last:
            console.echo(f"step {step} of {last}: nothing left to do")
            return Result(step, previous or checkpoints.path_of(model_dir, step), 0.0, 0.0, group.is_main)
        shared = f", batches shared by {group.size} processes" if group.size > 1 else ""
        console.echo(
            f"training {learner.spec.feature_extractor} x{learner.spec.depth_multiplier:g} at "
            f"{learner.spec.height_px}x{learner.spec.width_px} on {place}{shared}: {len(data.objects)} pictures, "
            f"{sum(p.numel() for p in learner.network.parameters()):,} parameters, "
            f"steps {step} to {last if last is not None else 'until stopped'}"
        )
        with fused.threads_for_kernels(place.type == "cpu" and learner.network.use_kernels):
            return _loop(learner, data, model_dir, last, metadata, device_batches)


def _finished(pipeline: config.Pipeline, model_dir: Path, num_steps: int | None) -> Result | None:
    """What came of a run that has reached its last step; nothing but its checkpoint is read for that."""
    last = num_steps if num_steps is not None else pipeline.train_config.num_steps or None
    path = checkpoints.newest(model_dir)
    if last is None or path is None:
        return None
    saved = checkpoints.load(path)
    if not saved.step or saved.step < last:
        return None
    _warn_of_changes(saved, {"config": _config_hash(pipeline)})
    config.save(model_dir / "pipeline.config", pipeline)
    console.echo(f"step {saved.step} of {last}: nothing left to do")
    return Result(saved.step, path, 0.0, 0.0)


def _prepared(
    pipeline: config.Pipeline,
    model_dir: Path,
    num_steps: int | None,
    place: torch.device,
    group: Group,
    precision: str,
    config_path: Path | None,
) -> tuple[Learner, TrainingSet, int | None, Path | None]:
    """A learner, its data, the last step, and the checkpoint to go on from."""
    for finding in config.require(pipeline, ("model", "train"), config_path):
        if finding.severity == "warning":
            console.warn(str(finding))
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    last = num_steps if num_steps is not None else plan.num_steps
    keep_freed_memory()
    with explaining(model_dir):
        model_dir.mkdir(parents=True, exist_ok=True)
    previous = checkpoints.newest(model_dir)
    learner = Learner(spec, plan, place, group, precision)
    if previous is None and group.is_main:  # before the data, whose reading may take minutes
        _fine_tune(learner, pipeline, model_dir)
    data = open_training_set(pipeline, spec, model_dir / "cache")
    if plan.num_epochs is not None:
        end = plan.num_epochs * len(data.objects) // plan.batch_size
        if not end:
            raise ConfigError(
                f"train_input_reader.num_epochs: {plan.num_epochs} epochs of {len(data.objects)} pictures do not fill "
                f"one batch of {plan.batch_size}.",
                "Remove num_epochs, or lower train_config.batch_size.",
            )
        last = end if last is None else min(last, end)
    return learner, data, last, previous


def _fine_tune(learner: Learner, pipeline: config.Pipeline, model_dir: Path) -> None:
    """Start from train_config.fine_tune_checkpoint, where it is set."""
    options = restoring.options_of(pipeline)
    if options is None:
        return
    variables, made, note = restoring.restore(learner.network.get_weights(), options)
    learner.restore(Checkpoint(0, variables, {}))
    write_text(model_dir / restoring.DETAILS, restoring.details(made, options, note))
    console.echo(f"{restoring.summary(made, options, note)}. All names: {model_dir / restoring.DETAILS}")


def _loop(
    learner: Learner,
    data: TrainingSet,
    model_dir: Path,
    last: int | None,
    metadata: dict[str, str],
    device_batches: bool | None,
) -> Result:
    plan, state, group = learner.plan, learner.state, learner.group
    teacher = None if plan.distillation is None else distillation.load(plan.distillation, data.labels, learner.spec)
    batches = Batches(
        data.pictures,
        data.objects,
        learner.spec,
        plan.batch_size,
        plan.augmentations,
        plan.seed,
        plan.shuffle,
        plan.input_recipe,
        last,
        group.shard(plan.batch_size),
        teacher,
    )
    log = Log(model_dir, state.step) if group.is_main else None
    keeper = checkpoints.Keeper(model_dir, plan.keep_every_hours)
    runner = step_runner(learner, batches, data, last, device_batches)
    start_step, started = state.step, time.monotonic()
    saved_at, logged_at, logged_step = started, started, state.step
    remaining = None if last is None else last - state.step
    stopped = False
    with _stopping() as stop, console.progress("training", remaining, "steps") as bar:
        try:
            while not stopped and state.step != last:
                rate = plan.schedule(state.step)
                try:
                    losses = runner.step()
                except DataError:  # of a picture, maybe the last to be decoded: the steps before it are not lost
                    if log is not None and state.step > start_step:
                        keeper.save(learner.checkpoint(metadata))
                    raise
                if state.step % LOG_EVERY_STEPS == 0 or learner.device.type == "cpu" or state.step == last:
                    _check(losses, state.step, rate)
                    stopped = group.any(stop.is_set(), learner.device)  # all stop at the same step
                bar.advance(1)
                now = time.monotonic()
                if state.step % LOG_EVERY_STEPS == 0 or state.step == last:
                    speed = (state.step - logged_step) * plan.batch_size / max(now - logged_at, 1e-9)
                    logged_at, logged_step = now, state.step
                    entry = _entry(learner, losses, rate, speed)
                    if log is not None:
                        log.write(entry)
                    note = _summary(entry, learner.state.step, last, now - started, state.step - start_step)
                    there, count = data.pictures.there, len(data.pictures)
                    bar.note(note if there == count else f"{note}, {there} of {count} pictures decoded")
                every = plan.checkpoint_every_steps
                due = state.step % every == 0 if every else now - saved_at > CHECKPOINT_EVERY_S
                ends = state.step == last or stopped
                statistics = learner.average_statistics(batches) if ends else {}
                if log is not None and (due or ends):
                    keeper.save(learner.checkpoint(metadata, statistics))
                    log.flush()
                    saved_at = now
            group.barrier()  # until the last checkpoint is there
        finally:
            runner.close()
            if log is not None:
                log.close()
    seconds = time.monotonic() - started
    done = state.step - start_step
    path = checkpoints.path_of(model_dir, state.step)
    if stopped:
        console.echo(f"stopped at step {state.step}; {path} holds everything. The same command goes on from there.")
        raise KeyboardInterrupt
    return Result(state.step, path, done * plan.batch_size / max(seconds, 1e-9), seconds, group.is_main)


def _check(losses: Losses, step: int, rate: float) -> None:
    total = float(losses.localization + losses.classification)
    if math.isfinite(total):
        return
    part = "box" if not math.isfinite(float(losses.localization)) else "class"
    raise TrainingError(
        f"step {step}: the {part} loss is {total}, no number; the last checkpoint is from before that.",
        f"The learning rate ({rate:g}) is most likely too high: lower it, or set "
        "train_config.gradient_clipping_by_norm. If it happens at the first steps, check the data with "
        "'mirilla data check'.",
    )


def _entry(learner: Learner, losses: Losses, rate: float, speed: float) -> dict:
    regularization = float(learner.parameters.regularization())
    return {
        "step": learner.state.step,
        "loss": round(float(losses.localization + losses.classification) + regularization, 6),
        "localization_loss": round(float(losses.localization), 6),
        "classification_loss": round(float(losses.classification), 6),
        "regularization_loss": round(regularization, 6),
        "learning_rate": rate,
        "positives": int(losses.positives),
        "images_per_s": round(speed, 1),
        "time": round(time.time(), 2),
    }


def _summary(entry: dict, step: int, last: int | None, seconds: float, done: int) -> str:
    text = (
        f"loss {entry['loss']:.3f} (box {entry['localization_loss']:.3f}, class {entry['classification_loss']:.3f}), "
        f"rate {entry['learning_rate']:.2g}, {entry['images_per_s']:.0f} images/s"
    )
    if last is not None and done:
        minutes = (last - step) * seconds / done / 60
        text += f", step {step}, {minutes:.0f} min left" if minutes >= 1 else f", step {step}"
    return text


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pick_device(name: str) -> torch.device:
    """The torch device of a name; 'auto' takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name in ("", "auto"):
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device '{name}' cannot be used here ({str(error).splitlines()[0]}).", "Use --device cpu, or auto."
        ) from error
    return device


def _config_hash(pipeline: config.Pipeline) -> str:
    return hashlib.sha256(config.dump(pipeline).encode()).hexdigest()


def _warn_of_changes(saved: Checkpoint, metadata: dict[str, str]) -> None:
    for key, what in (("config", "pipeline.config"), ("data", "the training records")):
        if key in metadata and key in saved.metadata and saved.metadata[key] != metadata[key]:
            console.warn(f"{what} changed since the checkpoint of step {saved.step} was written.")
