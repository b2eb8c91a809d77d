"""The network, its losses and its optimiser on a device: computes gradients, applies updates, makes checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from mirilla.batches.batch import Batch
from mirilla.batches.host_batches import Batches
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.initializers import initialise
from mirilla.model.network import SsdNetwork, from_tensorflow, to_tensorflow
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec
from mirilla.training.distributed import SINGLE_PROCESS, Group
from mirilla.training.losses import Losses, match_targets, objective
from mirilla.training.matching import Targets
from mirilla.training.optimizer import FlatParameters, TrainState
from mirilla.training.plan import Plan
from mirilla.training.recalibration import recalibrated_statistics
from mirilla.training.simota import anchor_cells, assign_dynamically
from mirilla.weights.checkpoint import AVERAGE, Checkpoint


class Learner:
    """A network with its optimiser on a device; `step` applies one update.

    Args:
        group: the processes that share every batch.
        precision: precision of the layers, one of `mirilla.config.rules.PRECISIONS`. Weights, statistics, losses and
            optimiser are always float32.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: Plan,
        device: torch.device,
        group: Group = SINGLE_PROCESS,
        precision: str = "float32",
    ):
        self.spec, self.plan, self.device, self.group, self.precision = spec, plan, device, group, precision
        self.network = SsdNetwork(spec)
        initialise(
            self.network,
            torch.Generator().manual_seed(plan.seed),
            *plan.initializers,
            plan.class_bias,
            -plan.class_bias if plan.objective.dynamic else None,
        )
        self.network.set_batch_norm_decay(plan.base_batch_norm_decay, plan.extra_batch_norm_decay)
        self.network.freeze_batch_norm(plan.freeze_base_batch_norm, plan.freeze_extra_batch_norm)
        self.network.set_dropout(plan.dropout)
        if group.size > 1:
            self.network.use_sync_batch_norm(group.all_reduce_)
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs
        self.network.train()
        anchors = anchors_yxyx(spec.anchors, self.network.table.feature_map_shapes, spec.height_px, spec.width_px)
        self.anchors = torch.from_numpy(anchors).to(device)
        self.cells = anchor_cells(self.network.table).to(device)
        self.parameters = FlatParameters(self.network.trainable(), plan.l2, plan.gradient_scale)
        self.state = TrainState(self.parameters, plan.optimizer, plan.average_decay, plan.average_warmup)

    def step(self, images: torch.Tensor, batch: Batch) -> Losses:
        """Apply one update for images (B, H, W, 3) uint8. Returns the losses before it, without regularisation."""
        self.seed_step()
        losses = self.learn(self.input(images), batch.to(self.device))
        self.state.apply(self.plan.schedule(self.state.step))
        return losses

    def seed_step(self) -> None:
        """Seed the step's random numbers by its index, so that a resumed run equals one that was never stopped."""
        if self.plan.is_random:
            torch.manual_seed(self.plan.seed * 1_000_003 + self.state.step + (self.group.rank << 40))

    def learn(self, x: torch.Tensor, batch: Batch) -> Losses:
        """Compute a batch's gradient, stored in `parameters`, and return its losses; x (B, 3, H, W)."""
        spec = self.plan.objective
        self.parameters.gradient.zero_()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=False
        ):
            codes, logits = self.network(x)
        codes, logits = codes.float(), logits.float()
        targets = self.targets(batch, codes, logits)
        losses, _ = objective(codes, logits, targets, self.anchors, spec, self.group.all_reduce_)
        losses.total.backward()
        losses = self._whole_batch(losses)
        self.group.all_reduce_(self.parameters.gradient)
        self.parameters.add_regularization_gradient()
        self.parameters.scale_gradient()
        self.parameters.clip_gradient(self.plan.clip_norm)
        return losses

    def _whole_batch(self, losses: Losses) -> Losses:
        """The losses of the whole batch, summed over the shards of all processes."""
        if self.group.size == 1:
            return losses
        parts = torch.stack([losses.localization, losses.classification, losses.positives.float()])
        localization, classification, positives = self.group.all_reduce_(parts).unbind()
        return Losses(localization + classification, localization, classification, positives)

    def broadcast_from_main(self) -> None:
        """Replace weights, optimiser state and step by those of the main process."""
        step = torch.tensor(self.state.step, device=self.device)
        vectors = [self.parameters.weights, *self.state.vectors().values()]
        self.group.broadcast_([*vectors, *self.network.buffers(), step])
        self.state.step = int(step)

    def input(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, H, W, 3) uint8 -> the network's input (B, 3, H, W)."""
        images = images.to(self.device, non_blocking=True)
        return images.permute(0, 3, 1, 2).to(torch.float32).mul_(INPUT_SCALE).add_(INPUT_OFFSET)

    def targets(self, batch: Batch, codes: torch.Tensor, logits: torch.Tensor) -> Targets:
        """What the losses compare the network's outputs with."""
        spec = self.plan.objective
        if spec.dynamic is None:
            return match_targets(batch, self.anchors, spec)
        return assign_dynamically(
            codes,
            logits,
            batch,
            self.anchors,
            self.cells,
            spec.num_classes,
            spec.dynamic,
            spec.box_coder,
            spec.matcher.static,
        )

    def average_statistics(self, batches: Batches) -> dict[str, np.ndarray]:
        """Batch-norm statistics for the averaged weights, name -> array; empty if the plan has no recalibration."""
        count, average = self.plan.recalibration_batches, self.state.average
        if not count or average is None:
            return {}
        inputs = (self.input(batches.batch(self.state.step + i)[0]) for i in range(count))
        statistics = recalibrated_statistics(self.network, self.parameters.split(average), inputs)
        return {f"{name}/{AVERAGE}": array for name, array in statistics.items()}

    def checkpoint(
        self, metadata: dict[str, str], statistics: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> Checkpoint:
        """Everything needed to resume. `statistics`: batch-norm statistics for the averaged weights."""
        variables = {**self.network.get_weights(), **statistics}
        for slot, vector in self.state.vectors().items():
            for name, tensor in self.parameters.split(vector).items():
                variables[f"{name}/{slot}"] = to_tensorflow(name, tensor)
        return Checkpoint(self.state.step, variables, metadata, self.state.optimizer.scalars(self.state.step))

    @torch.no_grad()
    def restore(self, saved: Checkpoint) -> None:
        """Resume from a checkpoint of the same configuration.

        Raises:
            ModelError: its variables do not match the network.
        """
        self.network.set_weights(saved.variables)
        for slot, vector in self.state.vectors().items():
            for name, tensor in self.parameters.split(vector).items():
                if f"{name}/{slot}" in saved.variables:
                    tensor.copy_(from_tensorflow(name, saved.variables[f"{name}/{slot}"]))
                elif slot == AVERAGE:
                    tensor.copy_(from_tensorflow(name, saved.variables[name]))
        self.state.step = saved.step
