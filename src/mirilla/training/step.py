"""Training steps on batches made by the host or by the device; on a GPU as a captured graph if possible.

On a GPU a step of this network is about a thousand short kernels, and launching them takes longer than running them.
After a capture, a single call launches all of them. This requires a step whose shapes do not depend on the data, that
does not wait for the device, and that takes no numbers from the host: learning rates and the drawn batch come from
tables on the device, which the host fills before the step. The same function runs op by op on any device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch

from mirilla import console
from mirilla.batches.dataset import TrainingSet
from mirilla.batches.gpu_batches import LEVELS, GpuBatches, unsupported
from mirilla.batches.gpu_pictures import bytes_free, bytes_needed, upload
from mirilla.batches.host_batches import Batches
from mirilla.batches.pictures import BackgroundDecoder, PictureCache
from mirilla.errors import MirillaError
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE
from mirilla.training.device import set_precision
from mirilla.training.distributed import Group
from mirilla.training.learner import Learner
from mirilla.training.losses import Losses, ObjectiveSpec
from mirilla.training.mining import can_be_static

AHEAD = 256  # steps whose learning rates are sent at once
WARM_UP = 3  # steps before the capture, in which libraries choose algorithms and allocate their workspaces


class StepRunner(Protocol):
    """Runs training steps in order, starting at the learner's current step."""

    def step(self) -> Losses:
        """Run one step. The next step overwrites the returned losses."""
        ...

    def close(self) -> None: ...


class HostSteps:
    """Steps on batches that the host makes, while a thread decodes the pictures of later steps."""

    def __init__(self, learner: Learner, batches: Batches, pictures: PictureCache, last: int | None):
        self._learner = learner
        self._decoder = BackgroundDecoder(pictures, learner.group.rank, learner.group.size)
        self._stream = batches.stream(learner.state.step, last)

    def step(self) -> Losses:
        self._decoder.check()
        losses = self._learner.step(*next(self._stream))
        self._decoder.start()  # not earlier, because the first step compiles kernels
        return losses

    def close(self) -> None:
        self._decoder.close()
        self._stream.close()


class DeviceSteps:
    """Steps on batches made by the device.

    Args:
        captured: whether to replay the step as a captured graph; only on CUDA and with `static_objective`.
    """

    def __init__(self, learner: Learner, batches: GpuBatches, captured: bool):
        self._learner, self._batches, self._captured = learner, batches, captured
        device = learner.device
        self._step = torch.tensor(learner.state.step, device=device)
        self._first = torch.zeros_like(self._step)  # the first step of the table
        self._factors = torch.zeros(AHEAD, 2, device=device)
        self._range = range(0)
        self._warmed = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._losses: Losses | None = None
        self._stream = torch.cuda.Stream(device) if captured else None

    def step(self) -> Losses:
        learner = self._learner
        self._prepare(learner.state.step)
        learner.seed_step()
        losses = self._replayed() if self._captured else self.update()
        learner.state.step += 1
        return losses

    def close(self) -> None:
        self._graph = None

    def update(self) -> Losses:
        """The step itself, without any work on the host."""
        rate, share = self._factors.index_select(0, (self._step - self._first).view(1))[0].unbind()
        pixels, objects = self._batches.batch(self._step)
        losses = self._learner.learn(pixels.mul_(INPUT_SCALE).add_(INPUT_OFFSET), objects)
        self._learner.state.update(rate, share)
        self._step.add_(1)
        return losses

    def _prepare(self, step: int) -> None:
        self._batches.prepare(step)
        if step in self._range:
            return
        plan, state = self._learner.plan, self._learner.state
        self._range = range(step, step + AHEAD)
        self._factors.copy_(torch.tensor([state.factors(plan.schedule(s), s) for s in self._range]))
        self._first.fill_(step)

    def _replayed(self) -> Losses:
        if self._warmed < WARM_UP:
            self._warmed += 1
            return self._warm_up()
        if self._graph is None:
            try:
                self._graph, self._losses = self._capture()
            except RuntimeError as error:
                console.warn(
                    f"the step cannot be captured as one graph; running it op by op: {str(error).splitlines()[0]}"
                )
                self._captured = False
                return self.update()
        self._graph.replay()
        assert self._losses is not None
        return self._losses

    def _warm_up(self) -> Losses:
        """An ordinary step on a stream of its own, as `torch.cuda.graph` requires before a capture."""
        stream, current = self._stream, torch.cuda.current_stream(self._learner.device)
        assert stream is not None
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            losses = self.update()
        current.wait_stream(stream)
        return losses

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Losses]:
        """Record a step without running it. Every replay overwrites the losses."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = self.update()
        return graph, losses


def static_objective(spec: ObjectiveSpec, anchors: int) -> ObjectiveSpec | None:
    """The same objective with fixed shapes; None if there is no such form."""
    if spec.dynamic is None and spec.miner is not None:
        if not can_be_static(spec.miner, anchors):
            return None
        spec = replace(spec, miner=replace(spec.miner, static=True))
    return replace(spec, matcher=replace(spec.matcher, static=True))


def step_runner(
    learner: Learner, batches: Batches, data: TrainingSet, last: int | None, on_device: bool | None
) -> StepRunner:
    """The fastest runner that the device and the config allow.

    Args:
        last: the last step of the run.
        on_device: whether the device makes the batches; None: only on CUDA. If the device cannot, the host makes them.
    """
    set_precision(learner.precision)
    if not (learner.device.type == "cuda" if on_device is None else on_device):
        return HostSteps(learner, batches, data.pictures, last)
    missing = unsupported(batches.augmentations, batches.recipe, learner.spec.keep_aspect_ratio)
    if batches.teacher is not None:
        missing = "a teacher's soft labels"
    if missing is not None:
        console.echo(f"the batches are made on the host: the device does not support {missing}")
        return HostSteps(learner, batches, data.pictures, last)
    levels, room = LEVELS if batches.recipe is not None else 1, bytes_free(learner.device)
    if room is None or bytes_needed(data.pictures, levels) <= room:
        _decode_all(data.pictures, learner.group)
    try:
        with console.progress("copying pictures to the device", len(data.pictures), "pictures") as bar:
            pictures = upload(data.pictures, learner.device, levels, room, bar.advance)
            bar.note("ready")
    except MirillaError as error:
        console.echo(f"the batches are made on the host: {error.what}")
        return HostSteps(learner, batches, data.pictures, last)
    made = GpuBatches(pictures, batches)
    static = static_objective(learner.plan.objective, len(learner.anchors))
    if static is not None:
        learner.plan = replace(learner.plan, objective=static)
    captured = static is not None and learner.device.type == "cuda" and learner.group.size == 1
    return DeviceSteps(learner, made, captured)


def _decode_all(pictures: PictureCache, group: Group) -> None:
    missing = len(pictures) - pictures.decoded
    if missing:
        with console.progress("decoding pictures", missing, "pictures") as bar:
            pictures.complete(group.rank / group.size, bar.advance)
            bar.note("ready")
