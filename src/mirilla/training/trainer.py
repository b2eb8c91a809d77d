"""The training loop: batches in, checkpoints and a diary out; stops and goes on at any step."""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from mirilla import config, console
from mirilla.errors import ConfigError, TrainingError, UsageError
from mirilla.files import explaining, write_text
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.from_config import model_spec
from mirilla.model.network import SsdNetwork, from_tensorflow, initialise, to_tensorflow
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec
from mirilla.training import checkpoint as checkpoints
from mirilla.training import restore as restoring
from mirilla.training.allocator import keep_freed_memory
from mirilla.training.checkpoint import AVERAGE, Checkpoint
from mirilla.training.dataset import TrainingSet, open_training_set
from mirilla.training.input import Arrays, Batches
from mirilla.training.log import Log
from mirilla.training.losses import Losses, objective, targets_of
from mirilla.training.matching import Batch, Targets
from mirilla.training.optimizer import FlatParameters, TrainState
from mirilla.training.plan import Plan, training_plan
from mirilla.training.recalibration import recalibrated
from mirilla.training.simota import assign_dynamically, cells_of

CHECKPOINT_EVERY_S = 600.0
LOG_EVERY_STEPS = 20


@dataclass(frozen=True)
class Result:
    """What a run came to. `images_per_s` is the mean of this run, 0 when there was nothing left to do."""

    step: int
    checkpoint: Path
    images_per_s: float
    seconds: float


