"""Rules about feature maps and anchors: their number, names and sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import above, at_least, refused, suspect
from mirilla.errors import ConfigError
from mirilla.findings import Finding
from mirilla.model import layers
from mirilla.protos.pipeline_pb2 import AnchorBox, AnchorMap, Ssd

MAX_ANCHOR_SIDE = 2  # share of the input; longer sides are probably in pixels


def findings(pipeline: Pipeline) -> Iterator[Finding]:
    """Violations of the rules about feature maps and anchors."""
    ssd, path = pipeline.model.ssd, "model.ssd.anchor_generator"
    maps: tuple[str, ...] = ()  # empty if they are unknown
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


def _given(anchor_maps: Sequence[AnchorMap], maps: tuple[str, ...]) -> Iterator[Finding]:
    """Rules about anchors that are listed instead of generated."""
    if anchor_maps and maps and len(anchor_maps) != len(maps):
        yield refused(
            "mirilla.anchor_map",
            f"has {len(anchor_maps)} entries, but the network has {len(maps)} feature maps ({', '.join(maps)}).",
            "Give one entry per feature map, or none.",
        )
    for i, anchor_map in enumerate(anchor_maps):
        here = f"mirilla.anchor_map[{i}]"
        if not anchor_map.box:
            yield refused(here, "has no box.", "Give each map at least one box { height: ... width: ... }.")
        for j, box in enumerate(anchor_map.box):
            yield from _box(box, f"{here}.box[{j}]")


def _box(box: AnchorBox, path: str) -> Iterator[Finding]:
    sides = (box.height, box.width)
    if not all(0 < side < math.inf for side in sides):
        yield refused(
            path,
            f"height {box.height:g} and width {box.width:g} must both be above 0.",
            "Give the sides as shares of the input: 0.1 is a tenth of its side.",
        )
    elif max(sides) > MAX_ANCHOR_SIDE:
        yield suspect(
            path,
            f"height {box.height:g} and width {box.width:g} are shares of the input: more than twice its side.",
            "If they are in pixels, divide them by the input's side.",
        )


def _ssd(ssd: Ssd, maps: tuple[str, ...], path: str) -> Iterator[Finding]:
    anchors, kind = ssd.anchor_generator.ssd_anchor_generator, ssd.feature_extractor.type
    if maps and anchors.num_layers != len(maps):
        yield refused(
            f"{path}.num_layers",
            f"is {anchors.num_layers}, but {kind} has {len(maps)} feature maps ({', '.join(maps)}).",
            f"Set num_layers: {len(maps)}.",
        )
    if not anchors.scales:
        yield from above(anchors, path, "min_scale", 0)
        if anchors.max_scale < anchors.min_scale:
            yield refused(f"{path}.max_scale", f"{anchors.max_scale:g} is below min_scale, {anchors.min_scale:g}.")
    elif min(anchors.scales) <= 0:
        yield refused(f"{path}.scales", "scales must be above 0.")
    yield from _aspect_ratios(anchors.aspect_ratios, path, "[1.0, 2.0, 0.5, 3.0, 0.3333]")
    yield from at_least(anchors, path, "interpolated_scale_aspect_ratio", 0)
    for name in ("base_anchor_height", "base_anchor_width"):
        yield from above(anchors, path, name, 0)
    for name, values in (
        ("scales", anchors.scales),
        ("height_stride", anchors.height_stride),
        ("width_stride", anchors.width_stride),
        ("height_offset", anchors.height_offset),
        ("width_offset", anchors.width_offset),
    ):
        if len(values) not in (0, anchors.num_layers):
            yield refused(f"{path}.{name}", f"has {len(values)} values, but num_layers is {anchors.num_layers}.")
    if len(anchors.height_stride) != len(anchors.width_stride):
        yield refused(f"{path}.width_stride", "must have as many values as height_stride.")
    if len(anchors.height_offset) != len(anchors.width_offset):
        yield refused(f"{path}.width_offset", "must have as many values as height_offset.")


def _multiscale(ssd: Ssd, maps: tuple[str, ...], path: str) -> Iterator[Finding]:
    anchors, kind = ssd.anchor_generator.multiscale_anchor_generator, ssd.feature_extractor.type
    count = anchors.max_level - anchors.min_level + 1
    stride = layers.map_stride(maps[0]) if maps else 16
    level = stride.bit_length() - 1
    yield from at_least(anchors, path, "min_level", 1)
    if maps and count != len(maps):
        yield refused(
            f"{path}.max_level",
            f"min_level {anchors.min_level} to max_level {anchors.max_level} are {count} levels, but {kind} has "
            f"{len(maps)} feature maps.",
            f"Set min_level: {level} and max_level: {level - 1 + len(maps)}; the first feature map has level {level}.",
        )
    elif anchors.min_level != level:
        yield suspect(
            f"{path}.min_level",
            f"is {anchors.min_level}, but the first feature map of {kind} has 1/{stride} of the input's side, which is "
            f"level {level}: the anchors will not lie at the map's cells.",
            f"Set min_level: {level}.",
        )
    yield from _aspect_ratios(anchors.aspect_ratios, path, "[1.0, 2.0, 0.5]")
    yield from above(anchors, path, "anchor_scale", 0)
    yield from at_least(anchors, path, "scales_per_octave", 1)


def _aspect_ratios(ratios: Sequence[float], path: str, example: str) -> Iterator[Finding]:
    if not ratios:
        yield refused(f"{path}.aspect_ratios", "is empty.", f"Set aspect_ratios: {example}.")
    elif min(ratios) <= 0:
        yield refused(f"{path}.aspect_ratios", "ratios must be above 0.")
