"""Anchors in numpy: the API's `ssd_anchor_generator` and `multiscale_anchor_generator`, or explicit sizes.

Order: feature map, row, column, anchor of the location. Boxes are not clipped, so they may extend beyond the image.
Source: SSD (arXiv:1512.02325) §2.2, and the API's generator for the lowest map and the interpolated scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ConfigError
from mirilla.model.spec import AnchorSpec


def anchors_per_location(spec: AnchorSpec) -> tuple[int, ...]:
    """The number of anchors per location of each feature map.

    Raises:
        ConfigError: a size is not positive, or sizes or scales are given for another number of feature maps.
    """
    return tuple(len(boxes) for boxes in (_explicit_sizes(spec) if spec.boxes else box_specs(spec)))


def _explicit_sizes(spec: AnchorSpec) -> tuple[tuple[tuple[float, float], ...], ...]:
    for i, boxes in enumerate(spec.boxes):
        if not boxes or any(len(box) != 2 or not all(0 < side < math.inf for side in box) for box in boxes):
            raise ConfigError(
                f"The anchor sizes of feature map {i} are {boxes or 'none'}.",
                "Give each feature map at least one anchor, with a height and a width above 0 (relative to the input).",
            )
    if len(spec.boxes) != spec.num_layers:
        raise ConfigError(
            f"There are anchor sizes for {len(spec.boxes)} feature maps, but num_layers is {spec.num_layers}.",
            "Give one anchor_map per feature map.",
        )
    return spec.boxes


def box_specs(spec: AnchorSpec) -> tuple[tuple[tuple[float, float], ...], ...]:
    """(scale, aspect ratio = width / height) of the anchors at a location, for each feature map."""
    if spec.min_level:
        octave = [2 ** (i / spec.scales_per_octave) for i in range(spec.scales_per_octave)]
        boxes = tuple((scale, ratio) for ratio in spec.aspect_ratios for scale in octave)
        return (boxes,) * spec.num_layers
    if spec.scales:
        if len(spec.scales) != spec.num_layers:
            raise ConfigError(
                f"ssd_anchor_generator has {len(spec.scales)} scales, but num_layers is {spec.num_layers}.",
                "Give one scale per layer, or none.",
            )
        scales = [*spec.scales, 1.0]
    elif spec.num_layers == 1:
        scales = [spec.min_scale, 1.0]
    else:
        step = (spec.max_scale - spec.min_scale) / (spec.num_layers - 1)
        scales = [*(spec.min_scale + step * i for i in range(spec.num_layers)), 1.0]
    maps = []
    for i, (scale, following) in enumerate(itertools.pairwise(scales)):
        if i == 0 and spec.reduce_boxes_in_lowest_layer:
            maps.append(((0.1, 1.0), (scale, 2.0), (scale, 0.5)))
            continue
        boxes = [(scale, ratio) for ratio in spec.aspect_ratios]
        if spec.interpolated_scale_aspect_ratio > 0:
            boxes.append((float(np.sqrt(scale * following)), spec.interpolated_scale_aspect_ratio))
        maps.append(tuple(boxes))
    return tuple(maps)


def anchors_yxyx(
    spec: AnchorSpec, feature_map_shapes: Sequence[tuple[int, int]], height_px: int, width_px: int
) -> NDArray[np.float32]:
    """All anchors (A, 4) float32, normalised to the network's input.

    Args:
        feature_map_shapes: (height, width) of each map, finest first.
        height_px, width_px: size of the network's input. They matter if it is not square (anchors are square in
            pixels), or if strides or offsets are given in pixels.
    """
    result = []
    sizes = sizes_of_maps(spec, height_px, width_px)
    grids = cell_centres(spec, feature_map_shapes, height_px, width_px)
    for (heights, widths), (y, x) in zip(sizes, grids, strict=True):
        centre_y, centre_x = (c[:, :, None] for c in np.meshgrid(y, x, indexing="ij"))
        corners = (centre_y - heights / 2, centre_x - widths / 2, centre_y + heights / 2, centre_x + widths / 2)
        result.append(np.stack(np.broadcast_arrays(*corners), -1).reshape(-1, 4))
    return np.concatenate(result).astype(np.float32)


def cell_centres(
    spec: AnchorSpec, feature_map_shapes: Sequence[tuple[int, int]], height_px: int, width_px: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The centres of each feature map's locations: y (rows,) and x (columns,), normalised."""
    centres = []
    for i, (rows, columns) in enumerate(feature_map_shapes):
        if spec.min_level:
            stride = 2 ** (spec.min_level + i)
            y_stride, y_offset = _level_grid(stride, height_px)
            x_stride, x_offset = _level_grid(stride, width_px)
        else:
            y_stride, y_offset = _grid(spec.height_stride, spec.height_offset, i, rows, height_px)
            x_stride, x_offset = _grid(spec.width_stride, spec.width_offset, i, columns, width_px)
        y = np.arange(rows, dtype=np.float32) * np.float32(y_stride) + np.float32(y_offset)
        x = np.arange(columns, dtype=np.float32) * np.float32(x_stride) + np.float32(x_offset)
        centres.append((y, x))
    return centres


def sizes_of_maps(
    spec: AnchorSpec, height_px: int, width_px: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Heights (K,) and widths (K,) of the anchors at a location, normalised, for each feature map."""
    if spec.boxes:
        for boxes in _explicit_sizes(spec):
            heights, widths = np.array(boxes, np.float32).T
            yield heights, widths
        return
    shorter = min(height_px, width_px)
    base_height = np.float32(spec.base_anchor_height * shorter / height_px)
    base_width = np.float32(spec.base_anchor_width * shorter / width_px)
    for i, boxes in enumerate(box_specs(spec)):
        if spec.min_level:
            side_px = spec.anchor_scale * 2 ** (spec.min_level + i)
            base_height, base_width = np.float32(side_px / height_px), np.float32(side_px / width_px)
        scales = np.array([scale for scale, _ in boxes], np.float32)
        root = np.sqrt(np.array([ratio for _, ratio in boxes], np.float32))
        yield (scales / root * base_height).astype(np.float32), (scales * root * base_width).astype(np.float32)


def _level_grid(stride_px: int, side_px: int) -> tuple[float, float]:
    """(stride, offset) of a level's centres, normalised. Offset: half a stride if strides divide the side, else 0."""
    offset_px = 0.0 if side_px % stride_px else stride_px / 2
    return stride_px / side_px, offset_px / side_px


def _grid(strides: tuple[int, ...], offsets: tuple[int, ...], i: int, cells: int, side_px: int) -> tuple[float, float]:
    """(stride, offset) of a feature map's centres along one axis, normalised."""
    stride = strides[i] / side_px if strides else 1 / cells
    offset = offsets[i] / side_px if offsets else stride / 2
    return stride, offset
