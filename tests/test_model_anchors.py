"""Anchors with every option of `ssd_anchor_generator`, by hand; the layers' names and counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.errors import ConfigError
from mirilla.labels import LabelMap
from mirilla.model.anchors import anchors_per_location, anchors_yxyx, box_specs
from mirilla.model.card import ModelCard, dumps, loads
from mirilla.model.layers import architecture
from mirilla.model.spec import AnchorSpec, ModelSpec

ONE = AnchorSpec(
    num_layers=1,
    scales=(1.0,),
    aspect_ratios=(1.0,),
    interpolated_scale_aspect_ratio=0.0,
    reduce_boxes_in_lowest_layer=False,
)


def spec(**changes):
    return AnchorSpec(**{**ONE.__dict__, **changes})


def test_counts_of_the_original():
    maps = [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    assert len(anchors_yxyx(AnchorSpec(num_layers=6), maps, 300, 300)) == 7308
    assert len(anchors_yxyx(AnchorSpec(num_layers=6, reduce_boxes_in_lowest_layer=False), maps, 300, 300)) == 11640


def test_a_wide_input_has_square_anchors_in_pixels():
    """A 320x640 input: the anchor of scale 1 is 320 pixels high and wide."""
    boxes = anchors_yxyx(ONE, [(1, 2)], 320, 640)
    np.testing.assert_allclose(boxes, [[0, 0, 1, 0.5], [0, 0.5, 1, 1]], atol=1e-6)


def test_strides_and_offsets_in_pixels():
    """Centres at offset + i * stride: rows at 10 and 42 of 64 pixels, columns at 4 and 20."""
    given = spec(scales=(0.25,), height_stride=(32,), width_stride=(16,), height_offset=(10,), width_offset=(4,))
    boxes = anchors_yxyx(given, [(2, 2)], 64, 64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * 64
    np.testing.assert_allclose(centres, [[10, 4], [10, 20], [42, 4], [42, 20]], atol=1e-4)
    np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2]) * 64, np.full((4, 2), 16), atol=1e-4)
    # without offsets: half a stride
    half = anchors_yxyx(spec(height_stride=(32,), width_stride=(16,)), [(2, 2)], 64, 64)
    np.testing.assert_allclose((half[:, :2] + half[:, 2:])[0] / 2 * 64, [16, 8], atol=1e-4)


def test_base_anchors():
    boxes = anchors_yxyx(spec(base_anchor_height=0.5, base_anchor_width=0.25), [(1, 1)], 300, 300)
    np.testing.assert_allclose(boxes, [[0.25, 0.375, 0.75, 0.625]], atol=1e-6)


def test_scales_and_ratios():
    """Scales .2 and .5: the first map's further anchor lies between them, the last's between .5 and 1."""
    given = spec(num_layers=2, scales=(0.2, 0.5), aspect_ratios=(1.0, 4.0), interpolated_scale_aspect_ratio=2.0)
    assert box_specs(given) == (
        ((0.2, 1.0), (0.2, 4.0), (pytest.approx(0.1**0.5), 2.0)),
        ((0.5, 1.0), (0.5, 4.0), (pytest.approx(0.5**0.5), 2.0)),
    )
    assert anchors_per_location(given) == (3, 3)
    boxes = anchors_yxyx(given, [(1, 1), (1, 1)], 64, 64)
    # scale .2, ratio 4: .1 high and .4 wide
    np.testing.assert_allclose(boxes[1], [0.45, 0.3, 0.55, 0.7], atol=1e-6)
    with pytest.raises(ConfigError, match="3 scales"):
        box_specs(spec(num_layers=2, scales=(0.1, 0.2, 0.3)))


MULTISCALE = "min_level: 4 max_level: 8 anchor_scale: 3 scales_per_octave: 2 aspect_ratios: [1.0, 4.0]"


def multiscale(size=256):
    generator = f"model {{ ssd {{ anchor_generator {{ multiscale_anchor_generator {{ {MULTISCALE} }} }} }} }}"
    return model_spec(config.merge(config.sample(1, "t", "e", "l", height=size, width=size), generator))


def test_multiscale_anchors():
    """Level 4 of 256 pixels: cells of 16, anchors of 48 and 48 * sqrt(2), centres from 8 on."""
    model = multiscale()
    maps = architecture(model).feature_map_shapes
    boxes = anchors_yxyx(model.anchors, maps, 256, 256)
    assert len(boxes) == 4 * (256 + 64 + 16 + 4 + 1)
    root = 2**0.5
    sides = [(48, 48), (48 * root, 48 * root), (24, 96), (24 * root, 96 * root)]  # a ratio's scales first
    expected = [[8 - h / 2, 8 - w / 2, 8 + h / 2, 8 + w / 2] for h, w in sides]
    np.testing.assert_allclose(boxes[:4] * 256, expected, atol=1e-4)
    np.testing.assert_allclose((boxes[4, :2] + boxes[4, 2:]) / 2 * 256, [8, 24], atol=1e-4)
    # the last map is one cell of 256 pixels
    np.testing.assert_allclose(boxes[-4] * 256, [128 - 384, 128 - 384, 128 + 384, 128 + 384], atol=1e-3)
    # 264 = 16 * 16.5: the first level's cells start at the edge, the second's, of 32, too
    odd = multiscale(264)
    other = anchors_yxyx(odd.anchors, architecture(odd).feature_map_shapes, 264, 264)
    np.testing.assert_allclose((other[0, :2] + other[0, 2:]) / 2, [0, 0], atol=1e-6)


def test_multiscale_anchors_survive_model_json():
    model = multiscale()
    card = ModelCard(spec=model, labels=LabelMap.from_names(["face"]))
    assert card.to_json()["anchors"]["generator"]["min_level"] == 4
    assert loads(dumps(replace(card, file_sha256="0" * 64))).spec == model
    plain = ModelCard(spec=ModelSpec(), labels=LabelMap.from_names(["face"]))
    assert "min_level" not in plain.to_json()["anchors"]["generator"]


def test_the_larger_network_has_the_originals_layers():
    """Public checkpoints of ssd_mobilenet_v1 at 300x300 end with a 3x3 kernel on a map of 2x2."""
    table = architecture(
        ModelSpec(
            feature_extractor="ssd_mobilenet_v1",
            depth_multiplier=1.0,
            height_px=300,
            width_px=300,
            num_classes=90,
            anchors=AnchorSpec(num_layers=6),
        )
    )
    assert table.feature_map_shapes == ((19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    extra = {layer.name: layer.weights_shape for layer in table.layers if not layer.is_base}
    assert extra["Conv2d_13_pointwise_1_Conv2d_2_1x1_256"] == (1, 1, 1024, 256)
    assert extra["Conv2d_13_pointwise_2_Conv2d_2_3x3_s2_512"] == (3, 3, 256, 512)
    assert extra["Conv2d_13_pointwise_1_Conv2d_5_1x1_64"] == (1, 1, 256, 64)
    assert extra["Conv2d_13_pointwise_2_Conv2d_5_3x3_s2_128"] == (3, 3, 64, 128)
    assert [p.anchors for p in table.predictors] == [3, 6, 6, 6, 6, 6]
