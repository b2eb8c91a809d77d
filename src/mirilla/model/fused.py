"""A run of the network's layers as one differentiable function, on the kernels of `mirilla.kernels.convolutions`.

It computes what the layers compute one by one in PyTorch; sums of batch norm run in the same order at one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from mirilla.kernels.threads import Team, shares, team
from mirilla.model.conv import ConvBatchNormRelu6

LANES = 16
Floats = NDArray[np.float32]


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether Numba is installed and works here."""
    try:
        from mirilla.kernels import convolutions as kernels  # noqa: F401
    except ImportError:
        return False
    return True


_threads: int | None = None  # of the kernels; None: as many as PyTorch's


@contextmanager
def taking_threads(wanted: bool = True) -> Iterator[None]:
    """Inside, the kernels have PyTorch's threads and PyTorch's own operations one.

    What is left to those is small; shared out, it waits by spinning for threads that other work keeps from running.
    """
    global _threads
    before = torch.get_num_threads()
    if not wanted or before == 1 or not available():
        yield
        return
    _threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _threads = None
        torch.set_num_threads(before)


def kind_of(layer: ConvBatchNormRelu6) -> str | None:
    """'stem', 'depthwise' or 'pointwise', the layers that there are kernels for; None for others."""
    outer, inner, height, width = layer.weight.shape
    if outer % LANES or layer.frozen:
        return None
    if layer.groups > 1 or (inner == 1 and layer.groups == outer):
        return "depthwise" if (height, width, layer.groups) == (3, 3, outer) and layer.stride in (1, 2) else None
    if (height, width, layer.stride) == (1, 1, 1) and inner % LANES == 0:
        return "pointwise"
    return "stem" if (height, width, inner) == (3, 3, 3) else None


def run(layers: Sequence[ConvBatchNormRelu6], x: Tensor) -> Tensor:
    """What the layers make of x (B, C, H, W), one after the other; every one has a kind, only the first may be a stem.

    Training only: batch norm by the batch's statistics, moving statistics updated.
    """
    parameters = [p for layer in layers for p in (layer.weight, layer.gamma, layer.beta)]
    return _Fused.apply(tuple(layers), x, *parameters)  # type: ignore[no-any-return]


