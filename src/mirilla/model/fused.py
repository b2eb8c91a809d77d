"""Layers as one differentiable function on the compiled kernels of `mirilla.kernels.convolutions`.

The results are those of the layers run one by one in PyTorch. With one thread, batch norm's sums also run in the same
order. Training only: batch norm normalises by the batch's statistics and updates the moving ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mirilla.kernels.threads import ThreadPool, chunks, thread_pool
from mirilla.model.conv import ConvBatchNormRelu6

LANES = 16  # channels must be a multiple of it
Floats = NDArray[np.float32]


def supports(x: Tensor) -> bool:
    """Whether `run` supports a network's input: float32 on the CPU in training, with Numba installed."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not x.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and is_available()
    )


def run(layers: Sequence[ConvBatchNormRelu6], x: Tensor) -> Tensor:
    """Apply the layers to x (B, C, H, W) in order, fusing consecutive layers that have kernels."""
    for group in _groups(layers):
        x = run_together(group, x) if len(group) > 1 else group[0](x)
    return x


def run_together(layers: Sequence[ConvBatchNormRelu6], x: Tensor) -> Tensor:
    """Apply layers that all have kernels to x (B, C, H, W); only the first may take images."""
    parameters = [p for layer in layers for p in (layer.weight, layer.gamma, layer.beta)]
    result: Tensor = _FusedLayers.apply(tuple(layers), x, *parameters)
    return result


def _groups(layers: Sequence[ConvBatchNormRelu6]) -> Iterator[list[ConvBatchNormRelu6]]:
    group: list[ConvBatchNormRelu6] = []
    for layer in layers:
        if group and not (kernel_class(group[-1]) and kernel_class(layer) not in (None, _Stem)):
            yield group
            group = []
        group.append(layer)
    yield group


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether Numba is installed and the kernels can be used."""
    try:
        _kernels()
    except ImportError:
        return False
    return True


def _kernels():
    from mirilla.kernels import convolutions  # lazily: importing Numba takes half a second

    return convolutions


_kernel_threads: int | None = None  # number of kernel threads; None: as many as PyTorch's


@contextmanager
def threads_for_kernels(enabled: bool = True) -> Iterator[None]:
    """Context in which the kernels use PyTorch's number of threads, and PyTorch's own operations use one.

    PyTorch's share of the work is small. With several threads it would spin while it waits for busy threads.
    """
    global _kernel_threads
    before = torch.get_num_threads()
    if not enabled or before == 1 or not is_available():
        yield
        return
    _kernel_threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _kernel_threads = None
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Context in which the calling thread rounds denormal numbers to zero, if the processor can.

    Weight decay takes the weights of unused channels there, where each multiplication costs some hundred cycles: a
    training from ImageNet's weights becomes four times slower within 2,000 steps.
    """
    _flush_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _flush_denormals() -> None:
    torch.set_flush_denormal(True)


