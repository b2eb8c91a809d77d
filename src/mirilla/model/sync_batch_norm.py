"""Synchronised batch norm: statistics of a batch that is split over several processes.

Computes the same as `torch.nn.SyncBatchNorm`, but on any device and with any all-reduce function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

AllReduce = Callable[[Tensor], Tensor]  # replaces a tensor by its sum over all processes, and returns it


def sync_batch_norm(
    x: Tensor,
    moving_mean: Tensor,
    moving_variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    momentum: float,
    epsilon: float,
    all_reduce: AllReduce,
) -> Tensor:
    """F.batch_norm in training; x (B, C, H, W) is this process's part of the batch."""
    result: Tensor = _SyncBatchNorm.apply(x, gamma, beta, moving_mean, moving_variance, momentum, epsilon, all_reduce)
    return result


class _Context(FunctionCtx):
    """Values that the forward pass saves for the backward pass."""

    all_reduce: AllReduce
    saved_tensors: tuple[Tensor, ...]


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        moving_mean: Tensor,
        moving_variance: Tensor,
        momentum: float,
        epsilon: float,
        all_reduce: AllReduce,
    ) -> Tensor:
        variance, mean = torch.var_mean(_at_least_float32(x), (0, 2, 3), unbiased=False)
        mean, variance = mean.double(), variance.double()  # float32 would lose digits in the sums below
        count = torch.full_like(mean[:1], x.numel() // x.shape[1])
        parts = torch.stack([mean, variance + mean * mean]) * count
        sums = all_reduce(torch.cat([count, parts.flatten()]))
        count = sums[:1]
        mean, square = (sums[1:] / count).view(2, -1)
        variance = (square - mean * mean).clamp_(min=0)
        moving_mean.lerp_(mean.to(moving_mean.dtype), momentum)
        moving_variance.lerp_((variance * count / (count - 1).clamp(min=1)).to(moving_variance.dtype), momentum)
        mean, inverse_stddev = mean.to(gamma.dtype), torch.rsqrt(variance + epsilon).to(gamma.dtype)
        centred = x - _per_channel(mean)  # a single fused shift would lose digits where means are large
        ctx.all_reduce = all_reduce
        ctx.save_for_backward(x, gamma, mean, inverse_stddev, count.to(gamma.dtype))
        return (centred * _per_channel(gamma * inverse_stddev) + _per_channel(beta)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator loses the signature
        ctx: _Context, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, gamma, mean, inverse_stddev, count = ctx.saved_tensors
        gradient = _at_least_float32(gradient)
        normalised = (_at_least_float32(x) - _per_channel(mean)) * _per_channel(inverse_stddev)
        of_beta, of_gamma = gradient.sum((0, 2, 3)), (gradient * normalised).sum((0, 2, 3))
        # the gradients of gamma and beta are all-reduced with those of all other weights
        sums = ctx.all_reduce(torch.stack([of_beta, of_gamma])) / count
        inner = gradient - _per_channel(sums[0]) - normalised * _per_channel(sums[1])
        of_x = (inner * _per_channel(gamma * inverse_stddev)).to(x.dtype)
        return of_x, of_gamma, of_beta, None, None, None, None, None


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _per_channel(values: Tensor) -> Tensor:  # (C,) -> (C, 1, 1)
    return values[:, None, None]
