"""The network's two building blocks in PyTorch: a convolution with batch norm and ReLU6, and a predictor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirilla.model.layers import Layer, Predictor
from mirilla.model.sync_batch_norm import AllReduce, sync_batch_norm
from mirilla.padding import same_padding


class ConvBatchNormRelu6(nn.Module):
    """A `Layer`: convolution with TensorFlow's SAME padding, batch norm, ReLU6."""

    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, layer: Layer, input_height: int, input_width: int, epsilon: float):
        super().__init__()
        depthwise = layer.kind == "depthwise"
        self.stride, self.epsilon = layer.stride, epsilon
        self.groups = layer.in_channels if depthwise else 1
        self.momentum = 0.0003  # 1 - decay; set by `SsdNetwork.set_batch_norm_decay`
        self.frozen = False  # whether training, too, normalises by the moving statistics
        self.all_reduce: AllReduce | None = None  # sums over processes; set if several processes share a batch
        self.weight = nn.Parameter(
            torch.empty(layer.out_channels, 1 if depthwise else layer.in_channels, layer.kernel, layer.kernel)
        )
        self.gamma = nn.Parameter(torch.ones(layer.out_channels))
        self.beta = nn.Parameter(torch.zeros(layer.out_channels))
        self.register_buffer("moving_mean", torch.zeros(layer.out_channels))
        self.register_buffer("moving_variance", torch.ones(layer.out_channels))
        top, bottom = same_padding(input_height, layer.kernel, layer.stride)
        left, right = same_padding(input_width, layer.kernel, layer.stride)
        self.padding_before = (top, left)
        symmetric = top == bottom and left == right
        self.padding = (top, left) if symmetric else (0, 0)
        self.extra_padding = None if symmetric else (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C_out, H', W')
        if self.extra_padding:
            x = F.pad(x, self.extra_padding)
        x = F.conv2d(x, self.weight, None, self.stride, self.padding, 1, self.groups)
        x = self._batch_norm(x)
        return F.hardtanh(x, 0.0, 6.0, inplace=True)

    def _batch_norm(self, x: Tensor) -> Tensor:
        mean, variance, gamma, beta = self.moving_mean, self.moving_variance, self.gamma, self.beta
        training = self.training and not self.frozen
        if training and self.all_reduce is not None:
            return sync_batch_norm(x, mean, variance, gamma, beta, self.momentum, self.epsilon, self.all_reduce)
        return F.batch_norm(x, mean, variance, gamma, beta, training, self.momentum, self.epsilon)


class BoxAndClassPredictor(nn.Module):
    """A `Predictor`: two 1x1 convolutions with bias. In training, dropout precedes the class convolution."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.columns = predictor.num_classes + 1
        self.dropout = 0.0  # dropout rate of the input; set by `SsdNetwork.set_dropout`
        self.box = nn.Conv2d(predictor.in_channels, predictor.box_channels, 1)
        self.classes = nn.Conv2d(predictor.in_channels, predictor.class_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, H, W) -> (B, H*W*K, 4), (B, H*W*K, columns)
        batch = len(x)
        boxes = self.box(x).permute(0, 2, 3, 1).reshape(batch, -1, 4)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return boxes, self.classes(x).permute(0, 2, 3, 1).reshape(batch, -1, self.columns)
