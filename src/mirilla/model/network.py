"""The SSD network in PyTorch, built from the layer table; no numbers of its own.

Weights come and go as arrays under the original's variable names, in TensorFlow's layouts, so checkpoints, frozen
graphs and old TensorFlow 1 files all speak of the same tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mirilla.errors import ModelError
from mirilla.model import fused
from mirilla.model import sync_batch_norm as synchronised
from mirilla.model.conv import BoxAndClassPredictor, ConvBatchNormRelu6
from mirilla.model.layers import Architecture, architecture
from mirilla.model.spec import ModelSpec


class SsdNetwork(nn.Module):
    """Images to box codes and class logits, anchors in the order of `mirilla.model.anchors`.

    Input: (B, 3, H, W) float, 2/255 * pixel - 1. Outputs: codes (B, A, 4), logits (B, A, num_classes + 1), the
    background first.
    """

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.spec = spec
        self.table: Architecture = architecture(spec)
        sizes = {"": (spec.height_px, spec.width_px)} | {e.name: (e.height, e.width) for e in self.table.layers}
        self.layers = nn.ModuleList(
            ConvBatchNormRelu6(e, *sizes[e.input], spec.batch_norm_epsilon) for e in self.table.layers
        )
        self.predictors = nn.ModuleList(BoxAndClassPredictor(p) for p in self.table.predictors)
        self._maps = {p.input: i for i, p in enumerate(self.table.predictors)}
        self.fused = True  # training on a CPU runs on Mirilla's own kernels where Numba is installed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes: list[Tensor] = []
        logits: list[Tensor] = []
        for layers, predictor in self._runs(x):
            x = fused.run(layers, x) if len(layers) > 1 else layers[0](x)
            if predictor is not None:
                box, classes = predictor(x)
                boxes.append(box)
                logits.append(classes)
        return torch.cat(boxes, 1), torch.cat(logits, 1)

    def _runs(self, x: Tensor) -> Iterator[tuple[list[ConvBatchNormRelu6], BoxAndClassPredictor | None]]:
        """The layers in the order in which they run, those that are computed as one together, and what predicts from
        the last of them."""
        together = (
            self.fused
            and self.training
            and torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.shape[2:] == (self.spec.height_px, self.spec.width_px)
            and not x.requires_grad
            and not torch.is_autocast_enabled("cpu")
            and fused.available()
        )
        run: list[ConvBatchNormRelu6] = []
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            assert isinstance(layer, ConvBatchNormRelu6)
            if run and not (together and fused.kind_of(run[-1]) and fused.kind_of(layer) not in (None, "stem")):
                yield run, None
                run = []
            run.append(layer)
            if entry.name in self._maps:
                yield run, self.predictors[self._maps[entry.name]]  # type: ignore[misc]
                run = []

    def tensors(self) -> dict[str, Tensor]:
        """Every variable, by the original's name: the parameters and moving statistics themselves, torch's layout."""
        result: dict[str, Tensor] = {}
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            result[entry.weights] = layer.weight  # type: ignore[assignment]
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                result[entry.batch_norm(name)] = getattr(layer, name)
        for entry, predictor in zip(self.table.predictors, self.predictors, strict=True):
            for scope, conv in ((entry.box_scope, predictor.box), (entry.class_scope, predictor.classes)):
                result[f"{scope}/weights"] = conv.weight  # type: ignore[union-attr,assignment]
                result[f"{scope}/biases"] = conv.bias  # type: ignore[union-attr,assignment]
        return result

    def get_weights(self) -> dict[str, np.ndarray]:
        """Every variable as a float32 array in TensorFlow's layout."""
        return {name: to_tensorflow(name, tensor.detach()) for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load every variable.

        Raises:
            ModelError: a variable is missing, or has another shape; nothing has been changed then.
        """
        tensors = self.tensors()
        new = {name: from_tensorflow(name, weights[name]) for name in tensors if name in weights}
        missing = [name for name in tensors if name not in new]
        if missing:
            raise ModelError(
                f"The weights lack {len(missing)} of {len(tensors)} variables, '{missing[0]}' first.",
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
        """The variables that the optimiser moves."""
        return {name: t for name, t in self.tensors().items() if isinstance(t, nn.Parameter)}

    def set_batch_norm_decay(self, base: float, extra: float) -> None:
        """Decay of the moving statistics: of the base network's layers, and of the extra maps'."""
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            layer.momentum = 1.0 - (base if entry.is_base else extra)

    def freeze_batch_norm(self, base: bool, extra: bool) -> None:
        """Whether training leaves the moving statistics alone and normalises by them."""
        for entry, layer in zip(self.table.layers, self.layers, strict=True):
            layer.frozen = base if entry.is_base else extra

    def synchronise_batch_norm(self, add_up: synchronised.AddUp) -> None:
        """Normalise by the statistics of all the processes that share a batch; layer by layer in PyTorch."""
        self.fused = False
        for layer in self.layers:
            layer.add_up = add_up  # type: ignore[assignment]

    def set_dropout(self, share: float) -> None:
        """Share of the class predictors' input that training drops."""
        for predictor in self.predictors:
            predictor.dropout = share


@dataclass(frozen=True)
class Initializer:
    """How fresh kernels are drawn.

    kind: 'truncated_normal' (cut at two deviations; stddev is that before the cut), 'normal', or 'variance_scaling'
    (arXiv:1502.01852, as TensorFlow's contrib layers have it), which goes by the kernel's fan.
    """

    kind: str = "truncated_normal"
    mean: float = 0.0
    stddev: float = 0.03
    factor: float = 2.0
    mode: str = "FAN_IN"  # or FAN_OUT, FAN_AVG
    uniform: bool = False

    def fill(self, kernel: Tensor, generator: torch.Generator) -> None:
        """Draw a kernel (out, in, h, w) in place."""
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
    """Fresh kernels for the base network, the extra maps and the predictors; biases 0 (those of the class logits
    `class_bias`, of which the background's, the first, may have its own), gamma 1, beta 0."""
    with torch.no_grad():
        for entry, layer in zip(network.table.layers, network.layers, strict=True):
            (base if entry.is_base else extra).fill(layer.weight, generator)  # type: ignore[arg-type]
        for head in network.predictors:
            for conv in (head.box, head.classes):
                predictor.fill(conv.weight, generator)  # type: ignore[arg-type,union-attr]
                conv.bias.zero_()  # type: ignore[union-attr,operator]
            head.classes.bias.fill_(class_bias)  # type: ignore[union-attr,operator]
            if background_bias is not None:
                head.classes.bias[:: head.columns] = background_bias  # type: ignore[union-attr,operator,index]


def from_tensorflow(name: str, array: np.ndarray) -> Tensor:
    """A variable in TensorFlow's layout -> torch's: HWIO -> OIHW, HWC1 -> C1HW, vectors as they are."""
    array = np.asarray(array, np.float32)
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if name.endswith("depthwise_weights") else array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))


def to_tensorflow(name: str, tensor: Tensor) -> np.ndarray:
    """The reverse of `from_tensorflow`."""
    array = tensor.cpu().numpy()
    if array.ndim == 4:
        array = array.transpose(2, 3, 0, 1) if name.endswith("depthwise_weights") else array.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array)
