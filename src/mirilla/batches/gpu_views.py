"""What a batch of training examples shows of its pictures, and the API's augmentations of it, on the device.

The twin of `view` and `augment_geometry` for all examples at once: every example takes the same path, masks decide.
Nothing here has a shape that depends on what was drawn, and nothing waits for the device, so that a graph can hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mirilla.batches import augment_colour as colour
from mirilla.batches import augment_geometry as geometry
from mirilla.batches.augment import Augmentation
from mirilla.batches.crop import MAX_ATTEMPTS, CropSpec
from mirilla.batches.gpu_pictures import DeviceObjects, DevicePictures
from mirilla.batches.gpu_random import Draws, constant

# pixels (B, 3, H, W) float32 of 0..255 -> pixels
PixelStep = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Views:
    """V parts of pictures.

    picture: (V,) numbers. size: (V, 2) height and width of the pictures. window: (V, 4) top, left, height and width
    of what is shown, whole pixels as float64. upside_down, mirrored: (V,) bool.
    boxes_yxyx: (V, G, 4) float64, normalised to what is shown. classes, weights, present, ignore: (V, G).
    effects: what happens to the pixels, in order.
    """

    picture: Tensor
    size: Tensor
    window: Tensor
    upside_down: Tensor
    mirrored: Tensor
    boxes_yxyx: Tensor
    classes: Tensor
    weights: Tensor
    present: Tensor
    ignore: Tensor
    effects: tuple[PixelStep, ...] = ()

    @property
    def shown(self) -> Tensor:
        """(V, 2) height and width of what is shown."""
        return self.window[:, 2:]


DeviceStep = Callable[[Draws, Views], Views]


def whole(pictures: DevicePictures, objects: DeviceObjects, picture: Tensor) -> Views:
    """Views of whole pictures, given by number (V,)."""
    size = pictures.sizes[picture]
    flag = torch.zeros_like(picture, dtype=torch.bool)
    return Views(
        picture,
        size,
        torch.cat([torch.zeros_like(size), size], 1),
        flag,
        flag,
        objects.boxes_yxyx[picture],
        objects.classes[picture],
        objects.weights[picture],
        objects.present[picture],
        objects.ignore[picture],
    )


def batched(step: Augmentation) -> DeviceStep | None:
    """The twin of an augmentation for a batch, or None where there is none."""
    if step is geometry.horizontal_flip:
        return horizontal_flip
    if step is geometry.vertical_flip:
        return vertical_flip
    if isinstance(step, geometry.RandomCrop):
        return RandomCrop(step.settings)
    return colour_step(step)


def horizontal_flip(draws: Draws, views: Views) -> Views:
    """`random_horizontal_flip`."""
    happens = draws.happens(0.5)
    boxes = views.boxes_yxyx
    flipped = torch.stack([boxes[..., 0], 1 - boxes[..., 3], boxes[..., 2], 1 - boxes[..., 1]], -1)
    return replace(
        views, mirrored=views.mirrored ^ happens, boxes_yxyx=torch.where(happens[:, None, None], flipped, boxes)
    )


def vertical_flip(draws: Draws, views: Views) -> Views:
    """`random_vertical_flip`."""
    happens = draws.happens(0.5)
    boxes = views.boxes_yxyx
    flipped = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
    return replace(
        views, upside_down=views.upside_down ^ happens, boxes_yxyx=torch.where(happens[:, None, None], flipped, boxes)
    )


@dataclass(frozen=True)
class RandomCrop:
    """`ssd_random_crop` and `random_crop_image`; as `crop.draw_crop` draws them."""

    settings: tuple[CropSpec, ...]

    def __call__(self, draws: Draws, views: Views) -> Views:
        table = constant(
            tuple(
                (s.min_object_covered, s.overlap_thresh, *s.aspect_ratio, *s.area, s.clip_boxes, s.random_coef)
                for s in self.settings
            ),
            views.window.device,
            torch.float64,
        )
        chosen = table[draws.below(len(self.settings))]  # (V, 8)
        covered, overlap, low, high, least, most, clips, keep_whole = (c[:, None] for c in chosen.unbind(1))
        size = views.shown
        window, found = sample_windows(
            draws, size, views.boxes_yxyx, views.present, covered, (low, high), (least, most)
        )
        crops = (draws.uniform(1) > keep_whole)[:, 0]
        everything = torch.cat([torch.zeros_like(size), size], 1)
        window = torch.where((crops & found)[:, None], window, everything)
        boxes, stays = _seen_from(views.boxes_yxyx, window / torch.cat([size, size], 1), overlap, clips > 0)
        return replace(
            views,
            window=torch.cat([_corner(views, window), window[:, 2:]], 1),
            boxes_yxyx=torch.where(crops[:, None, None], boxes, views.boxes_yxyx),
            present=views.present & (stays | ~crops[:, None]),
        )


def _corner(views: Views, part: Tensor) -> Tensor:
    """(V, 2) top left in the picture of parts (V, 4) of what is shown."""
    backwards = torch.stack([views.upside_down, views.mirrored], 1)
    start = torch.where(backwards, views.shown - part[:, :2] - part[:, 2:], part[:, :2])
    return views.window[:, :2] + start


def sample_windows(
    draws: Draws,
    size: Tensor,
    boxes_yxyx: Tensor,
    present: Tensor,
    covered: Tensor,
    aspect: tuple[Tensor, Tensor],
    area: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Windows as `crop.sample_window` draws them: (V, 4) in whole pixels, and whether one was found (V,).

    Args:
        size: (V, 2). covered, aspect, area: (V, 1), see `CropSpec`.
    """
    tall, wide = size[:, :1], size[:, 1:]
    heights, widths, fits = sizes(draws.uniform(MAX_ATTEMPTS, *aspect), draws.uniform(MAX_ATTEMPTS), tall, wide, area)
    tops = torch.floor(draws.uniform(MAX_ATTEMPTS) * (tall - heights).clamp(min=1))
    lefts = torch.floor(draws.uniform(MAX_ATTEMPTS) * (wide - widths).clamp(min=1))
    # objects in whole pixels, cut off rather than rounded; a picture without any counts as one object itself
    boxes = torch.floor(boxes_yxyx.clamp(0, 1) * torch.cat([size, size], 1)[:, None])
    boxes = torch.cat([boxes, torch.cat([torch.zeros_like(size), size], 1)[:, None]], 1)
    present = torch.cat([present, ~present.any(1, keepdim=True)], 1)
    y0, x0, y1, x1 = (edge[:, None] for edge in boxes.unbind(-1))  # (V, 1, G + 1)
    rows = torch.minimum((tops + heights)[..., None], y1) - torch.maximum(tops[..., None], y0)
    columns = torch.minimum((lefts + widths)[..., None], x1) - torch.maximum(lefts[..., None], x0)
    inside = rows.clamp(min=0) * columns.clamp(min=0)  # (V, attempts, G + 1)
    areas = (y1 - y0) * (x1 - x0)
    fits = fits & ((inside >= covered[..., None] * areas) & (areas > 0) & present[:, None]).any(-1)
    numbers = torch.arange(MAX_ATTEMPTS, device=size.device)
    first = torch.where(fits, numbers, MAX_ATTEMPTS - 1).amin(1, keepdim=True)
    window = torch.cat([t.gather(1, first) for t in (tops, lefts, heights, widths)], 1)
    return window, fits.any(1)


