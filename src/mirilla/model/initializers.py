"""Initial values of a network's variables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirilla.model.network import SsdNetwork, bias_of


@dataclass(frozen=True)
class Initializer:
    """The distribution of initial kernels.

    kind: 'truncated_normal' (at two standard deviations; stddev is the value before truncation), 'normal', or
        'variance_scaling' (arXiv:1502.01852, as in TensorFlow's contrib layers), whose deviation depends on the fan.
    """

    kind: str = "truncated_normal"
    mean: float = 0.0
    stddev: float = 0.03
    factor: float = 2.0
    mode: str = "FAN_IN"  # or FAN_OUT, FAN_AVG
    uniform: bool = False

    def fill(self, kernel: Tensor, generator: torch.Generator) -> None:
        """Draw a kernel (C_out, C_in, H, W) in place."""
        mean, stddev = self.mean, self.stddev
        if self.kind == "variance_scaling":
            area = kernel.shape[2] * kernel.shape[3]
            fan_in, fan_out = kernel.shape[1] * area, kernel.shape[0] * area
            fan = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "FAN_AVG": (fan_in + fan_out) / 2}[self.mode]
            if self.uniform:
                limit = math.sqrt(3 * self.factor / fan)
                kernel.uniform_(-limit, limit, generator=generator)
                return
            mean, stddev = 0.0, math.sqrt(1.3 * self.factor / fan)
        if self.kind == "normal":
            kernel.normal_(mean, stddev, generator=generator)
        else:
            nn.init.trunc_normal_(kernel, mean, stddev, mean - 2 * stddev, mean + 2 * stddev, generator=generator)


def initialise(
    network: SsdNetwork,
    generator: torch.Generator,
    base: Initializer = Initializer(stddev=0.09),
    extra: Initializer = Initializer(stddev=0.03),
    predictor: Initializer = Initializer(stddev=0.03),
    class_bias: float = 0.0,
    background_bias: float | None = None,
) -> None:
    """Draw the kernels of the base network, the extra layers and the predictors.

    gamma is 1 and beta 0. Biases are 0, except for the class logits: `class_bias`, and for the background (the
    first column) `background_bias` if given.
    """
    with torch.no_grad():
        for entry, layer in zip(network.table.layers, network.layers, strict=True):
            (base if entry.is_base else extra).fill(layer.weight, generator)
        for head in network.predictors:
            for conv in (head.box, head.classes):
                predictor.fill(conv.weight, generator)
                bias_of(conv).zero_()
            class_biases = bias_of(head.classes)
            class_biases.fill_(class_bias)
            if background_bias is not None:
                class_biases[:: head.columns] = background_bias
