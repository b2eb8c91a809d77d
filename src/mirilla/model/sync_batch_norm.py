"""Batch norm over a batch that several processes share: by the statistics of the whole of it.

What torch's own SyncBatchNorm does, for any device, and for sums that somebody else carries around.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AddUp = Callable[[Tensor], Tensor]  # the sum of everybody's tensor, in its place


def batch_norm(
    x: Tensor,
    moving_mean: Tensor,
    moving_variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    momentum: float,
    epsilon: float,
    add_up: AddUp,
) -> Tensor:
    """F.batch_norm in training, x (B, C, H, W) being this process's part of the batch."""
    return _BatchNorm.apply(  # type: ignore[no-any-return]
        x, gamma, beta, moving_mean, moving_variance, momentum, epsilon, add_up
    )


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        moving_mean: Tensor,
        moving_variance: Tensor,
        momentum: float,
        epsilon: float,
        add_up: AddUp,
    ) -> Tensor:
        variance, mean = torch.var_mean(_wide(x), (0, 2, 3), unbiased=False)
        mean, variance = mean.double(), variance.double()  # float32 would lose digits in what follows
        count = torch.full_like(mean[:1], x.numel() // x.shape[1])
        parts = torch.stack([mean, variance + mean * mean]) * count
        sums = add_up(torch.cat([count, parts.flatten()]))
        count = sums[:1]
        mean, square = (sums[1:] / count).view(2, -1)
        variance = (square - mean * mean).clamp_(min=0)
        moving_mean.lerp_(mean.to(moving_mean.dtype), momentum)
        moving_variance.lerp_((variance * count / (count - 1).clamp(min=1)).to(moving_variance.dtype), momentum)
        mean, deviation = mean.to(gamma.dtype), torch.rsqrt(variance + epsilon).to(gamma.dtype)
        scale = gamma * deviation
        centred = x - _each(mean)  # not folded into one shift, which would lose digits where means are large
        ctx.add_up = add_up
        ctx.save_for_backward(x, gamma, mean, deviation, count.to(gamma.dtype))
        return (centred * _each(scale) + _each(beta)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, deviation, count = ctx.saved_tensors
        wide = _wide(gradient)
        normal = (_wide(x) - _each(mean)) * _each(deviation)
        of_beta, of_gamma = wide.sum((0, 2, 3)), (wide * normal).sum((0, 2, 3))
        # the gradients of gamma and beta are added up with those of all other weights
        sums = ctx.add_up(torch.stack([of_beta, of_gamma])) / count
        inner = wide - _each(sums[0]) - normal * _each(sums[1])
        return (inner * _each(gamma * deviation)).to(x.dtype), of_gamma, of_beta, None, None, None, None, None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _each(values: Tensor) -> Tensor:
    return values[:, None, None]