@dataclass
class _Map:
    """What a layer read or left: z (B, H, W, C), and how it becomes h = relu6(scale * z + shift)."""

    z: Floats
    scale: Floats
    shift: Floats
    mean: Floats
    deviation: Floats  # its reciprocal

    @property
    def flat(self) -> Floats:
        return self.z.reshape(-1, self.z.shape[-1])

    @property
    def pixels(self) -> int:
        return self.z.shape[1] * self.z.shape[2]

    def coefficients(self, sums: Floats) -> Floats:
        """(4, C): of g, of z - mean, the mean, and the constant, in the gradient of z."""
        count = np.float32(self.z.size // self.z.shape[-1])
        slope = -self.scale * self.deviation * self.deviation * sums[1] / count
        return np.stack([self.scale, slope, self.mean, -self.scale * sums[0] / count])


class _Fused(torch.autograd.Function):
    @staticmethod
    @np.errstate(all="ignore")  # the loss says whether it is a number
    def forward(ctx: Any, layers: tuple[ConvBatchNormRelu6, ...], x: Tensor, *parameters: Tensor) -> Tensor:
        crew = team(_threads or torch.get_num_threads())
        maps = [_input(x)]
        for i, layer in enumerate(layers):
            maps.append(_forward(crew, layer, maps[-1], *(_array(p) for p in parameters[3 * i : 3 * i + 3])))
        ctx.layers, ctx.maps, ctx.parameters, ctx.crew = layers, maps, parameters, crew
        last = maps[-1]
        h = np.empty_like(last.z)
        _share(
            crew,
            last,
            lambda low, high, i: _kernels().activate(
                last.flat, last.scale, last.shift, low * last.pixels, high * last.pixels, h.reshape(last.flat.shape)
            ),
        )
        return torch.from_numpy(h).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    @np.errstate(all="ignore")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        crew, maps = ctx.crew, ctx.maps
        last = maps.pop()
        incoming = _channels_last(gradient)
        g = np.empty_like(last.z)
        channels = last.z.shape[-1]
        sums = _share(
            crew,
            last,
            lambda low, high, part: _kernels().gate(
                incoming.reshape(-1, channels),
                last.flat,
                last.scale,
                last.shift,
                last.mean,
                low * last.pixels,
                high * last.pixels,
                g.reshape(-1, channels),
                part,
            ),
            (2, channels),
        )
        results: list[Tensor | None] = []
        for i in reversed(range(len(ctx.layers))):
            before = maps.pop()
            weights = ctx.parameters[3 * i]
            g_in, sums_in, change = _backward(crew, ctx.layers[i], before, last, g, sums, _array(weights))
            results += [torch.from_numpy(sums[0]), torch.from_numpy(sums[1] * last.deviation), change]
            last, g, sums = before, g_in, sums_in
        inner = None if not ctx.needs_input_grad[1] else torch.from_numpy(g).permute(0, 3, 1, 2)
        return (None, inner, *reversed(results))


def _kernels():
    from mirilla.kernels import convolutions as kernels

    return kernels


def _forward(crew: Team, layer: ConvBatchNormRelu6, before: _Map, weight: Floats, gamma: Floats, beta: Floats) -> _Map:
    kernels = _kernels()
    kind = kind_of(layer)
    batch, height, width, _ = before.z.shape
    channels = len(gamma)
    top, left = layer.before
    z = np.empty((batch, -(-height // layer.stride), -(-width // layer.stride), channels), np.float32)
    weights = _matrix(kind, weight)
    if kind == "stem":

        def work(low: int, high: int, part: Floats) -> None:
            kernels.stem(before.z, weights, layer.stride, top, left, low, high, z, part)
    elif kind == "depthwise":

        def work(low: int, high: int, part: Floats) -> None:
            kernels.depthwise(
                before.z, before.scale, before.shift, weights, layer.stride, top, left, low, high, z, part
            )
    else:

        def work(low: int, high: int, part: Floats) -> None:
            kernels.pointwise(
                before.flat,
                before.scale,
                before.shift,
                weights,
                low * before.pixels,
                high * before.pixels,
                z.reshape(-1, channels),
                part,
            )

    count = np.float32(z.size // channels)
    mean = _share(crew, before, work, (channels,)) / count
    pixels = z.shape[1] * z.shape[2]
    variance = (
        _share(
            crew,
            before,
            lambda low, high, part: kernels.squares(z.reshape(-1, channels), mean, low * pixels, high * pixels, part),
            (channels,),
        )
        / count
    )
    _move(layer.moving_mean, mean, layer.momentum)
    _move(layer.moving_variance, variance * (count / max(count - 1, np.float32(1))), layer.momentum)
    deviation = (1 / np.sqrt(variance.astype(np.float64) + layer.epsilon)).astype(np.float32)
    scale: Floats = gamma * deviation
    shift = np.asarray(beta - mean * scale, np.float32)
    return _Map(z, scale, shift, mean, deviation)


def _backward(
    crew: Team, layer: ConvBatchNormRelu6, before: _Map, after: _Map, g: Floats, sums: Floats, weight: Floats
) -> tuple[Floats, Floats, Tensor]:
    """g and its sums of the layer's input (nothing for a picture), and the gradient of its weights."""
    kernels = _kernels()
    kind = kind_of(layer)
    inner, outer = before.z.shape[-1], after.z.shape[-1]
    coefficients = after.coefficients(sums)
    top, left = layer.before
    weights = _matrix(kind, weight)
    size = weights.size
    g_in: Floats = np.empty_like(before.z if kind != "stem" else before.z[:0])
    # one array for a share's sums: of g, of g * (z - mean), and the weights' gradient behind them
    if kind == "stem":

        def work(low: int, high: int, part: Floats) -> None:
            kernels.stem_backward(
                g,
                after.z,
                coefficients,
                before.z,
                layer.stride,
                top,
                left,
                low,
                high,
                part[2 * inner :].reshape(weights.shape),
            )
    elif kind == "depthwise":
        kernel = kernels.depthwise_backward if layer.stride == 1 else kernels.depthwise_backward_2

        def work(low: int, high: int, part: Floats) -> None:
            kernel(
                g,
                after.z,
                coefficients,
                before.z,
                before.scale,
                before.shift,
                before.mean,
                weights,
                top,
                left,
                low,
                high,
                g_in,
                part[: 2 * inner].reshape(2, inner),
                part[2 * inner :].reshape(weights.shape),
            )
    else:
        transposed = np.ascontiguousarray(weights.T)

        def work(low: int, high: int, part: Floats) -> None:
            kernels.pointwise_backward(
                g.reshape(-1, outer),
                after.flat,
                coefficients,
                before.flat,
                before.scale,
                before.shift,
                before.mean,
                transposed,
                low * before.pixels,
                high * before.pixels,
                g_in.reshape(-1, inner),
                part[: 2 * inner].reshape(2, inner),
                part[2 * inner :].reshape(weights.shape),
            )

    total = _share(crew, before, work, (2 * inner + size,))
    change = torch.from_numpy(_unmatrix(kind, total[2 * inner :].reshape(weights.shape), weight.shape))
    return g_in, total[: 2 * inner].reshape(2, inner), change


def _share(crew: Team, of: _Map, work: Callable[[int, int, Any], object], shape: tuple[int, ...] = (0,)) -> Floats:
    """Run `work` on every share of the batch, each with zeros of this shape to add to; their sum in a fixed order."""
    parts = shares(len(of.z), crew.threads)
    sums = np.zeros((len(parts), *shape), np.float32)
    crew.run(lambda i: work(*parts[i], sums[i]), len(parts))
    return sums[0] if len(parts) == 1 else sums.sum(0)


def _matrix(kind: str | None, weight: Floats) -> Floats:
    """A convolution's weights as its kernel wants them: (27, C), (9, C) or (C_in, C_out)."""
    if kind == "stem":
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(27, -1)
    if kind == "depthwise":
        return np.ascontiguousarray(weight.reshape(len(weight), 9).T)
    return np.ascontiguousarray(weight[:, :, 0, 0].T)


def _unmatrix(kind: str | None, matrix: Floats, shape: tuple[int, ...]) -> Floats:
    if kind == "stem":
        return np.ascontiguousarray(matrix.reshape(3, 3, 3, -1).transpose(3, 2, 0, 1))
    return np.ascontiguousarray(matrix.T).reshape(shape)


def _input(x: Tensor) -> _Map:
    """x stands for itself: relu6(1 * x + 0), as it comes out of a ReLU6 or, before a stem, is not clipped."""
    z = _channels_last(x)
    channels = z.shape[-1]
    one, nought = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return _Map(z, one, nought, nought, one)


def _channels_last(x: Tensor) -> Floats:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().contiguous().numpy()


def _move(moving: Tensor, value: Floats, momentum: float) -> None:
    moving.mul_(1 - momentum).add_(torch.from_numpy(value), alpha=momentum)
