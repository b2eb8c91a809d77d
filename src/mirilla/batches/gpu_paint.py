"""The painter on a GPU: where every pixel of a batch's inputs comes from, one gather for all, and the effects.

The numbers come from the host as a table of fixed shapes: an input has one tile, or a mosaic's four, of which those
that it lacks are empty. Nothing here has a shape that depends on what was drawn, and nothing waits for the GPU, so that
a captured graph can hold it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirilla.batches.gpu_effects import Columns, api_columns, photo_columns
from mirilla.batches.gpu_pictures import GpuPictures
from mirilla.batches.tiles import ANY_COLOUR, MEAN_COLOUR, NOISE, QUARTERS, DrawnBatch, sampling


def tile_columns(drawn: DrawnBatch, pictures: GpuPictures, quarters: int) -> dict[str, NDArray]:
    """The table of a drawn batch of B inputs with 1 or QUARTERS tiles each, (B, quarters, ...).

    start: first pixel of the picture, halved as often as it is to be. size: (.., 2) its height and width. along: (..,
    2, 2) slope and offset along y and x: row or column of the input -> row or column of that picture. seen: (.., 2, 2)
    first and end of the rows and columns that show it. colour: (.., 3) around it. noisy, noise start: whether there is
    noise instead, and the pool's row and column at the input's first. centre: (B, 2) where a mosaic's tiles meet.
    """
    tiles, numbers = drawn.tiles, drawn.examples.picture
    found = sampling(drawn.examples, tiles)
    level = np.minimum(found.level, pictures.levels - 1)
    factor = 2.0 ** level[:, None]
    along = np.stack([found.along_y, found.along_x], 1)  # (T, axis, slope and offset)
    along = np.stack([along[..., 0] / factor, (along[..., 1] - (factor - 1) / 2) / factor], 2)
    columns = {
        "start": pictures.starts[level, numbers],
        "size": pictures.sizes[level, numbers],
        "along": along,
        "seen": np.stack([found.rows, found.columns], 1),
        "colour": np.zeros((len(numbers), 3), np.float32),
    }
    if (fills := tiles.fills) is not None:
        kind = fills.kind[:, None]
        colour = np.where(kind == ANY_COLOUR, fills.colour, np.floor(pictures.means[numbers]))
        columns["colour"] = np.where((kind == ANY_COLOUR) | (kind == MEAN_COLOUR), colour, 0).astype(np.float32)
        columns["noisy"] = fills.kind == NOISE
        columns["noise start"] = fills.noise_start - tiles.box_px[:, :2]
    place = tiles.input, tiles.quarter
    table: dict[str, NDArray] = {}
    for name, values in columns.items():
        table[f"tile {name}"] = np.zeros((drawn.inputs, quarters, *values.shape[1:]), values.dtype)
        table[f"tile {name}"][place] = values
    if quarters == QUARTERS:
        table["centre"] = tiles.box_px[tiles.quarter == 0, 2:]
    table |= api_columns(drawn.examples.effects)
    return table if drawn.effects is None else table | photo_columns(drawn.effects)


def gather(pixels: Tensor, columns: Columns, height: int, width: int, uniform: Tensor) -> Tensor:
    """(B, 3, height, width) float32 of 0..255, channels last in memory. Bilinear.

    Args:
        pixels: of the pictures (P,). uniform: the pool (POOL_PX, POOL_PX, 3) uint8 that noisy fills are cut from.
    """
    size = columns["tile size"].to(torch.float32)  # (B, Q, 2)
    (y, seen_y), (x, seen_x) = (
        _along(columns["tile along"][:, :, i], columns["tile seen"][:, :, i], size[..., i], side)
        for i, side in enumerate((height, width))
    )
    choose = _Chooser(columns, height, width)
    y, x = choose(y[..., :, None]), choose(x[..., None, :])
    seen = choose(seen_y[..., :, None] & seen_x[..., None, :])
    tall, wide, base = (
        choose(values[..., None, None]) for values in (size[..., 0], size[..., 1], columns["tile start"])
    )
    low_y, low_x = y.floor(), x.floor()
    part_y, part_x = (y - low_y)[..., None], (x - low_x)[..., None]
    high_y, high_x = torch.minimum(low_y + 1, tall - 1), torch.minimum(low_x + 1, wide - 1)
    wide = wide.to(torch.int64)
    left, right = low_x.to(torch.int64), high_x.to(torch.int64)
    above, below = (base + row.to(torch.int64) * wide for row in (low_y, high_y))
    upper, lower = (
        torch.lerp(_unpacked(pixels[row + left]), _unpacked(pixels[row + right]), part_x) for row in (above, below)
    )
    shown = torch.lerp(upper, lower, part_y).permute(0, 3, 1, 2)  # (B, 3, height, width)
    colour = torch.stack([choose(values[..., None, None]) for values in columns["tile colour"].unbind(-1)], 1)
    if "tile noisy" in columns:
        colour = torch.where(
            choose(columns["tile noisy"][..., None, None])[:, None], _noise(columns, choose, uniform), colour
        )
    return torch.where(seen[:, None], shown, colour)


class _Chooser:
    """Picks for every pixel of an input the values of the tile that it belongs to."""

    def __init__(self, columns: Columns, height: int, width: int):
        self._quarters = columns["tile start"].shape[1]
        self.height, self.width = height, width
        if self._quarters == QUARTERS:
            centre = columns["centre"][:, :, None]
            self._below = (torch.arange(height, device=centre.device) >= centre[:, 0])[:, :, None]
            self._right = (torch.arange(width, device=centre.device) >= centre[:, 1])[:, None, :]

    def __call__(self, values: Tensor) -> Tensor:
        """(B, Q, 1 or height, 1 or width) -> (B, ...), which broadcasts to the input's size."""
        if self._quarters != QUARTERS:
            return values[:, 0]
        top_left, top_right, bottom_left, bottom_right = values.unbind(1)
        upper = torch.where(self._right, top_right, top_left)
        return torch.where(self._below, torch.where(self._right, bottom_right, bottom_left), upper)


def _noise(columns: Columns, choose: _Chooser, uniform: Tensor) -> Tensor:
    """(B, 3, height, width) of noise, as every tile cuts it from the pool."""
    starts = columns["tile noise start"].unbind(-1)
    rows = choose((starts[0][..., None] + torch.arange(choose.height, device=uniform.device))[..., :, None])
    along = choose((starts[1][..., None] + torch.arange(choose.width, device=uniform.device))[..., None, :])
    rows, along = rows % len(uniform), along % len(uniform)
    return uniform[rows, along].permute(0, 3, 1, 2).to(torch.float32)


def _along(lines: Tensor, seen: Tensor, side: Tensor, out: int) -> tuple[Tensor, Tensor]:
    """Along one axis: where pixels come from, (B, Q, out) float32 within the picture, and whether they show it."""
    place = torch.arange(out, device=lines.device)
    along = (lines[..., :1] * place + lines[..., 1:]).to(torch.float32)
    shows = (place >= seen[..., :1]) & (place < seen[..., 1:])
    return torch.minimum(along.clamp(min=0), (side[..., None] - 1).clamp(min=0)), shows


def _unpacked(words: Tensor) -> Tensor:
    """(...) int32 -> (..., 3) float32."""
    return torch.stack([words & 255, (words >> 8) & 255, (words >> 16) & 255], -1).to(torch.float32)
