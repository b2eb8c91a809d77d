"""TensorFlow 1's optimisers and moving average, on all parameters as one flat vector.

PyTorch's RMSprop differs from TensorFlow's in the position of epsilon, the accumulator's initial value and the use of
the learning rate, so the optimisers are implemented here. With one vector instead of 119 tensors a step is a handful
of operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirilla.weights.checkpoint import AVERAGE

Rate = float | Tensor  # a scalar on the device in a captured step


def _add_quotient(target: Tensor, numerator: Tensor, denominator: Tensor, rate: Rate) -> None:
    """target += rate * numerator / denominator, in place; the denominator is overwritten."""
    if isinstance(rate, Tensor):
        target.addcmul_(torch.div(numerator, denominator, out=denominator), rate)
    else:
        target.addcdiv_(numerator, denominator, value=rate)


@dataclass(frozen=True)
class RmsProp:
    """TensorFlow's RMSProp. Slots: `RMSProp` (initially 1) and `RMSProp_1` (momentum, includes the learning rate)."""

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1.0
    slots = {"RMSProp": 1.0, "RMSProp_1": 0.0}  # noqa: RUF012

    def rate_at(self, rate: float, step: int) -> float:
        return rate

    def scalars(self, step: int) -> dict[str, float]:
        return {}

    def update(self, weights: Tensor, gradient: Tensor, slots: Mapping[str, Tensor], rate: Rate) -> None:
        mean_square, momentum = slots["RMSProp"], slots["RMSProp_1"]
        mean_square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        root = (mean_square + self.epsilon).sqrt_()
        momentum.mul_(self.momentum)
        _add_quotient(momentum, gradient, root, rate)
        weights.sub_(momentum)


@dataclass(frozen=True)
class Momentum:
    """TensorFlow's momentum optimiser. Slot: `Momentum`."""

    momentum: float = 0.9
    slots = {"Momentum": 0.0}  # noqa: RUF012

    def rate_at(self, rate: float, step: int) -> float:
        return rate

    def scalars(self, step: int) -> dict[str, float]:
        return {}

    def update(self, weights: Tensor, gradient: Tensor, slots: Mapping[str, Tensor], rate: Rate) -> None:
        accumulator = slots["Momentum"].mul_(self.momentum).add_(gradient)
        weights.sub_(accumulator * rate)


@dataclass(frozen=True)
class Adam:
    """TensorFlow's Adam. Slots: `Adam` and `Adam_1` (arXiv:1412.6980, the form with epsilon-hat)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    slots = {"Adam": 0.0, "Adam_1": 0.0}  # noqa: RUF012

    def rate_at(self, rate: float, step: int) -> float:
        return rate * math.sqrt(1 - self.beta2 ** (step + 1)) / (1 - self.beta1 ** (step + 1))

    def scalars(self, step: int) -> dict[str, float]:
        """The variables without slots that TensorFlow has after `step` steps."""
        return {"beta1_power": self.beta1 ** (step + 1), "beta2_power": self.beta2 ** (step + 1)}

    def update(self, weights: Tensor, gradient: Tensor, slots: Mapping[str, Tensor], rate: Rate) -> None:
        first = slots["Adam"].mul_(self.beta1).add_(gradient, alpha=1 - self.beta1)
        second = slots["Adam_1"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        _add_quotient(weights, first, second.sqrt().add_(self.epsilon), -rate)


Optimizer = RmsProp | Momentum | Adam


class FlatParameters:
    """All trainable tensors of a network, and their gradients, as views into one vector each.

    weights, gradient: (P,). l2: (P,) L2 weight of each element. scale: (P,) factor of each element's gradient, 0 if
    frozen; None if all are 1.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], l2: Mapping[str, float], scale: Mapping[str, float] | None = None
    ):
        self.names = list(parameters)
        self.sizes = [p.numel() for p in parameters.values()]
        self.shapes = [p.shape for p in parameters.values()]
        first = next(iter(parameters.values()))
        self.weights = torch.empty(sum(self.sizes), device=first.device)
        self.gradient = torch.zeros_like(self.weights)
        self.l2 = torch.zeros_like(self.weights)
        views = zip(
            parameters.items(),
            self.split(self.weights).values(),
            self.split(self.gradient).values(),
            self.split(self.l2).values(),
            strict=True,
        )
        for (name, parameter), weight, gradient, l2_weight in views:
            weight.copy_(parameter.data)
            parameter.data, parameter.grad = weight, gradient
            l2_weight.fill_(l2.get(name, 0.0))

        self.scale = torch.ones_like(self.weights) if scale else None
        if scale and self.scale is not None:
            for name, part in self.split(self.scale).items():
                part.fill_(scale.get(name, 1.0))

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Name -> view of the vector (P,) in the parameter's shape."""
        parts = vector.split(self.sizes)
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def regularization(self) -> Tensor:
        """The L2 loss, sum of l2 * w^2 / 2."""
        return 0.5 * (self.l2 * self.weights * self.weights).sum()

    def add_regularization_gradient(self) -> None:
        self.gradient.addcmul_(self.l2, self.weights)

    def scale_gradient(self) -> None:
        if self.scale is not None:
            self.gradient.mul_(self.scale)

    def clip_gradient(self, norm: float) -> None:
        """Scale the gradient to at most this global norm; 0 does not clip."""
        if norm > 0:
            self.gradient.mul_((norm / (self.gradient.norm() + 1e-12)).clamp(max=1.0))


class TrainState:
    """Training state besides the network's tensors: optimiser slots, moving average and step."""

    def __init__(
        self,
        parameters: FlatParameters,
        optimizer: Optimizer,
        average_decay: float | None,
        average_warmup: bool = False,
    ):
        self.parameters, self.optimizer = parameters, optimizer
        self.average_decay, self.average_warmup = average_decay, average_warmup
        self.slots = {n: torch.full_like(parameters.weights, start) for n, start in optimizer.slots.items()}
        self.average = parameters.weights.clone() if average_decay is not None else None
        self.step = 0

    def vectors(self) -> dict[str, Tensor]:
        """Optimiser slots and moving average, as stored in a checkpoint: suffix of the variables' names -> (P,)."""
        return self.slots if self.average is None else {**self.slots, AVERAGE: self.average}

    def factors(self, learning_rate: float, step: int) -> tuple[float, float]:
        """Factors of a step's update: the optimiser's rate, and the weight of the new values in the average."""
        rate, decay = self.optimizer.rate_at(learning_rate, step), self.average_decay or 0.0
        if self.average_warmup:  # so that a short run's average does not contain the initial weights
            decay = min(decay, (1 + step) / (10 + step))
        return rate, 1 - decay

    @torch.no_grad()
    def update(self, rate: Rate, share: Rate) -> None:
        """Update the weights with the gradient in `parameters`, and their moving average, but not `step`."""
        self.optimizer.update(self.parameters.weights, self.parameters.gradient, self.slots, rate)
        if self.average is not None:
            self.average.lerp_(self.parameters.weights, share)

    def apply(self, learning_rate: float) -> None:
        """Apply one update with the gradient in `parameters`."""
        self.update(*self.factors(learning_rate, self.step))
        self.step += 1
