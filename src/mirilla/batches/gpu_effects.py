"""The effects of a drawn batch on a GPU: the API's colours, and a photo's light, colour, blur, noise and JPEG.

All in float32 of 0..255, rounded where the host's rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mirilla.batches import api_colours as api
from mirilla.batches.examples import Effect
from mirilla.batches.noise_pools import NORMAL_STDDEV
from mirilla.batches.photo_effects import DrawnEffects, motion_kernel

Columns = Mapping[str, Tensor]  # of the table, by name

BLUR_PX = 9  # side of the kernels that blur


_CONSTANTS: dict[tuple[torch.device, str], Tensor] = {}


def _on(device: torch.device, name: str, values: ArrayLike) -> Tensor:
    """Constants on a device, copied there once only: a captured graph cannot hold the copy."""
    key = device, name
    if key not in _CONSTANTS:
        _CONSTANTS[key] = torch.from_numpy(np.asarray(values, np.float32)).to(device)
    return _CONSTANTS[key]


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


# ---- the API's colours


def api_columns(effects: Sequence[Effect]) -> dict[str, NDArray]:
    """The numbers (B,) of effects that the GPU can paint, under names that `paint_api` reads."""
    return {
        f"effect {i} {name}": values.astype(np.float32)
        for i, effect in enumerate(effects)
        for name, values in vars(effect).items()
        if isinstance(values, np.ndarray)
    }


def paint_api(kinds: Sequence[type], columns: Columns, pixels: Tensor) -> Tensor:
    """Apply effects of these types in turn to pixels (B, 3, H, W); contrast takes the mean of the whole input."""
    for i, kind in enumerate(kinds):
        prefix = f"effect {i} "
        own = {name.removeprefix(prefix): _each(value) for name, value in columns.items() if name.startswith(prefix)}
        pixels = PAINTED[kind](own, pixels)
    return pixels


def _brightness(columns: Columns, pixels: Tensor) -> Tensor:
    return (pixels + 255 * columns["delta"]).clamp(0, 255)


def _contrast(columns: Columns, pixels: Tensor) -> Tensor:
    mean = pixels.mean((2, 3), keepdim=True)
    return ((pixels - mean) * columns["factor"] + mean).clamp(0, 255)


def _grey(columns: Columns, pixels: Tensor) -> Tensor:
    grey = sum(weight * pixels[:, i : i + 1] for i, weight in enumerate(api.LUMA.tolist()))
    return torch.where(columns["acts"] > 0, grey, pixels)


def _hue_saturation(columns: Columns, pixels: Tensor) -> Tensor:
    high, low = pixels.amax(1), pixels.amin(1)
    chroma = high - low
    red, green, blue = pixels.unbind(1)
    span = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        high == red,
        (green - blue) / span,
        torch.where(high == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    sector = sector + 6 * columns["turn"][:, 0]
    chroma = torch.minimum(chroma * columns["factor"][:, 0], high)
    # the share of the chroma by which each channel is below the highest
    parts = [chroma * (torch.remainder(sector + n, 6) - 3).abs().sub(1).clamp(0, 1) for n in (0, 4, 2)]
    return torch.stack([high - chroma + part for part in parts], 1).clamp(0, 255)


PAINTED: dict[type, Callable[[Columns, Tensor], Tensor]] = {
    api.Brightness: _brightness,
    api.Contrast: _contrast,
    api.Grey: _grey,
    api.HueSaturation: _hue_saturation,
}


# ---- a photo's effects


def photo_columns(effects: DrawnEffects) -> dict[str, NDArray]:
    """The numbers of B inputs, under names that `paint_photo` reads."""
    return {
        "matrix": np.where(effects.recolours[:, None, None], effects.matrix, np.eye(3)).astype(np.float32),
        "curves": effects.curves,
        "curve": effects.curve.astype(np.float32),
        "blurs": effects.blurs,
        "kernel": _kernels(effects),
        "noise share": np.where(effects.noisy, effects.stddev / NORMAL_STDDEV, 0).astype(np.float32),
        "noise start": effects.noise_start,
        "codes": effects.codes,
        "quality": effects.quality.astype(np.float32),
    }


def _kernels(effects: DrawnEffects) -> NDArray[np.float32]:
    """(B, BLUR_PX, BLUR_PX) of sum 1, for those that blur."""
    kernels = np.zeros((len(effects.blurs), BLUR_PX, BLUR_PX), np.float32)
    for row in np.flatnonzero(effects.blurs):
        sigma_px = float(effects.sigma_px[row])
        if effects.moves[row]:
            kernel = motion_kernel(sigma_px, float(effects.angle[row]), BLUR_PX)
            margin = (BLUR_PX - len(kernel)) // 2
            kernels[row] = np.pad(kernel, margin)
        else:
            line = cv2.getGaussianKernel(BLUR_PX, sigma_px)
            kernels[row] = line @ line.T
    return kernels


def paint_photo(columns: Columns, pixels: Tensor, normal: Tensor) -> Tensor:
    """Apply a photo's effects to pixels (B, 3, H, W).

    Args:
        normal: the normal pool (POOL_PX, POOL_PX, 3) uint8.
    """
    red, green, blue = pixels.unbind(1)
    weights = columns["matrix"][..., None, None].unbind(2)  # (B, 3, 1, 1) each
    parts = [weight * channel[:, None] for weight, channel in zip(weights, (red, green, blue), strict=True)]
    pixels = (parts[0] + parts[1] + parts[2]).clamp(0, 255)
    gamma, contrast, brightness = (_each(part) for part in columns["curve"].unbind(1))
    curved = 255 * (pixels.round() / 255) ** gamma
    curved = ((curved - 128) * contrast + 128 + brightness).round().clamp(0, 255)
    pixels = torch.where(_each(columns["curves"]), curved, pixels)
    pixels = torch.where(_each(columns["blurs"]), _filtered(pixels, columns["kernel"]), pixels)
    noise = cut_pool(normal, columns["noise start"], *pixels.shape[2:]).to(torch.float32) - 128
    pixels = (pixels + _each(columns["noise share"]) * noise).clamp(0, 255)
    return torch.where(_each(columns["codes"]), jpeg_coded(pixels, columns["quality"]), pixels)


def cut_pool(pool: Tensor, start: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, height, width) parts of a pool (P, P, 3) from rows and columns (B, 2) on, wrapping around at its edges."""
    rows = (start[:, :1] + torch.arange(height, device=pool.device)) % len(pool)
    columns = (start[:, 1:] + torch.arange(width, device=pool.device)) % len(pool)
    return pool[rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _filtered(pixels: Tensor, kernels: Tensor) -> Tensor:
    """Every picture with its own kernel, the edge mirrored as OpenCV does."""
    batch, channels, height, width = pixels.shape
    padded = F.pad(pixels, (BLUR_PX // 2,) * 4, mode="reflect")
    weights = kernels[:, None].expand(-1, channels, -1, -1).reshape(batch * channels, 1, BLUR_PX, BLUR_PX)
    flat = padded.reshape(1, batch * channels, *padded.shape[2:])
    return F.conv2d(flat, weights, groups=batch * channels).reshape(batch, channels, height, width)


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
    matrix, back = _on(pixels.device, "YCC", _YCC), _on(pixels.device, "RGB", np.linalg.inv(_YCC))
    ycc = torch.einsum("ij,bjhw->bihw", matrix, pixels)
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)[:, None, None]
    tables = _on(pixels.device, "luma", _LUMA_STEPS), _on(pixels.device, "chroma", _CHROMA_STEPS)
    steps = [((table * percent + 50) / 100).floor().clamp(1, 255) for table in tables]
    luma = _rounded(ycc[:, :1] - 128, steps[0]) + 128
    chroma = F.interpolate(
        _rounded(F.avg_pool2d(ycc[:, 1:], 2), steps[1]), scale_factor=2, mode="bilinear", align_corners=False
    )
    decoded = torch.einsum("ij,bjhw->bihw", back, torch.cat([luma, chroma], 1))
    return decoded[:, :, :height, :width].round().clamp(0, 255)


def _rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """(B, C, H, W) through the cosine transform of 8 x 8 blocks, whose coefficients keep whole steps (B, 8, 8)."""
    basis = _on(planes.device, "cosines", _cosines())
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
