"""The finish of `augment_finish` for a batch, on the device: light, colour, blur, noise, JPEG.

All in float32 of 0..255, rounded where the host's steps round.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mirilla.batches import photo_effects as host
from mirilla.batches.gpu_random import Draws, constant
from mirilla.batches.photo_effects import Finish, Photometric

BLUR_PX = 9  # side of the kernels that blur


def finished(draws: Draws, pixels: Tensor, finish: Finish) -> Tensor:
    """(B, 3, H, W) -> the same, changed."""
    batch = len(pixels)
    matrix = torch.eye(3, device=pixels.device).expand(batch, 3, 3)
    if finish.photometric is not None:
        happens = draws.happens(finish.photometric.probability)
        matrix = torch.where(happens[:, None, None], _colours(draws, finish.photometric), matrix)
    if finish.grey is not None:
        luma = constant(tuple(host.LUMA), pixels.device).expand(3, 3)
        matrix = torch.where(draws.happens(finish.grey.probability)[:, None, None], luma, matrix)
    if finish.photometric is not None or finish.grey is not None:
        red, green, blue = pixels.unbind(1)
        weights = matrix[..., None, None].unbind(2)  # (B, 3, 1, 1) each
        pixels = sum(w * c[:, None] for w, c in zip(weights, (red, green, blue), strict=True))  # type: ignore[assignment]
        pixels = pixels.clamp(0, 255)
    if finish.photometric is not None:
        pixels = torch.where(_each(happens), _toned(draws, pixels, finish.photometric), pixels)  # type: ignore[possibly-undefined]
    if finish.blur is not None:
        happens = draws.happens(finish.blur.probability)
        pixels = torch.where(_each(happens), _filtered(pixels, _kernels(draws, finish.blur)), pixels)
    if finish.noise is not None:
        spread = draws.one(0, finish.noise.most_stddev) * draws.happens(finish.noise.probability)
        pixels = (pixels + _each(spread.to(torch.float32)) * _normal(draws, pixels)).clamp(0, 255)
    if finish.jpeg_traces is not None:
        least = min(finish.jpeg_traces.least_quality, host.MOST_QUALITY)
        quality = least + draws.below(host.MOST_QUALITY + 1 - least)
        happens = draws.happens(finish.jpeg_traces.probability)
        pixels = torch.where(_each(happens), jpeg_coded(pixels, quality), pixels)
    return pixels


def _matrix(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return constant(tuple(map(tuple, values.tolist())), device, dtype)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _colours(draws: Draws, step: Photometric) -> Tensor:
    """The twin of `Photometric.colours`: (B, 3, 3)."""
    factor = torch.exp(math.log(1.7) * step.strength * draws.one(-1, 1))
    angle = math.radians(20 * step.strength) * draws.one(-1, 1)
    across, along = factor * torch.cos(angle), factor * torch.sin(angle)
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    rows = ((one, zero, zero), (zero, across, -along), (zero, along, across))
    chroma = torch.stack([torch.stack(row, 1) for row in rows], 1)
    rgb, yiq = (_matrix(m, chroma.device, torch.float64) for m in (host.RGB, host.YIQ))
    return (rgb @ chroma @ yiq).to(torch.float32)


def _toned(draws: Draws, pixels: Tensor, step: Photometric) -> Tensor:
    """The twin of `Photometric.table`."""
    powers = torch.exp(math.log(1.5) * step.strength * draws.uniform(2, -1, 1)).to(torch.float32)
    brightness = (40 * step.strength * draws.one(-1, 1)).to(torch.float32)
    curved = 255 * (pixels.round() / 255) ** _each(powers[:, 0])
    return ((curved - 128) * _each(powers[:, 1]) + 128 + _each(brightness)).round().clamp(0, 255)


def _kernels(draws: Draws, step: host.Blur) -> Tensor:
    """(B, BLUR_PX, BLUR_PX) of sum 1: round ones, and lines."""
    sigma = draws.one(0.3, max(step.most_sigma_px, 0.3))
    angle, moves = draws.one(0, math.pi), draws.happens(host.MOTION)
    away = torch.arange(BLUR_PX, device=sigma.device, dtype=torch.float64) - BLUR_PX // 2
    falls = torch.exp(-0.5 * (away / sigma[:, None]) ** 2)
    round_ones = falls[:, :, None] * falls[:, None, :]
    # a line's share of a pixel: how much of it, cut into short pieces, lies nearest to that pixel
    pieces = torch.linspace(-0.5, 0.5, 4 * BLUR_PX, device=sigma.device, dtype=torch.float64)
    pieces = pieces * (sigma * math.sqrt(12)).clamp(max=BLUR_PX - 1)[:, None]
    rows = (torch.round(pieces * torch.sin(angle)[:, None])[..., None] == away).to(torch.float64)
    columns = (torch.round(pieces * torch.cos(angle)[:, None])[..., None] == away).to(torch.float64)
    lines = rows.transpose(1, 2) @ columns
    kernels = torch.where(moves[:, None, None], lines, round_ones)
    return (kernels / kernels.sum((1, 2), keepdim=True)).to(torch.float32)


def _filtered(pixels: Tensor, kernels: Tensor) -> Tensor:
    """Every picture with its own kernel, the edge mirrored as OpenCV does."""
    batch, channels, height, width = pixels.shape
    padded = F.pad(pixels, (BLUR_PX // 2,) * 4, mode="reflect")
    weights = kernels[:, None].expand(-1, channels, -1, -1).reshape(batch * channels, 1, BLUR_PX, BLUR_PX)
    flat = padded.reshape(1, batch * channels, *padded.shape[2:])
    return F.conv2d(flat, weights, groups=batch * channels).reshape(batch, channels, height, width)


def _normal(draws: Draws, pixels: Tensor) -> Tensor:
    """Normally distributed, of the pixels' shape (Box and Muller, 1958)."""
    shape = pixels.shape[1:]
    radius = torch.sqrt(-2 * torch.log1p(-draws.pixels(*shape)))
    return radius * torch.cos(2 * math.pi * draws.pixels(*shape))


