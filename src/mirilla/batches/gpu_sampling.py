"""Pixels of a batch from pictures on the device: where every pixel of the input comes from, and one gather for all.

An input shows one field, or four that meet at a point (a mosaic). A field shows a window of what a view shows, which
may reach outside it: there is a fill.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirilla.batches.gpu_pictures import DevicePictures
from mirilla.batches.gpu_views import Views

QUARTERS = 4


@dataclass(frozen=True)
class Fields:
    """V = B * Q fields, Q = 1 or 4 in the order of their places: top left, top right, bottom left, bottom right.

    tile: (V, 4) top, left, bottom, right in pixels of the input. start, scale: (V, 2), in pixels of what the view
    shows: where the field starts, and how many make one of the field's.
    level: (V,) int64, how often the picture is halved first.
    colour: (V, 3) float32 of the fill. noisy: (V,) bool, noise instead.
    centred: whether enlarged pixels keep their centres, where TensorFlow 1's resizer keeps their corners.
    centre: (B, 2) where the four meet; None: there is one field each.
    """

    tile: Tensor
    start: Tensor
    scale: Tensor
    level: Tensor
    colour: Tensor
    noisy: Tensor | None
    centred: bool
    centre: Tensor | None


def resample(
    pictures: DevicePictures, views: Views, fields: Fields, height: int, width: int, noise: Tensor | None
) -> Tensor:
    """(B, 3, height, width) float32 of 0..255, channels last in memory. Bilinear.

    Args:
        noise: (B, 3, height, width) of 0..1, for noisy fills.
    """
    y, seen_y = _along(views, fields, height, 0)  # (V, height) in pixels of the halved picture
    x, seen_x = _along(views, fields, width, 1)
    sizes = pictures.level_sizes[fields.level, views.picture].to(torch.float32)  # (V, 2)
    starts = pictures.level_starts[fields.level, views.picture]  # (V,)
    y, x = (torch.minimum(p.clamp(min=0), sizes[:, i : i + 1] - 1) for i, p in enumerate((y, x)))
    if fields.centre is None:
        y, x, seen = y[:, :, None], x[:, None, :], seen_y[:, :, None] & seen_x[:, None, :]
        tall, wide, base = (t[:, None, None] for t in (sizes[:, 0], sizes[:, 1], starts))
        colour = fields.colour[:, :, None, None]
        noisy = None if fields.noisy is None else fields.noisy[:, None, None]
    else:
        below, right = (
            torch.arange(side, device=y.device)[None] >= fields.centre[:, i : i + 1]
            for i, side in enumerate((height, width))
        )  # (B, height), (B, width)
        below, right = below[:, :, None], right[:, None, :]

        def choose(values: Tensor) -> Tensor:
            """(V, ...) -> (B, height, width) by the quarter; `values` broadcasts over pixels."""
            a, b, c, d = values.unflatten(0, (-1, QUARTERS)).unbind(1)
            return torch.where(below, torch.where(right, d, c), torch.where(right, b, a))

        y, x = choose(y[:, :, None]), choose(x[:, None, :])
        seen = choose(seen_y[:, :, None] & seen_x[:, None, :])
        tall, wide, base = (choose(t[:, None, None]) for t in (sizes[:, 0], sizes[:, 1], starts))
        colour = torch.stack([choose(fields.colour[:, i, None, None]) for i in range(3)], 1)
        noisy = None if fields.noisy is None else choose(fields.noisy[:, None, None])
    low_y, low_x = y.floor(), x.floor()
    part_y, part_x = y - low_y, x - low_x
    high_y, high_x = torch.minimum(low_y + 1, tall - 1), torch.minimum(low_x + 1, wide - 1)
    wide, columns = wide.to(torch.int64), (low_x.to(torch.int64), high_x.to(torch.int64))
    rows = [base + v.to(torch.int64) * wide for v in (low_y, high_y)]
    part_y, part_x = part_y[..., None], part_x[..., None]
    upper, lower = (
        torch.lerp(_unpacked(pictures.pixels[r + columns[0]]), _unpacked(pictures.pixels[r + columns[1]]), part_x)
        for r in rows
    )
    shown = torch.lerp(upper, lower, part_y).permute(0, 3, 1, 2)  # (B, 3, height, width)
    if noisy is not None and noise is not None:
        colour = torch.where(noisy[:, None], 255 * noise, colour)
    return torch.where(seen[:, None], shown, colour)


def _along(views: Views, fields: Fields, out: int, axis: int) -> tuple[Tensor, Tensor]:
    """Along one axis: where pixels come from in the halved picture, (V, out) float32, and whether they show it."""
    place = torch.arange(out, device=fields.tile.device, dtype=torch.float64) - fields.tile[:, axis : axis + 1]
    start, scale = fields.start[:, axis : axis + 1], fields.scale[:, axis : axis + 1]
    side = views.shown[:, axis : axis + 1]
    middle = start + (place + 0.5) * scale
    seen = (middle >= 0) & (middle < side)
    along = start + place * scale
    if fields.centred:
        along = along + (scale - 1).clamp(max=0) / 2
    backwards = (views.mirrored if axis else views.upside_down)[:, None]
    along = torch.where(backwards, side - 1 - along, along) + views.window[:, axis : axis + 1]
    factor = torch.exp2(fields.level.to(torch.float64))[:, None]
    return ((along - (factor - 1) / 2) / factor).to(torch.float32), seen


def _unpacked(words: Tensor) -> Tensor:
    """(...) int32 -> (..., 3) float32."""
    return torch.stack([words & 255, (words >> 8) & 255, (words >> 16) & 255], -1).to(torch.float32)
