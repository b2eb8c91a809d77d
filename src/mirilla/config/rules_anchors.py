"""Rules about feature maps and anchors: how many, which, and how large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import above, at_least, refused, suspect
from mirilla.errors import ConfigError
from mirilla.findings import Finding
from mirilla.model import layers


def findings(pipeline: Pipeline) -> Iterator[Finding]:
    """What the feature maps and anchors break."""
    ssd, path = pipeline.model.ssd, "model.ssd.anchor_generator"
    maps: tuple[str, ...] = ()  # stays empty where they cannot be told
    try:
        first = layers.first_maps(pipeline.mirilla.feature_map)
        extra = layers.EXTRA_MAPS.get(ssd.feature_extractor.type)
        if extra is not None:
            maps = (*first, *(f"extra map {i}" for i in range(1, len(extra) + 1)))
    except ConfigError as error:
        yield refused("mirilla.feature_map", error.what, error.remedy or "")
    if ssd.anchor_generator.HasField("multiscale_anchor_generator"):
        yield from _multiscale(ssd, maps, f"{path}.multiscale_anchor_generator")
    if ssd.anchor_generator.HasField("ssd_anchor_generator"):
        yield from _ssd(ssd, maps, f"{path}.ssd_anchor_generator")
    yield from _given(pipeline.mirilla.anchor_map, maps)


def _given(anchor_maps: Any, maps: tuple[str, ...]) -> Iterator[Finding]:
    """Anchors given one by one."""
    if anchor_maps and maps and len(anchor_maps) != len(maps):
        yield refused(
            "mirilla.anchor_map",
            f"there are {len(anchor_maps)}, but the network has {len(maps)} feature maps ({', '.join(maps)}).",
            "Give one for each map, or none.",
        )
    for i, anchor_map in enumerate(anchor_maps):
        here = f"mirilla.anchor_map[{i}]"
        if not anchor_map.box:
            yield refused(here, "has no box.", "Give each map at least one box { height: ... width: ... }.")
        for j, box in enumerate(anchor_map.box):
            sides = (box.height, box.width)
            if not all(0 < side < math.inf for side in sides):
                yield refused(
                    f"{here}.box[{j}]",
                    f"height {box.height:g} and width {box.width:g}: both must be above 0.",
                    "Sides are shares of the input: 0.1 is a tenth of it.",
                )
            elif max(sides) > 2:
                yield suspect(
                    f"{here}.box[{j}]",
                    f"height {box.height:g} and width {box.width:g} are shares of the input: more than twice its side.",
                    "Divide pixels by the input's side.",
                )


def _ssd(ssd: Any, maps: tuple[str, ...], path: str) -> Iterator[Finding]:
    anchors, kind = ssd.anchor_generator.ssd_anchor_generator, ssd.feature_extractor.type
    if maps and anchors.num_layers != len(maps):
        yield refused(
            f"{path}.num_layers",
            f"{anchors.num_layers}, but {kind} has {len(maps)} feature maps ({', '.join(maps)}).",
            f"Set num_layers: {len(maps)}.",
        )
    if not anchors.scales:
        yield from above(anchors, path, "min_scale", 0)
        if anchors.max_scale < anchors.min_scale:
            yield refused(f"{path}.max_scale", f"{anchors.max_scale:g} is below min_scale, {anchors.min_scale:g}.")
    elif min(anchors.scales) <= 0:
        yield refused(f"{path}.scales", "holds a scale that is not above 0.")
    if not anchors.aspect_ratios:
        yield refused(f"{path}.aspect_ratios", "is empty.", "Set aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333].")
    elif min(anchors.aspect_ratios) <= 0:
        yield refused(f"{path}.aspect_ratios", "holds a ratio that is not above 0.")
    yield from at_least(anchors, path, "interpolated_scale_aspect_ratio", 0)
    for name in ("base_anchor_height", "base_anchor_width"):
        yield from above(anchors, path, name, 0)
    for name in ("scales", "height_stride", "width_stride", "height_offset", "width_offset"):
        count = len(getattr(anchors, name))
        if count not in (0, anchors.num_layers):
            yield refused(f"{path}.{name}", f"has {count} values, but num_layers is {anchors.num_layers}.")
    for first, second in (("height_stride", "width_stride"), ("height_offset", "width_offset")):
        if len(getattr(anchors, first)) != len(getattr(anchors, second)):
            yield refused(f"{path}.{second}", f"and {first} must have the same number of values.")


def _multiscale(ssd: Any, maps: tuple[str, ...], path: str) -> Iterator[Finding]:
    anchors, kind = ssd.anchor_generator.multiscale_anchor_generator, ssd.feature_extractor.type
    count = anchors.max_level - anchors.min_level + 1
    stride = layers.map_stride(maps[0]) if maps else 16
    level = stride.bit_length() - 1
    yield from at_least(anchors, path, "min_level", 1)
    if maps and count != len(maps):
        yield refused(
            f"{path}.max_level",
            f"levels {anchors.min_level} to {anchors.max_level} are {count}, but {kind} has {len(maps)} feature maps.",
            f"Its first map has level {level}: set min_level: {level} and max_level: {level - 1 + len(maps)}.",
        )
    elif anchors.min_level != level:
        yield suspect(
            f"{path}.min_level",
            f"{anchors.min_level}, but the first map of {kind} has 1/{stride} of the input's side, which is level "
            f"{level}: the anchors will not cover the picture as the map does.",
            f"Set min_level: {level}.",
        )
    if not anchors.aspect_ratios:
        yield refused(f"{path}.aspect_ratios", "is empty.", "Set aspect_ratios: [1.0, 2.0, 0.5].")
    elif min(anchors.aspect_ratios) <= 0:
        yield refused(f"{path}.aspect_ratios", "holds a ratio that is not above 0.")
    yield from above(anchors, path, "anchor_scale", 0)
    yield from at_least(anchors, path, "scales_per_octave", 1)
