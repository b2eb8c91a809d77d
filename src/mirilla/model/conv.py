"""The two kinds of layers that the network is made of, in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirilla.model import sync_batch_norm as synchronised
from mirilla.model.layers import Layer, Predictor
from mirilla.padding import same_padding


class ConvBatchNormRelu6(nn.Module):
    """One `Layer`: convolution with TensorFlow's SAME padding, batch norm, ReLU6."""

    def __init__(self, layer: Layer, input_height: int, input_width: int, epsilon: float):
        super().__init__()
        depthwise = layer.kind == "depthwise"
        self.stride, self.epsilon = layer.stride, epsilon
        self.groups = layer.in_channels if depthwise else 1
        self.momentum = 0.0003  # 1 - decay; the trainer sets it
        self.frozen = False  # whether training, too, normalises by the moving statistics
        self.add_up: synchronised.AddUp | None = None  # where several processes share a batch
        self.weight = nn.Parameter(
            torch.empty(layer.out_channels, 1 if depthwise else layer.in_channels, layer.kernel, layer.kernel)
        )
        self.gamma = nn.Parameter(torch.ones(layer.out_channels))
        self.beta = nn.Parameter(torch.zeros(layer.out_channels))
        self.register_buffer("moving_mean", torch.zeros(layer.out_channels))
        self.register_buffer("moving_variance", torch.ones(layer.out_channels))
        top, bottom = same_padding(input_height, layer.kernel, layer.stride)
        left, right = same_padding(input_width, layer.kernel, layer.stride)
        self.before = (top, left)
        symmetric = top == bottom and left == right
        self.padding = (top, left) if symmetric else (0, 0)
        self.extra_padding = None if symmetric else (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C_out, H', W')
        if self.extra_padding:
            x = F.pad(x, self.extra_padding)
        x = F.conv2d(x, self.weight, None, self.stride, self.padding, 1, self.groups)
        training = self.training and not self.frozen
        if training and self.add_up is not None:
            x = synchronised.batch_norm(
                x,
                self.moving_mean,
                self.moving_variance,
                self.gamma,  # type: ignore[arg-type]
                self.beta,
                self.momentum,
                self.epsilon,
                self.add_up,
            )
        else:
            x = F.batch_norm(
                x,
                self.moving_mean,
                self.moving_variance,
                self.gamma,
                self.beta,  # type: ignore[arg-type]
                training,
                self.momentum,
                self.epsilon,
            )
        return F.hardtanh(x, 0.0, 6.0, inplace=True)


class BoxAndClassPredictor(nn.Module):
    """One `Predictor`: two 1x1 convolutions with bias, and in training dropout before that of the classes."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.columns = predictor.num_classes + 1
        self.dropout = 0.0  # share of the input's values; the trainer sets it
        self.box = nn.Conv2d(predictor.in_channels, predictor.box_channels, 1)
        self.classes = nn.Conv2d(predictor.in_channels, predictor.class_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # -> (B, H*W*K, 4), (B, H*W*K, columns)
        batch = len(x)
        boxes = self.box(x).permute(0, 2, 3, 1).reshape(batch, -1, 4)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return boxes, self.classes(x).permute(0, 2, 3, 1).reshape(batch, -1, self.columns)
