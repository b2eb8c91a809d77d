"""The framing of `augment_framing` and the mosaics of `recipe` for a batch, on the device.

Draws what these draw, with the same distributions; all examples take all paths, masks decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mirilla.batches import framing as host
from mirilla.batches import mosaic as recipes
from mirilla.batches.gpu_pictures import DevicePictures
from mirilla.batches.gpu_random import Draws, constant
from mirilla.batches.gpu_sampling import QUARTERS, Fields
from mirilla.batches.gpu_views import Views
from mirilla.batches.mosaic import InputRecipe
from mirilla.batches.paint import ANY_COLOUR, FILL_ENDS, MEAN_COLOUR, MOST_SKIPPED, NOISE
from mirilla.model.spec import ModelSpec

# Of a mosaic's objects so many are kept at most (or as many as one picture has, where that is more).
MOST_OBJECTS = 160


@dataclass(frozen=True)
class Framed:
    """Fields, and views whose objects are normalised to the network's input."""

    views: Views
    fields: Fields


def plain(views: Views, spec: ModelSpec) -> Framed:
    """Without a recipe: the whole view, squashed or at the top left on black, as `input.render` does it."""
    size = views.shown
    input_px = _input_px(spec, size).expand_as(size)
    out = input_px
    if spec.keep_aspect_ratio:
        tall = size[:, 0] * spec.width_px >= size[:, 1] * spec.height_px
        width = torch.round(size[:, 1] * spec.height_px / size[:, 0]).clamp(min=1)
        height = torch.round(size[:, 0] * spec.width_px / size[:, 1]).clamp(min=1)
        out = torch.stack([torch.where(tall, input_px[:, 0], height), torch.where(tall, width, input_px[:, 1])], 1)
    boxes = views.boxes_yxyx * torch.cat([out / input_px] * 2, 1)[:, None]
    zeros = torch.zeros_like(size)
    fields = Fields(
        torch.cat([zeros, input_px], 1),
        zeros,
        size / out,
        torch.zeros_like(views.picture),
        torch.zeros(len(size), 3, device=size.device),
        None,
        False,
        None,
    )
    return Framed(replace(views, boxes_yxyx=boxes), fields)


def _input_px(spec: ModelSpec, like: Tensor) -> Tensor:
    return constant((spec.height_px, spec.width_px), like.device, like.dtype)


def framed(
    draws: Draws,
    views: Views,
    pictures: DevicePictures,
    recipe: InputRecipe,
    spec: ModelSpec,
    mosaics: Draws | None,
    shows_mosaics: Tensor,
) -> Framed:
    """With a recipe.

    Args:
        draws: of the fields, V. views: V = B or 4 B.
        mosaics: of the inputs, B, where the recipe has mosaics; each input's first view is its own picture.
        shows_mosaics: bool scalar, whether the step may show any.
    """
    input_px = _input_px(spec, views.shown)
    whole = torch.cat([torch.zeros_like(input_px), input_px]).expand(len(views.picture), 4)
    tile, centre, is_tile = whole, None, torch.zeros_like(views.mirrored)
    if recipe.mosaic is not None and mosaics is not None:
        happens = mosaics.happens(recipe.mosaic.probability) & shows_mosaics  # (B,)
        centre = torch.round(mosaics.uniform(2, *recipes.CENTRE) * input_px)
        first = mosaics.below(QUARTERS)  # where the picture whose turn it is goes
        order = (first[:, None] + torch.arange(QUARTERS, device=first.device)) % QUARTERS
        order = torch.where(happens[:, None], order, torch.arange(QUARTERS, device=first.device))
        views = _in_order(views, order)
        centre = torch.where(happens[:, None], centre, input_px)
        tile = _quarters(centre, input_px)
        is_tile = happens.repeat_interleave(QUARTERS)
        shows = is_tile[:, None] | (torch.arange(QUARTERS, device=first.device).repeat(len(first)) == 0)[:, None]
        views = replace(views, present=views.present & shows)
    field_px = (tile[:, 2:] - tile[:, :2]).clamp(min=1)
    window, plain_fill = _windows(draws, views, field_px, input_px, is_tile, recipe, spec.keep_aspect_ratio)
    scale = window[:, 2:] / field_px
    views = _seen_through(views, window, is_tile)
    boxes = views.boxes_yxyx * torch.cat([field_px] * 2, 1)[:, None] + torch.cat([tile[:, :2]] * 2, 1)[:, None]
    small = (boxes[..., 2:] - boxes[..., :2]).prod(-1) < recipes.LEAST_SIDE_PX**2
    views = replace(views, boxes_yxyx=boxes / torch.cat([input_px] * 2), ignore=views.ignore | small)
    skips = torch.where(draws.happens(recipes.SMOOTH), 2.0, MOST_SKIPPED)
    many = scale.prod(1).sqrt()
    level = torch.ceil(torch.log2((many / skips).clamp(min=2.0**-20)) + 1e-9).clamp(0, pictures.levels - 1)
    colour, noisy = _fill(draws, views, pictures, plain_fill)
    fields = Fields(tile, window[:, :2], scale, level.to(torch.int64), colour, noisy, True, centre)
    return Framed(_together(views) if centre is not None else views, fields)