def sizes(
    ratios: Tensor, fractions: Tensor, tall: Tensor, wide: Tensor, area: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The twin of `crop._sizes`: (heights, widths, whether they keep to the bounds), (V, attempts) each."""
    least, most = area[0] * tall * wide, area[1] * tall * wide
    low, high = torch.round(torch.sqrt(least / ratios)), torch.round(torch.sqrt(most / ratios))
    too_wide = torch.round(high * ratios) > wide
    high = torch.where(too_wide, torch.floor((wide + 0.5 - 1e-7) / ratios), high)
    high = torch.minimum(high, tall)
    low = torch.minimum(low, high)
    heights = low + torch.floor(fractions * (high - low + 1))
    heights = torch.where(heights * torch.round(heights * ratios) < least, heights + 1, heights)
    heights = torch.where(heights * torch.round(heights * ratios) > most, heights - 1, heights)
    widths = torch.round(heights * ratios)
    areas = heights * widths
    fits = (areas >= least) & (areas <= most) & (heights > 0) & (widths > 0) & (heights <= tall) & (widths <= wide)
    return heights, widths, fits


def _seen_from(boxes_yxyx: Tensor, window: Tensor, overlap: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of `crop.boxes_in_window`; window (V, 4) normalised: top, left, height, width."""
    start, span = window[:, None, :2], window[:, None, 2:]  # (V, 1, 2)
    low, high = torch.maximum(boxes_yxyx[..., :2], start), torch.minimum(boxes_yxyx[..., 2:], start + span)
    inside = (high - low).clamp(min=0).prod(-1)
    area = (boxes_yxyx[..., 2:] - boxes_yxyx[..., :2]).prod(-1)
    outside = ((boxes_yxyx[..., :2] >= start + span) | (boxes_yxyx[..., 2:] <= start)).any(-1)
    share = torch.where(area > 0, inside / torch.where(area > 0, area, 1.0), 0.0)
    moved = (boxes_yxyx - torch.cat([start, start], -1)) / torch.cat([span, span], -1)
    return torch.where(clips[..., None], moved.clamp(0, 1), moved), ~outside & (share >= overlap)


# ---- colours -------------------------------------------------------------------------------------------------------


def colour_step(step: Augmentation) -> DeviceStep | None:
    """The twins of `augment_colour`; the mean that contrast needs is that of what the network is shown."""
    if isinstance(step, colour.AdjustBrightness):
        return lambda draws, views: _with(views, _brighter(draws.one(-step.max_delta, step.max_delta)))
    if isinstance(step, colour.AdjustContrast):
        return lambda draws, views: _with(views, _contrast(draws.one(step.low, step.high)))
    if isinstance(step, colour.AdjustHue):
        return lambda draws, views: _with(views, _hue_saturation(draws.one(-step.max_delta, step.max_delta), None))
    if isinstance(step, colour.AdjustSaturation):
        return lambda draws, views: _with(views, _hue_saturation(None, draws.one(step.low, step.high)))
    if isinstance(step, colour.RgbToGrey):
        return lambda draws, views: _with(views, _grey(draws.happens(step.probability)))
    if isinstance(step, colour.DistortColour):
        return _distorted(step)
    return None


def _distorted(step: colour.DistortColour) -> DeviceStep:
    contrast, saturation, hue = (
        colour.AdjustContrast(0.5, 1.5),
        colour.AdjustSaturation(0.5, 1.5),
        colour.AdjustHue(0.2),
    )
    rest = (contrast, saturation, hue) if step.ordering else (saturation, hue, contrast)
    parts = [found for s in (colour.AdjustBrightness(32 / 255), *rest) if (found := colour_step(s)) is not None]

    def change(draws: Draws, views: Views) -> Views:
        for part in parts:
            views = part(draws, views)
        return views

    return change


def _with(views: Views, effect: PixelStep) -> Views:
    return replace(views, effects=(*views.effects, effect))


def _each(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1) float32."""
    return values.to(torch.float32)[:, None, None, None]


def _brighter(delta: Tensor) -> PixelStep:
    return lambda pixels: (pixels + 255 * _each(delta)).clamp(0, 255)


def _contrast(factor: Tensor) -> PixelStep:
    def change(pixels: Tensor) -> Tensor:
        mean = pixels.mean((2, 3), keepdim=True)
        return ((pixels - mean) * _each(factor) + mean).clamp(0, 255)

    return change


def _grey(happens: Tensor) -> PixelStep:
    luma = [float(v) for v in colour.LUMA]

    def change(pixels: Tensor) -> Tensor:
        grey = sum(v * pixels[:, i : i + 1] for i, v in enumerate(luma))
        return torch.where(happens[:, None, None, None], grey, pixels)

    return change


def _hue_saturation(turn: Tensor | None, factor: Tensor | None) -> PixelStep:
    """Turns the hue by a share of the circle, multiplies the saturation."""

    def change(pixels: Tensor) -> Tensor:
        most, least = pixels.amax(1), pixels.amin(1)
        chroma = most - least
        red, green, blue = pixels.unbind(1)
        span = torch.where(chroma > 0, chroma, 1.0)
        sector = torch.where(
            most == red,
            (green - blue) / span,
            torch.where(most == green, (blue - red) / span + 2, (red - green) / span + 4),
        )
        if turn is not None:
            sector = sector + 6 * _each(turn)[:, 0]
        if factor is not None:
            chroma = torch.minimum(chroma * _each(factor)[:, 0], most)
        # the share of the chroma that each channel lies below the most
        parts = [chroma * (torch.remainder(sector + n, 6) - 3).abs().sub(1).clamp(0, 1) for n in (0, 4, 2)]
        return torch.stack([most - chroma + p for p in parts], 1).clamp(0, 255)

    return change
