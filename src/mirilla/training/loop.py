"""The training loop: runs steps, checks the loss, writes the log and checkpoints, until the last step or a signal."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from mirilla import console
from mirilla.batches.host_batches import Batches
from mirilla.errors import DataError, TrainingError
from mirilla.training.learner import Learner
from mirilla.training.log import Log
from mirilla.training.losses import Losses
from mirilla.training.setup import Setup
from mirilla.training.step import step_runner
from mirilla.weights import checkpoint as checkpoints

CHECKPOINT_EVERY_S = 600.0
LOG_EVERY_STEPS = 20
OnCheckpoint = Callable[[Path, bool], object]  # path of the checkpoint; whether it is the run's last


class TrainingLoop:
    """Runs the steps of a `Setup`; rank 0 writes the log and the checkpoints.

    Args:
        device_batches: whether the GPU makes the batches, see `step_runner`.
        tf_checkpoints: write TensorFlow checkpoints too.
        on_checkpoint: called by rank 0 after each checkpoint; its time does not count as training time.
    """

    def __init__(
        self,
        setup: Setup,
        device_batches: bool | None,
        tf_checkpoints: bool = False,
        on_checkpoint: OnCheckpoint | None = None,
    ):
        learner = setup.learner
        self.on_checkpoint = on_checkpoint
        self.setup, self.learner, self.state, self.last = setup, learner, learner.state, setup.last
        self.batches = make_batches(setup)
        self.log = Log(setup.model_dir, self.state.step) if learner.group.is_main else None
        self.keeper = checkpoints.Keeper(setup.model_dir, learner.plan.keep_every_hours, tensorflow=tf_checkpoints)
        self.runner = step_runner(learner, self.batches, setup.data, setup.last, device_batches)
        self.first_step = self.logged_step = self.state.step
        self.started_s = self.logged_s = self.saved_s = time.monotonic()

    @property
    def steps(self) -> int:
        """The number of steps that this run has made."""
        return self.state.step - self.first_step

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s

    def run(self) -> bool:
        """Train until the last step or a signal. Returns whether a signal stopped it."""
        total = None if self.last is None else self.last - self.state.step
        stopped = False
        with stop_signals() as stop, console.progress("training", total, "steps") as bar:
            try:
                while not stopped and not self._ended():
                    rate = self.learner.plan.schedule(self.state.step)
                    losses = self._step()
                    if self._logs_now() or self.learner.device.type == "cpu":  # on a GPU this waits for the step
                        check_finite(losses, self.state.step, rate, self.learner.parameters.regularization())
                        stopped = self.learner.group.any(stop.is_set(), self.learner.device)  # same step for all
                    bar.advance(1)
                    if self._logs_now():
                        bar.note(self._write_log(losses, rate))
                    self._save(ends=stopped or self._ended())
                self.learner.group.barrier()  # wait until the last checkpoint is written
            finally:
                self.runner.close()
                if self.log is not None:
                    self.log.close()
        return stopped

    def _ended(self) -> bool:
        return self.state.step == self.last

    def _logs_now(self) -> bool:
        return self.state.step % LOG_EVERY_STEPS == 0 or self._ended()

    def _step(self) -> Losses:
        try:
            return self.runner.step()
        except DataError:  # a picture decoded only now may be broken: save the steps made so far
            if self.log is not None and self.steps:
                self.keeper.save(self.learner.checkpoint(self.setup.metadata))
            raise

    def _write_log(self, losses: Losses, rate: float) -> str:
        """Write a log entry. Returns its summary for the progress bar."""
        now, step = time.monotonic(), self.state.step
        images = (step - self.logged_step) * self.learner.plan.batch_size
        entry = log_entry(self.learner, losses, rate, images / max(now - self.logged_s, 1e-9))
        self.logged_s, self.logged_step = now, step
        if self.log is not None:
            self.log.write(entry)
        note = (
            f"loss {entry['loss']:.3f} (box {entry['localization_loss']:.3f}, "
            f"class {entry['classification_loss']:.3f}), rate {rate:.2g}, {entry['images_per_s']:.0f} images/s"
        )
        if self.last is not None and self.steps:
            minutes = (self.last - step) * (now - self.started_s) / self.steps / 60
            note += f", step {step}, {minutes:.0f} min left" if minutes >= 1 else f", step {step}"
        decoded, pictures = self.setup.data.pictures.decoded, len(self.setup.data.pictures)
        return note if decoded == pictures else f"{note}, {decoded} of {pictures} pictures decoded"

    def _save(self, ends: bool) -> None:
        """Write a checkpoint if the run ends or one is due."""
        every = self.learner.plan.checkpoint_every_steps
        due = self.state.step % every == 0 if every else time.monotonic() - self.saved_s > CHECKPOINT_EVERY_S
        statistics = self.learner.average_statistics(self.batches) if ends else {}  # a collective operation
        if self.log is not None and (due or ends):
            path = self.keeper.save(self.learner.checkpoint(self.setup.metadata, statistics))
            self.log.flush()
            self.saved_s = time.monotonic()
            if self.on_checkpoint is not None:
                self.on_checkpoint(path, self._ended())
                taken_s = time.monotonic() - self.saved_s
                self.started_s, self.logged_s = self.started_s + taken_s, self.logged_s + taken_s


def make_batches(setup: Setup) -> Batches:
    """This process's shard of the run's batches."""
    learner, plan = setup.learner, setup.learner.plan
    return Batches(
        setup.data.pictures,
        setup.data.objects,
        learner.spec,
        plan.batch_size,
        plan.augmentations,
        plan.seed,
        plan.shuffle,
        plan.input_recipe,
        setup.last,
        learner.group.shard(plan.batch_size),
        setup.teacher,
    )


def check_finite(losses: Losses, step: int, rate: float, regularization: Tensor) -> None:
    """Raise a TrainingError if a part of the loss is infinite or NaN."""
    parts = {"box": losses.localization, "class": losses.classification, "regularization": regularization}
    total = float(losses.localization + losses.classification + regularization)
    if math.isfinite(total):
        return
    part = next((name for name, value in parts.items() if not math.isfinite(float(value))), "total")
    raise TrainingError(
        f"Step {step}: the {part} loss is {total}. The last checkpoint was written before that.",
        f"The learning rate ({rate:g}) is most likely too high: lower it, or set "
        "train_config.gradient_clipping_by_norm. If this happens in the first steps, check the data with "
        "'mirilla data check'.",
    )


def log_entry(learner: Learner, losses: Losses, rate: float, images_per_s: float) -> dict[str, float]:
    regularization = float(learner.parameters.regularization())
    return {
        "step": learner.state.step,
        "loss": round(float(losses.localization + losses.classification) + regularization, 6),
        "localization_loss": round(float(losses.localization), 6),
        "classification_loss": round(float(losses.classification), 6),
        "regularization_loss": round(regularization, 6),
        "learning_rate": rate,
        "positives": int(losses.positives),
        "images_per_s": round(images_per_s, 1),
        "steps_per_s": round(images_per_s / learner.plan.batch_size, 3),
        "time": round(time.time(), 2),
    }


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second signal raises KeyboardInterrupt at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
