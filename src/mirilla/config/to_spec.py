"""What the model part of a pipeline.config says, as a `ModelSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mirilla.config import Pipeline
from mirilla.model.spec import AnchorSpec, BoxCoderSpec, ModelSpec, PostProcessing

_GRID = ("height_stride", "width_stride", "height_offset", "width_offset")


def model_spec(pipeline: Pipeline) -> ModelSpec:
    """The detector that a pipeline describes; the pipeline has passed `mirilla.config.require`."""
    ssd = pipeline.model.ssd
    extractor = ssd.feature_extractor
    resizer = ssd.image_resizer
    letterbox = resizer.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer"
    if letterbox:
        height = width = resizer.keep_aspect_ratio_resizer.max_dimension
    else:
        height, width = resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    batch_norm = extractor.conv_hyperparams.batch_norm
    return ModelSpec(
        feature_extractor=extractor.type,
        depth_multiplier=round(extractor.depth_multiplier, 7),  # a float32 field: 0.75, not 0.7499999
        min_depth=extractor.min_depth,
        height_px=height,
        width_px=width,
        num_classes=ssd.num_classes,
        keep_aspect_ratio=letterbox,
        batch_norm_epsilon=round(batch_norm.epsilon, 9) if extractor.conv_hyperparams.HasField("batch_norm") else 0.001,
        anchors=_anchors(ssd.anchor_generator, pipeline.mirilla.anchor_map),
        box_coder=_box_coder(ssd.box_coder.faster_rcnn_box_coder),
        post_processing=_post_processing(ssd.post_processing),
        feature_maps=tuple(pipeline.mirilla.feature_map),
    )


def write_anchors(pipeline: Pipeline, boxes: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Put anchors, (height, width) map by map, into a pipeline in place of what its generator makes."""
    del pipeline.mirilla.anchor_map[:]
    for one in boxes:
        message = pipeline.mirilla.anchor_map.add()
        for height, width in one:
            message.box.add(height=height, width=width)
    generator = pipeline.model.ssd.anchor_generator
    if generator.HasField("ssd_anchor_generator"):
        generator.ssd_anchor_generator.num_layers = len(boxes)


def _anchors(generator, maps) -> AnchorSpec:
    if maps:  # of the generator no more than the grid counts
        plain = AnchorSpec()
        message = generator.ssd_anchor_generator
        plain = replace(plain, **{name: tuple(int(v) for v in getattr(message, name)) for name in _GRID})
        boxes = tuple(tuple((_short(box.height), _short(box.width)) for box in one.box) for one in maps)
        return replace(plain, num_layers=len(boxes), boxes=boxes)
    if generator.WhichOneof("anchor_generator_oneof") == "multiscale_anchor_generator":
        return _multiscale(generator.multiscale_anchor_generator)
    return _ssd_anchors(generator.ssd_anchor_generator)


def _multiscale(message) -> AnchorSpec:
    return AnchorSpec(
        num_layers=message.max_level - message.min_level + 1,
        aspect_ratios=tuple(_short(v) for v in message.aspect_ratios),
        min_level=message.min_level,
        anchor_scale=_short(message.anchor_scale),
        scales_per_octave=message.scales_per_octave,
    )


def _ssd_anchors(message) -> AnchorSpec:
    def whole(values) -> tuple[int, ...]:
        return tuple(int(v) for v in values)

    return AnchorSpec(
        num_layers=message.num_layers,
        min_scale=_short(message.min_scale),
        max_scale=_short(message.max_scale),
        scales=tuple(_short(v) for v in message.scales),
        aspect_ratios=tuple(_short(v) for v in message.aspect_ratios),
        interpolated_scale_aspect_ratio=_short(message.interpolated_scale_aspect_ratio),
        reduce_boxes_in_lowest_layer=message.reduce_boxes_in_lowest_layer,
        base_anchor_height=_short(message.base_anchor_height),
        base_anchor_width=_short(message.base_anchor_width),
        height_stride=whole(message.height_stride),
        width_stride=whole(message.width_stride),
        height_offset=whole(message.height_offset),
        width_offset=whole(message.width_offset),
    )


def _box_coder(message) -> BoxCoderSpec:
    return BoxCoderSpec(message.y_scale, message.x_scale, message.height_scale, message.width_scale)


def _post_processing(message) -> PostProcessing:
    nms = message.batch_non_max_suppression
    converter = message.DESCRIPTOR.fields_by_name["score_converter"].enum_type
    return PostProcessing(
        score_threshold=_short(nms.score_threshold),
        iou_threshold=_short(nms.iou_threshold),
        max_detections_per_class=nms.max_detections_per_class,
        max_total_detections=nms.max_total_detections,
        score_converter=converter.values_by_number[message.score_converter].name,
    )


def _short(value: float) -> float:
    """The shortest decimal that a float32 field was written as."""
    return float(f"{value:.7g}")