# ---- JPEG: ITU-T T.81 (1992), annexes A and K; colours as in JFIF; chroma of half the size ---------------------------

_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg_coded(pixels: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of a quality (B,) leaves of pictures (B, 3, H, W): the sampling and rounding, without the coding."""
    height, width = pixels.shape[2:]
    pixels = F.pad(pixels, (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix, back = (_matrix(m, pixels.device) for m in (np.array(_YCC), np.linalg.inv(_YCC)))
    ycc = torch.einsum("ij,bjhw->bihw", matrix, pixels)
    quality = quality.to(torch.float32)
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)[:, None, None]
    tables = (constant(t, pixels.device) for t in (_LUMA_STEPS, _CHROMA_STEPS))
    steps = [((table * percent + 50) / 100).floor().clamp(1, 255) for table in tables]
    luma = _rounded(ycc[:, :1] - 128, steps[0]) + 128
    chroma = F.interpolate(
        _rounded(F.avg_pool2d(ycc[:, 1:], 2), steps[1]), scale_factor=2, mode="bilinear", align_corners=False
    )
    decoded = torch.einsum("ij,bjhw->bihw", back, torch.cat([luma, chroma], 1))
    return decoded[:, :, :height, :width].round().clamp(0, 255)


def _rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """(B, C, H, W) through the cosine transform of 8 x 8 blocks, whose coefficients keep whole steps (B, 8, 8)."""
    basis = _matrix(_cosines(), planes.device)
    blocks = planes.unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).transpose(3, 4)  # (B, C, H / 8, W / 8, 8, 8)
    steps = steps[:, None, None, None]
    found = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ found @ basis).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _cosines() -> np.ndarray:
    """(8, 8) rows are the cosine transform's basis, of length 1."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    basis = 0.5 * np.cos((2 * n + 1) * k * np.pi / 16)
    basis[0] /= np.sqrt(2)
    return basis