def _in_order(views: Views, order: Tensor) -> Views:
    """Each input's four views put into places: the view i of an input goes to the place order[i]."""
    source = torch.argsort(order, 1) + QUARTERS * torch.arange(len(order), device=order.device)[:, None]
    source = source.flatten()
    moved = {
        name: getattr(views, name)[source]
        for name in (
            "picture",
            "size",
            "window",
            "upside_down",
            "mirrored",
            "boxes_yxyx",
            "classes",
            "weights",
            "present",
            "ignore",
        )
    }
    return replace(views, **moved)


def _quarters(centre: Tensor, input_px: Tensor) -> Tensor:
    """(4 B, 4) tiles around centres (B, 2)."""
    y, x = centre.unbind(1)
    zero, (height, width) = torch.zeros_like(y), input_px.expand_as(centre).unbind(1)
    tiles = [(zero, zero, y, x), (zero, x, y, width), (y, zero, height, x), (y, x, height, width)]
    return torch.stack([torch.stack(t, 1) for t in tiles], 1).flatten(0, 1)


def _windows(
    draws: Draws,
    views: Views,
    field_px: Tensor,
    input_px: Tensor,
    is_tile: Tensor,
    recipe: InputRecipe,
    letterbox: bool,
) -> tuple[Tensor, Tensor]:
    """The twin of `Framing.__call__`: windows (V, 4), and which have the resizer's own black around them (V,)."""
    size = views.shown
    squash = ((size[:, 0] / input_px[0]) / (size[:, 1] / input_px[1])).clamp(1 / host.MOST_SQUASH, host.MOST_SQUASH)
    stretch = torch.ones_like(squash) if letterbox else squash
    if recipe.aspect is not None:
        jittered = torch.exp(draws.one(-host.ASPECT_JITTER, host.ASPECT_JITTER))
        stretch = torch.where(draws.happens(recipe.aspect.letterbox_probability), jittered, squash)
    root = stretch.sqrt()
    fit = torch.maximum(size[:, 0] / (field_px[:, 0] * root), size[:, 1] * root / field_px[:, 1])
    smaller = torch.maximum(fit * torch.exp2(-draws.one()), fit.clamp(max=1 / host.MOST_ENLARGEMENT))
    scale = torch.where(is_tile, smaller, fit)
    untouched = ~is_tile
    if recipe.zoom_out is not None:
        zooms_out = draws.happens(recipe.zoom_out.probability)
        scale = torch.where(zooms_out, scale * draws.one(1, recipe.zoom_out.most), scale)
        untouched = untouched & ~zooms_out
    if recipe.aspect is not None:
        untouched = untouched & draws.happens(host.AS_THE_RESIZER)
    span = _window_size(scale, root, field_px)
    start = torch.where(untouched[:, None], 0.0, _anywhere(draws.uniform(2), span, size))
    window = torch.cat([start, span], 1)
    if recipe.object_zoom is None:
        return window, untouched
    zooms = draws.happens(recipe.object_zoom.probability)
    zoomed = _zoom(draws, views, field_px, root, fit, recipe.object_zoom)
    return torch.where(zooms[:, None], zoomed, window), untouched & ~zooms


def _window_size(scale: Tensor, root: Tensor, field_px: Tensor) -> Tensor:
    return torch.round(torch.stack([scale * root, scale / root], 1) * field_px).clamp(min=1)


def _anywhere(fractions: Tensor, window: Tensor, side: Tensor) -> Tensor:
    """Start of a window inside a side, or around it; all (V, 2)."""
    low, high = (side - window).clamp(max=0), (side - window).clamp(min=0)
    return low + torch.floor(fractions * (high - low + 1))


