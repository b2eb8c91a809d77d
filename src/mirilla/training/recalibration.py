"""Batch-norm statistics for the moving averages of the weights.

The network's moving statistics belong to its latest weights, but averaged weights give different activations.
Measuring the statistics again with the averaged weights, over some training batches, makes long averages possible.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from mirilla.model.network import SsdNetwork

STATISTICS = ("moving_mean", "moving_variance")


@torch.no_grad()
def recalibrated_statistics(
    network: SsdNetwork, averages: dict[str, Tensor], inputs: Iterable[Tensor]
) -> dict[str, np.ndarray]:
    """The moving statistics of averaged weights, as means over batches.

    Args:
        averages: variable name -> tensor in torch's layout, for every trained variable.
        inputs: batches (B, 3, H, W) of the network's input.

    Returns:
        Variable name -> (channels,); empty if there is no batch. The network is unchanged afterwards.
    """
    tensors = network.tensors()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    momentum = [layer.momentum for layer in network.layers]
    count = 0
    try:
        for name, tensor in averages.items():
            tensors[name].copy_(tensor)
        for x in inputs:
            count += 1
            for layer in network.layers:
                layer.momentum = 1.0 / count  # the mean of all batches so far
            network(x)
        result = {n: t.cpu().numpy().copy() for n, t in tensors.items() if n.rpartition("/")[2] in STATISTICS}
    finally:
        for name, tensor in tensors.items():
            tensor.copy_(kept[name])
        for layer, value in zip(network.layers, momentum, strict=True):
            layer.momentum = value
    return result if count else {}
