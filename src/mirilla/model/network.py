"""The SSD network in PyTorch, built from the layer table of `mirilla.model.layers`.

Weights are exchanged as arrays in TensorFlow's layouts under the original variable names, so that checkpoints, frozen
graphs and old TensorFlow 1 files all contain the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from mirilla.errors import ModelError
from mirilla.model import fused
from mirilla.model.conv import BoxAndClassPredictor, ConvBatchNormRelu6
from mirilla.model.layers import Architecture, architecture
from mirilla.model.spec import ModelSpec
from mirilla.model.sync_batch_norm import AllReduce

M = TypeVar("M", bound=nn.Module)


class ModuleList(nn.ModuleList, Generic[M]):
    """`nn.ModuleList` of modules of one type."""

    def __iter__(self) -> Iterator[M]:
        return cast(Iterator[M], super().__iter__())


class SsdNetwork(nn.Module):
    """Computes box codes and class logits of images, anchors in the order of `mirilla.model.anchors`.

    Input: (B, 3, H, W) float, 2/255 * pixel - 1. Outputs: codes (B, A, 4), logits (B, A, num_classes + 1), background
    first.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.table: Architecture = architecture(spec)
        sizes = {"": (spec.height_px, spec.width_px)} | {e.name: (e.height, e.width) for e in self.table.layers}
        self.layers = ModuleList[ConvBatchNormRelu6](
            ConvBatchNormRelu6(e, *sizes[e.input], spec.batch_norm_epsilon) for e in self.table.layers
        )
        self.predictors = ModuleList[BoxAndClassPredictor](BoxAndClassPredictor(p) for p in self.table.predictors)
        self.use_kernels = True  # train with Mirilla's own CPU kernels if Numba is installed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, 3, H, W) -> (B, A, 4), (B, A, num_classes + 1)
        size = self.spec.height_px, self.spec.width_px
        kernels = self.use_kernels and self.training and x.shape[2:] == size and fused.supports(x)
        run = fused.run if kernels else _run
        boxes: list[Tensor] = []
        logits: list[Tensor] = []
        for layers, predictor in self._stages():
            x = run(layers, x)  # (B, C, H', W') a feature map
            map_boxes, map_logits = predictor(x)
            boxes.append(map_boxes)
            logits.append(map_logits)
        return torch.cat(boxes, 1), torch.cat(logits, 1)

    def _stages(self) -> Iterator[tuple[list[ConvBatchNormRelu6], BoxAndClassPredictor]]:
        """The layers up to each feature map, and the predictor on that map."""
        predictors = {p.input: module for p, module in zip(self.table.predictors, self.predictors, strict=True)}
        layers: list[ConvBatchNormRelu6] = []
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            layers.append(layer)
            if entry.name in predictors:
                yield layers, predictors[entry.name]
                layers = []

    def tensors(self) -> dict[str, Tensor]:
        """Original variable name -> parameter or moving statistic in torch's layout (not a copy)."""
        result: dict[str, Tensor] = {}
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            result[entry.weights] = layer.weight
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                result[entry.batch_norm(name)] = getattr(layer, name)
        for entry, predictor in zip(self.table.predictors, self.predictors, strict=True):
            for scope, conv in ((entry.box_scope, predictor.box), (entry.class_scope, predictor.classes)):
                result[f"{scope}/weights"] = conv.weight
                result[f"{scope}/biases"] = bias_of(conv)
        return result

    def get_weights(self) -> dict[str, np.ndarray]:
        """Every variable as a float32 array in TensorFlow's layout."""
        return {name: to_tensorflow(name, tensor.detach()) for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load every variable.

        Raises:
            ModelError: a variable is missing or has another shape; the network is unchanged.
        """
        tensors = self.tensors()
        new = {name: from_tensorflow(name, weights[name]) for name in tensors if name in weights}
        missing = [name for name in tensors if name not in new]
        if missing:
            raise ModelError(
                f"The weights lack {len(missing)} of {len(tensors)} variables, starting with '{missing[0]}'.",
                "Use a checkpoint of the same feature extractor.",
            )
        for name, tensor in tensors.items():
            if tensor.shape != new[name].shape:
                raise ModelError(
                    f"Variable '{name}' has shape {tuple(weights[name].shape)}, the network needs "
                    f"{to_tensorflow(name, tensor.detach()).shape}.",
                    "Use the pipeline.config that the checkpoint was trained with.",
                )
        for name, tensor in tensors.items():
            tensor.copy_(new[name])

    def trainable(self) -> dict[str, nn.Parameter]:
        """The variables that the optimiser updates."""
        return {name: t for name, t in self.tensors().items() if isinstance(t, nn.Parameter)}

    def set_batch_norm_decay(self, base: float, extra: float) -> None:
        """Set the decay of the moving statistics in the base network's layers and in the extra layers."""
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            layer.momentum = 1.0 - (base if entry.is_base else extra)

    def freeze_batch_norm(self, base: bool, extra: bool) -> None:
        """Set whether training normalises by the moving statistics and leaves them unchanged."""
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            layer.frozen = base if entry.is_base else extra

    def use_sync_batch_norm(self, all_reduce: AllReduce) -> None:
        """Normalise by the statistics of all processes that share a batch.

        The layers then run one by one in PyTorch, without fused kernels.
        """
        self.use_kernels = False
        for layer in self.layers:
            layer.all_reduce = all_reduce

    def set_dropout(self, share: float) -> None:
        """Set the dropout rate of the class predictors' input."""
        for predictor in self.predictors:
            predictor.dropout = share


def _run(layers: Sequence[ConvBatchNormRelu6], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def bias_of(conv: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias


def from_tensorflow(name: str, array: np.ndarray) -> Tensor:
    """A variable from TensorFlow's layout to torch's: HWIO -> OIHW, HWC1 -> C1HW, vectors unchanged."""
    array = np.asarray(array, np.float32)
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if name.endswith("depthwise_weights") else array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))


def to_tensorflow(name: str, tensor: Tensor) -> np.ndarray:
    """The inverse of `from_tensorflow`."""
    array = tensor.cpu().numpy()
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if name.endswith("depthwise_weights") else array.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array)