class Trainer:
    """A network with its optimiser on a device; `step` makes one update."""

    def __init__(self, spec: ModelSpec, plan: Plan, device: torch.device):
        self.spec, self.plan, self.device = spec, plan, device
        self.network = SsdNetwork(spec)
        initialise(self.network, torch.Generator().manual_seed(plan.seed), *plan.initializers, plan.class_bias,
                   -plan.class_bias if plan.objective.dynamic else None)
        self.network.set_batch_norm_decay(plan.base_batch_norm_decay, plan.extra_batch_norm_decay)
        self.network.freeze_batch_norm(plan.freeze_base_batch_norm, plan.freeze_extra_batch_norm)
        self.network.set_dropout(plan.dropout)
        self.network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        anchors = anchors_yxyx(spec.anchors, self.network.table.feature_map_shapes, spec.height_px, spec.width_px)
        self.anchors = torch.from_numpy(anchors).to(device)
        self.cells = cells_of(self.network.table).to(device)
        self.parameters = FlatParameters(self.network.trainable(), plan.l2, plan.gradient_scale)
        self.state = TrainState(self.parameters, plan.optimizer, plan.average_decay, plan.average_warmup)

    def step(self, arrays: Arrays) -> Losses:
        """One update; the losses are those before it, the regularisation not among them."""
        x, batch = self.input(arrays), self._batch(arrays)
        self.parameters.gradient.zero_()
        if self.plan.draws:  # by step, so that a run goes on as if it had never stopped
            torch.manual_seed(self.plan.seed * 1_000_003 + self.state.step)
        codes, logits = self.network(x)
        targets = self._targets(batch, codes, logits)
        losses, _ = objective(codes, logits, targets, self.anchors, self.plan.objective)
        losses.total.backward()
        self.parameters.add_regularization_gradient()
        self.parameters.scale_gradient()
        self.parameters.clip_gradient(self.plan.clip_norm)
        self.state.apply(self.plan.schedule(self.state.step))
        return losses

    def input(self, arrays: Arrays) -> torch.Tensor:
        """(B, 3, H, W) what the network is shown."""
        images = torch.from_numpy(arrays.images).to(self.device, non_blocking=True)
        return images.permute(0, 3, 1, 2).to(torch.float32).mul_(INPUT_SCALE).add_(INPUT_OFFSET)

    def _targets(self, batch: Batch, codes: torch.Tensor, logits: torch.Tensor) -> Targets:
        spec = self.plan.objective
        if spec.dynamic is None:
            return targets_of(batch, self.anchors, spec)
        return assign_dynamically(codes, logits, batch, self.anchors, self.cells, spec.num_classes, spec.dynamic,
                                  spec.box_coder)

    def _batch(self, arrays: Arrays) -> Batch:
        fields = (arrays.boxes_yxyx, arrays.classes, arrays.weights, arrays.valid, arrays.ignored)
        return Batch(*(torch.from_numpy(f).to(self.device, non_blocking=True) for f in fields))

    def average_statistics(self, batches: Batches) -> dict[str, np.ndarray]:
        """Batch-norm statistics measured for the moving averages, where the plan asks for them: name -> array."""
        count, average = self.plan.recalibration_batches, self.state.average
        if not count or average is None:
            return {}
        inputs = (self.input(batches.batch(self.state.step + i)) for i in range(count))
        found = recalibrated(self.network, self.parameters.split(average), inputs)
        return {f"{name}/{AVERAGE}": array for name, array in found.items()}

    def checkpoint(self, metadata: dict[str, str], statistics: Mapping[str, np.ndarray] = MappingProxyType({})
                   ) -> Checkpoint:
        """Everything that the run needs to go on; `statistics` go with the moving averages."""
        variables = {**self.network.get_weights(), **statistics}
        for slot, vector in self.state.vectors().items():
            for name, tensor in self.parameters.split(vector).items():
                variables[f"{name}/{slot}"] = to_tensorflow(name, tensor)
        return Checkpoint(self.state.step, variables, metadata)

    @torch.no_grad()
    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of the same configuration.

        Raises:
            ModelError: its variables are not this network's.
        """
        self.network.set_weights(saved.variables)
        for slot, vector in self.state.vectors().items():
            for name, tensor in self.parameters.split(vector).items():
                if f"{name}/{slot}" in saved.variables:
                    tensor.copy_(from_tensorflow(name, saved.variables[f"{name}/{slot}"]))
                elif slot == AVERAGE:
                    tensor.copy_(from_tensorflow(name, saved.variables[name]))
        self.state.step = saved.step


def train(
    pipeline: config.Pipeline,
    model_dir: Path,
    *,
    num_steps: int | None = None,
    device: str | None = None,
    config_path: Path | None = None,
) -> Result:
    """Train as a pipeline.config says, from the newest checkpoint in `model_dir` on.

    Without one it starts from train_config.fine_tune_checkpoint, or from initial values.

    Ctrl-C (or SIGTERM) ends the step under way, writes a checkpoint and raises KeyboardInterrupt.

    Args:
        num_steps: train up to this step; None takes `train_config.num_steps`.
        device: 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'; None takes the config's.
        config_path: where the pipeline was read from, for messages.

    Raises:
        ConfigError, DataError: what the config asks for cannot be done.
        ModelError: the checkpoint to go on or start from cannot be read, or does not fit.
        TrainingError: the loss is no number any more.
    """
    for finding in config.require(pipeline, ("model", "train"), config_path):
        if finding.severity == "warning":
            console.warn(str(finding))
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    last = num_steps if num_steps is not None else plan.num_steps
    place = pick_device(device or plan.device)
    keep_freed_memory()
    with explaining(model_dir):
        model_dir.mkdir(parents=True, exist_ok=True)
    previous = checkpoints.newest(model_dir)
    trainer = Trainer(spec, plan, place)
    if previous is None:  # before the data, whose reading may take minutes
        _fine_tune(trainer, pipeline, model_dir)
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
    metadata = {"seed": str(plan.seed), "config": _config_hash(pipeline), "data": data.key}
    if previous is not None:
        saved = checkpoints.load(previous)
        _warn_of_changes(saved, metadata)
        trainer.restore(saved)
        console.say(f"going on from {previous.name}")
    config.save(model_dir / "pipeline.config", pipeline)
    if last is not None and trainer.state.step >= last and previous is not None:
        console.say(f"step {trainer.state.step} of {last}: nothing left to do")
        return Result(trainer.state.step, previous, 0.0, 0.0)
    console.say(
        f"training {spec.feature_extractor} x{spec.depth_multiplier:g} at {spec.height_px}x{spec.width_px} on {place}: "
        f"{len(data.objects)} pictures, {sum(p.numel() for p in trainer.network.parameters()):,} parameters, "
        f"steps {trainer.state.step} to {last if last is not None else 'until stopped'}"
    )
    return _loop(trainer, data, model_dir, last, metadata)


def _fine_tune(trainer: Trainer, pipeline: config.Pipeline, model_dir: Path) -> None:
    """Start from train_config.fine_tune_checkpoint, where it is set."""
    options = restoring.options_of(pipeline)
    if options is None:
        return
    variables, made, note = restoring.restore(trainer.network.get_weights(), options)
    trainer.restore(Checkpoint(0, variables, {}))
    write_text(model_dir / restoring.DETAILS, restoring.details(made, options, note))
    console.say(f"{restoring.summary(made, options, note)}. All names: {model_dir / restoring.DETAILS}")


def _loop(trainer: Trainer, data: TrainingSet, model_dir: Path, last: int | None, metadata: dict[str, str]) -> Result:
    plan, state = trainer.plan, trainer.state
    batches = Batches(data.pictures, data.objects, trainer.spec, plan.batch_size, plan.augmentations, plan.seed,
                      plan.shuffle, plan.input_recipe, last)
    log = Log(model_dir, state.step)
    keeper = checkpoints.Keeper(model_dir, plan.keep_every_hours)
    start_step, started = state.step, time.monotonic()
    saved_at, logged_at, logged_step = started, started, state.step
    remaining = None if last is None else last - state.step
    saved = -1
    with _stopping() as stop, console.progress("training", remaining, "steps") as bar:
        stream = batches.stream(state.step, last)
        try:
            for arrays in stream:
                rate = plan.schedule(state.step)
                losses = trainer.step(arrays)
                if state.step % LOG_EVERY_STEPS == 0 or trainer.device.type == "cpu" or state.step == last:
                    _check(losses, state.step, rate)
                bar.advance(1)
                now = time.monotonic()
                if state.step % LOG_EVERY_STEPS == 0 or state.step == last:
                    speed = (state.step - logged_step) * plan.batch_size / max(now - logged_at, 1e-9)
                    logged_at, logged_step = now, state.step
                    entry = _entry(trainer, losses, rate, speed)
                    log.write(entry)
                    bar.note(_summary(entry, trainer.state.step, last, now - started, state.step - start_step))
                every = plan.checkpoint_every_steps
                due = state.step % every == 0 if every else now - saved_at > CHECKPOINT_EVERY_S
                ends = state.step == last or stop.is_set()
                if due or ends:
                    statistics = trainer.average_statistics(batches) if ends else {}
                    keeper.save(trainer.checkpoint(metadata, statistics))
                    log.flush()
                    saved, saved_at = state.step, now
                if stop.is_set():
                    break
        finally:
            stream.close()
            log.close()
    seconds = time.monotonic() - started
    done = state.step - start_step
    path = checkpoints.path_of(model_dir, saved)
    if stop.is_set():
        console.say(f"stopped at step {state.step}; {path} holds everything. The same command goes on from there.")
        raise KeyboardInterrupt
    return Result(state.step, path, done * plan.batch_size / max(seconds, 1e-9), seconds)


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


def _entry(trainer: Trainer, losses: Losses, rate: float, speed: float) -> dict:
    regularization = float(trainer.parameters.regularization())
    return {
        "step": trainer.state.step,
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
        if key in saved.metadata and saved.metadata[key] != metadata[key]:
            console.warn(f"{what} changed since the checkpoint of step {saved.step} was written.")