@dataclass
class _FeatureMap:
    """A layer's input or output: z (B, H, W, C), and the batch norm that gives h = relu6(scale * z + shift)."""

    z: Floats
    scale: Floats
    shift: Floats
    mean: Floats
    inverse_stddev: Floats

    @property
    def channels(self) -> int:
        return self.z.shape[-1]

    @property
    def pixels(self) -> int:
        """Number of pixels per image."""
        return self.z.shape[1] * self.z.shape[2]

    def gradient_coefficients(self, sums: Floats) -> Floats:
        """Coefficients (4, C) of the gradient of z: factors of g and of z - mean, the mean, and a constant."""
        count = np.float32(self.z.size // self.channels)
        slope = -self.scale * self.inverse_stddev * self.inverse_stddev * sums[1] / count
        return np.stack([self.scale, slope, self.mean, -self.scale * sums[0] / count])


class _LayerKernels(ABC):
    """The kernels of a layer, and its weights as the matrix that they take.

    low, high: range of images in the batch.
    x: the layer's input. y: its output. g, g_in: (B, H, W, C) the gradients of y and x where ReLU6 passes them.
    """

    def __init__(self, layer: ConvBatchNormRelu6, weight: Floats):
        self.stride, (self.top, self.left) = layer.stride, layer.padding_before
        self.weight_shape = weight.shape
        self.matrix = self.to_matrix(weight)

    @abstractmethod
    def to_matrix(self, weight: Floats) -> Floats: ...

    def to_weight(self, matrix: Floats) -> Floats:
        return np.ascontiguousarray(matrix.T).reshape(self.weight_shape)

    @abstractmethod
    def forward(self, x: _FeatureMap, low: int, high: int, z: Floats, sums: Floats) -> None:
        """Write z of the output; add its sums to sums (C_out,)."""

    @abstractmethod
    def backward(
        self,
        x: _FeatureMap,
        y: _FeatureMap,
        g: Floats,
        coefficients: Floats,
        low: int,
        high: int,
        g_in: Floats,
        sums: Floats,
        gradient: Floats,
    ) -> None:
        """Write g_in; add sums of g_in and g_in * (z - mean) to sums (2, C_in), the matrix's gradient to gradient."""


class _Stem(_LayerKernels):
    """3x3 convolution of images, which need no gradient; the matrix is (27, C)."""

    def to_matrix(self, weight):
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(27, -1)

    def to_weight(self, matrix):
        return np.ascontiguousarray(matrix.reshape(3, 3, 3, -1).transpose(3, 2, 0, 1))

    def forward(self, x, low, high, z, sums):
        _kernels().stem(x.z, self.matrix, self.stride, self.top, self.left, low, high, z, sums)

    def backward(self, x, y, g, coefficients, low, high, g_in, sums, gradient):
        _kernels().stem_backward(g, y.z, coefficients, x.z, self.stride, self.top, self.left, low, high, gradient)


class _Depthwise(_LayerKernels):
    """3x3 depthwise convolution; the matrix is (9, C)."""

    def to_matrix(self, weight):
        return np.ascontiguousarray(weight.reshape(len(weight), 9).T)

    def forward(self, x, low, high, z, sums):
        _kernels().depthwise(
            x.z, x.scale, x.shift, self.matrix, self.stride, self.top, self.left, low, high, z, sums
        )  # fmt: skip

    def backward(self, x, y, g, coefficients, low, high, g_in, sums, gradient):
        kernel = _kernels().depthwise_backward if self.stride == 1 else _kernels().depthwise_backward_2
        inputs = x.z, x.scale, x.shift, x.mean, self.matrix, self.top, self.left
        kernel(g, y.z, coefficients, *inputs, low, high, g_in, sums, gradient)


class _Pointwise(_LayerKernels):
    """1x1 convolution; the matrix is (C_in, C_out)."""

    def to_matrix(self, weight):
        return np.ascontiguousarray(weight[:, :, 0, 0].T)

    def forward(self, x, low, high, z, sums):
        pixels = low * x.pixels, high * x.pixels
        _kernels().pointwise(_flat(x.z), x.scale, x.shift, self.matrix, *pixels, _flat(z), sums)

    def backward(self, x, y, g, coefficients, low, high, g_in, sums, gradient):
        transposed = np.ascontiguousarray(self.matrix.T)
        inputs = _flat(x.z), x.scale, x.shift, x.mean, transposed
        pixels = low * x.pixels, high * x.pixels
        _kernels().pointwise_backward(
            _flat(g), _flat(y.z), coefficients, *inputs, *pixels, _flat(g_in), sums, gradient
        )  # fmt: skip


def kernel_class(layer: ConvBatchNormRelu6) -> type[_LayerKernels] | None:
    """The class of the layer's kernels; None if no kernels support it."""
    outer, inner, height, width = layer.weight.shape
    if outer % LANES or layer.frozen:
        return None
    if layer.groups > 1 or (inner == 1 and layer.groups == outer):
        supported = (height, width, layer.groups) == (3, 3, outer) and layer.stride in (1, 2)
        return _Depthwise if supported else None
    if (height, width, layer.stride) == (1, 1, 1) and inner % LANES == 0:
        return _Pointwise
    return _Stem if (height, width, inner) == (3, 3, 3) else None


class _Context(FunctionCtx):
    """Values that the forward pass saves for the backward pass."""

    pool: ThreadPool
    kernels: list[_LayerKernels]
    maps: list[_FeatureMap]  # the input, and every layer's output
    needs_input_grad: tuple[bool, ...]


class _FusedLayers(torch.autograd.Function):
    @staticmethod
    @np.errstate(all="ignore")  # the trainer checks whether the loss is finite
    def forward(
        ctx: _Context, layers: tuple[ConvBatchNormRelu6, ...], x: Tensor, *parameters: Tensor
    ) -> Tensor:  # (B, C, H, W) -> (B, C_out, H', W')
        pool = thread_pool(_kernel_threads or torch.get_num_threads(), _flush_denormals)
        maps, kernels = [_input_map(x)], []
        for i, layer in enumerate(layers):
            weight, gamma, beta = (_array(p) for p in parameters[3 * i : 3 * i + 3])
            layer_class = kernel_class(layer)
            assert layer_class is not None
            kernels.append(layer_class(layer, weight))
            maps.append(_forward(pool, layer, kernels[-1], maps[-1], gamma, beta))
        ctx.pool, ctx.kernels, ctx.maps = pool, kernels, maps
        return torch.from_numpy(_activate(pool, maps[-1])).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    @np.errstate(all="ignore")
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator loses the signature
        ctx: _Context, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        maps = ctx.maps
        y = maps.pop()
        g, sums = _gate(ctx.pool, y, _channels_last(gradient))
        results: list[Tensor | None] = []  # gradients of beta, gamma and weight, from the last layer to the first
        for kernels in reversed(ctx.kernels):
            x = maps.pop()
            g_in, sums_in, of_weight = _backward(ctx.pool, kernels, x, y, g, sums)
            results += [torch.from_numpy(array) for array in (sums[0], sums[1] * y.inverse_stddev, of_weight)]
            y, g, sums = x, g_in, sums_in
        of_input = torch.from_numpy(g).permute(0, 3, 1, 2) if ctx.needs_input_grad[1] else None
        return (None, of_input, *reversed(results))


def _forward(
    pool: ThreadPool, layer: ConvBatchNormRelu6, kernels: _LayerKernels, x: _FeatureMap, gamma: Floats, beta: Floats
) -> _FeatureMap:
    """A layer's output; updates its moving statistics."""
    batch, height, width, _ = x.z.shape
    channels = len(gamma)
    z = np.empty((batch, -(-height // layer.stride), -(-width // layer.stride), channels), np.float32)
    count, pixels = np.float32(z.size // channels), z.shape[1] * z.shape[2]

    def convolve(low: int, high: int, sums: Floats) -> None:
        kernels.forward(x, low, high, z, sums)

    mean = _sum_over_batch(pool, batch, convolve, (channels,)) / count

    def squares(low: int, high: int, sums: Floats) -> None:
        _kernels().squares(_flat(z), mean, low * pixels, high * pixels, sums)

    variance = _sum_over_batch(pool, batch, squares, (channels,)) / count
    _update_moving(layer.moving_mean, mean, layer.momentum)
    unbiased = variance * (count / max(count - 1, np.float32(1)))
    _update_moving(layer.moving_variance, unbiased, layer.momentum)
    inverse_stddev = (1 / np.sqrt(variance.astype(np.float64) + layer.epsilon)).astype(np.float32)
    scale: Floats = gamma * inverse_stddev
    shift = np.asarray(beta - mean * scale, np.float32)
    return _FeatureMap(z, scale, shift, mean, inverse_stddev)


def _activate(pool: ThreadPool, y: _FeatureMap) -> Floats:
    """h of a feature map."""
    h = np.empty_like(y.z)

    def work(low: int, high: int, _sums: Floats) -> None:
        _kernels().activate(_flat(y.z), y.scale, y.shift, low * y.pixels, high * y.pixels, _flat(h))

    _sum_over_batch(pool, len(h), work, (0,))
    return h


def _gate(pool: ThreadPool, y: _FeatureMap, gradient: Floats) -> tuple[Floats, Floats]:
    """g of a feature map and its sums (2, C), from the gradient of h."""
    g = np.empty_like(y.z)

    def work(low: int, high: int, sums: Floats) -> None:
        pixels = low * y.pixels, high * y.pixels
        _kernels().gate(_flat(gradient), _flat(y.z), y.scale, y.shift, y.mean, *pixels, _flat(g), sums)

    return g, _sum_over_batch(pool, len(g), work, (2, y.channels))


def _backward(
    pool: ThreadPool, kernels: _LayerKernels, x: _FeatureMap, y: _FeatureMap, g: Floats, sums: Floats
) -> tuple[Floats, Floats, Floats]:
    """g of a layer's input, its sums (2, C_in), and its weights' gradient; for images the first two are empty or 0."""
    coefficients, inner = y.gradient_coefficients(sums), x.channels
    g_in: Floats = np.empty_like(x.z[:0] if isinstance(kernels, _Stem) else x.z)

    def work(low: int, high: int, totals: Floats) -> None:
        sums_in, of_matrix = totals[: 2 * inner].reshape(2, inner), totals[2 * inner :].reshape(kernels.matrix.shape)
        kernels.backward(x, y, g, coefficients, low, high, g_in, sums_in, of_matrix)

    totals = _sum_over_batch(pool, len(x.z), work, (2 * inner + kernels.matrix.size,))
    of_matrix = totals[2 * inner :].reshape(kernels.matrix.shape)
    return g_in, totals[: 2 * inner].reshape(2, inner), kernels.to_weight(of_matrix)


def _sum_over_batch(
    pool: ThreadPool, images: int, work: Callable[[int, int, Floats], None], shape: tuple[int, ...]
) -> Floats:
    """Run work(low, high, sums) on every chunk of the batch; `sums` are zeros to add to. Returns their total.

    The chunks' sums are added in a fixed order.
    """
    ranges = chunks(images, pool.threads)
    sums = np.zeros((len(ranges), *shape), np.float32)
    pool.run(lambda i: work(*ranges[i], sums[i]), len(ranges))
    return sums[0] if len(ranges) == 1 else sums.sum(0)


def _input_map(x: Tensor) -> _FeatureMap:
    """x unchanged, as relu6(1 * x + 0): it is the output of a ReLU6, or images, which the stem does not clip."""
    z = _channels_last(x)
    ones, zeros = np.ones(z.shape[-1], np.float32), np.zeros(z.shape[-1], np.float32)
    return _FeatureMap(z, ones, zeros, zeros, ones)


def _flat(array: Floats) -> Floats:  # (B, H, W, C) -> (B * H * W, C), a view
    return array.reshape(-1, array.shape[-1])


def _channels_last(x: Tensor) -> Floats:  # (B, C, H, W) -> (B, H, W, C)
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().contiguous().numpy()


def _update_moving(moving: Tensor, value: Floats, momentum: float) -> None:
    moving.mul_(1 - momentum).add_(torch.from_numpy(value), alpha=momentum)