def _zoom(draws: Draws, views: Views, field_px: Tensor, root: Tensor, fit: Tensor, zoom: host.ObjectZoom) -> Tensor:
    """The twin of `augment_framing._zoom`: windows (V, 4)."""
    size = views.shown
    least, most = fit.clamp(max=1 / host.MOST_ENLARGEMENT), fit * host.MOST_SHRINKING
    learnt = views.present & ~views.ignore
    span = _window_size(torch.maximum(fit * torch.exp2(-2 * draws.one()), least), root, field_px)
    without = torch.cat([_anywhere(draws.uniform(2), span, size), span], 1)
    chosen = torch.where(learnt, draws.uniform(learnt.shape[1]), -1.0).argmax(1)
    box = views.boxes_yxyx.gather(1, chosen[:, None, None].expand(-1, 1, 4))[:, 0].clamp(0, 1)
    box = box * torch.cat([size, size], 1)
    sides = (box[:, 2:] - box[:, :2]).clamp(min=1e-6)
    side = sides.prod(1).sqrt()
    fits = 1.1 * sides / torch.stack([root, 1 / root], 1) / field_px  # the object has to fit
    least = torch.maximum(least, fits.amax(1))
    most = torch.maximum(most, least)
    wanted = torch.exp(draws.one(math.log(zoom.least_px), math.log(zoom.most_px)))
    low = torch.maximum(torch.minimum(side / torch.clamp(side / least, max=zoom.most_px), most), least)
    high = torch.maximum(torch.minimum(side / torch.clamp(side / most, min=zoom.least_px), most), least)
    bounds = torch.minimum(low, high).log(), torch.maximum(low, high).log()
    again = torch.exp(draws.one(*bounds))
    scale = side / wanted
    scale = torch.where((scale >= least) & (scale <= most), scale, again)
    span = _window_size(scale, root, field_px)
    first, last = torch.ceil(box[:, 2:]) - span, torch.floor(box[:, :2])
    over = draws.happens(host.OVER_THE_EDGE)[:, None]
    first = torch.where(over, first, torch.maximum(first, (size - span).clamp(max=0)))
    last = torch.where(over, last, torch.minimum(last, (size - span).clamp(min=0)))
    start = first + torch.floor(draws.uniform(2) * (last - first + 1).clamp(min=1))
    return torch.where(learnt.any(1)[:, None], torch.cat([start, span], 1), without)


def _seen_through(views: Views, window: Tensor, is_tile: Tensor) -> Views:
    """The twin of `augment_framing.seen_through`."""
    least = torch.where(is_tile, recipes.LEAST_TILE_SHARE, host.LEAST_SHARE)[:, None]
    size = torch.cat([views.shown] * 2, 1)[:, None]
    start, span = torch.cat([window[:, :2]] * 2, 1)[:, None], torch.cat([window[:, 2:]] * 2, 1)[:, None]
    boxes = (views.boxes_yxyx * size - start) / span
    cut = boxes.clamp(0, 1)
    area, left = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, cut))
    share = left / area.clamp(min=1e-12)
    return replace(views, boxes_yxyx=cut, ignore=views.ignore | (share < least), present=views.present & (share > 0))


def _fill(draws: Draws, views: Views, pictures: DevicePictures, plain_fill: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of `Fill.random`: colours (V, 3), and which are noise (V,)."""
    ends = constant(FILL_ENDS, plain_fill.device, torch.float64)
    kind = (draws.uniform(1) >= ends).sum(1)  # (V,)
    drawn = torch.floor(draws.uniform(3) * 256).to(torch.float32)
    colour = torch.where((kind == ANY_COLOUR)[:, None], drawn, 0.0)
    colour = torch.where((kind == MEAN_COLOUR)[:, None], pictures.mean[views.picture].floor(), colour)
    colour = torch.where(plain_fill[:, None], 0.0, colour)
    return colour, (kind == NOISE) & ~plain_fill


def _together(views: Views) -> Views:
    """Each input's four views' objects in one row, those that are there first."""
    names = ("boxes_yxyx", "classes", "weights", "present", "ignore")
    rows = {n: getattr(views, n).unflatten(0, (-1, QUARTERS)).flatten(1, 2) for n in names}
    most = max(views.present.shape[1], min(rows["present"].shape[1], MOST_OBJECTS))
    order = torch.argsort((~rows["present"]).to(torch.int8), dim=1, stable=True)[:, :most]
    taken = {n: t.gather(1, order) for n, t in rows.items() if t.ndim == 2}
    boxes = rows["boxes_yxyx"].gather(1, order[..., None].expand(-1, -1, 4))
    return replace(views, boxes_yxyx=boxes, **taken)
