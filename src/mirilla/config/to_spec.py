"""Convert the `model` of a pipeline.config to a `ModelSpec`, and write anchors back into the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mirilla.config.fields import shortest
from mirilla.config.pipeline import Pipeline
from mirilla.model.spec import AnchorSpec, BoxCoderSpec, ModelSpec, PostProcessing
from mirilla.protos import pipeline_pb2

# The base network has the defaults of slim's mobilenet_v1_arg_scope, unless conv_hyperparams override them.
BASE_BATCH_NORM_DECAY = 0.9997
BASE_BATCH_NORM_EPSILON = ModelSpec.batch_norm_epsilon


def model_spec(pipeline: Pipeline) -> ModelSpec:
    """The detector that a pipeline describes. The pipeline must have passed `mirilla.config.require`."""
    ssd = pipeline.model.ssd
    extractor = ssd.feature_extractor
    resizer = ssd.image_resizer
    letterbox = resizer.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer"
    if letterbox:
        height = width = resizer.keep_aspect_ratio_resizer.max_dimension
    else:
        height, width = resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    hyperparams = extractor.conv_hyperparams
    epsilon = hyperparams.batch_norm.epsilon if hyperparams.HasField("batch_norm") else BASE_BATCH_NORM_EPSILON
    return ModelSpec(
        feature_extractor=extractor.type,
        depth_multiplier=shortest(extractor.depth_multiplier),
        min_depth=extractor.min_depth,
        height_px=height,
        width_px=width,
        num_classes=ssd.num_classes,
        keep_aspect_ratio=letterbox,
        batch_norm_epsilon=shortest(epsilon),
        anchors=_anchors(ssd.anchor_generator, pipeline.mirilla.anchor_map),
        box_coder=_box_coder(ssd.box_coder.faster_rcnn_box_coder),
        post_processing=_post_processing(ssd.post_processing),
        feature_maps=tuple(pipeline.mirilla.feature_map),
    )


def batch_norm_decays(pipeline: Pipeline) -> tuple[float, float]:
    """The decays of the batch-norm statistics in the base network and in the extra layers."""
    extractor = pipeline.model.ssd.feature_extractor
    batch_norm = extractor.conv_hyperparams.batch_norm
    extra = batch_norm.decay if extractor.conv_hyperparams.HasField("batch_norm") else BASE_BATCH_NORM_DECAY
    if pipeline.mirilla.HasField("base_batch_norm_decay"):
        return pipeline.mirilla.base_batch_norm_decay, extra
    return (extra if extractor.override_base_feature_extractor_hyperparams else BASE_BATCH_NORM_DECAY), extra


def write_anchors(pipeline: Pipeline, boxes: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Replace a pipeline's anchors by `boxes`: (height, width) of each anchor of each feature map."""
    del pipeline.mirilla.anchor_map[:]
    for map_boxes in boxes:
        anchor_map = pipeline.mirilla.anchor_map.add()
        for height, width in map_boxes:
            anchor_map.box.add(height=height, width=width)
    generator = pipeline.model.ssd.anchor_generator
    if generator.HasField("ssd_anchor_generator"):
        generator.ssd_anchor_generator.num_layers = len(boxes)


def _anchors(generator: pipeline_pb2.AnchorGenerator, maps: Sequence[pipeline_pb2.AnchorMap]) -> AnchorSpec:
    if maps:  # explicit sizes; only the generator's grid is used
        boxes = tuple(tuple((shortest(box.height), shortest(box.width)) for box in item.box) for item in maps)
        return _with_grid(AnchorSpec(num_layers=len(maps), boxes=boxes), generator.ssd_anchor_generator)
    if generator.WhichOneof("anchor_generator_oneof") == "multiscale_anchor_generator":
        return _multiscale(generator.multiscale_anchor_generator)
    return _ssd_anchors(generator.ssd_anchor_generator)


def _multiscale(message: pipeline_pb2.MultiscaleAnchorGenerator) -> AnchorSpec:
    return AnchorSpec(
        num_layers=message.max_level - message.min_level + 1,
        aspect_ratios=tuple(map(shortest, message.aspect_ratios)),
        min_level=message.min_level,
        anchor_scale=shortest(message.anchor_scale),
        scales_per_octave=message.scales_per_octave,
    )


def _ssd_anchors(message: pipeline_pb2.SsdAnchorGenerator) -> AnchorSpec:
    spec = AnchorSpec(
        num_layers=message.num_layers,
        min_scale=shortest(message.min_scale),
        max_scale=shortest(message.max_scale),
        scales=tuple(map(shortest, message.scales)),
        aspect_ratios=tuple(map(shortest, message.aspect_ratios)),
        interpolated_scale_aspect_ratio=shortest(message.interpolated_scale_aspect_ratio),
        reduce_boxes_in_lowest_layer=message.reduce_boxes_in_lowest_layer,
        base_anchor_height=shortest(message.base_anchor_height),
        base_anchor_width=shortest(message.base_anchor_width),
    )
    return _with_grid(spec, message)


def _with_grid(spec: AnchorSpec, message: pipeline_pb2.SsdAnchorGenerator) -> AnchorSpec:
    return replace(
        spec,
        height_stride=tuple(message.height_stride),
        width_stride=tuple(message.width_stride),
        height_offset=tuple(message.height_offset),
        width_offset=tuple(message.width_offset),
    )


def _box_coder(message: pipeline_pb2.FasterRcnnBoxCoder) -> BoxCoderSpec:
    return BoxCoderSpec(message.y_scale, message.x_scale, message.height_scale, message.width_scale)


def _post_processing(message: pipeline_pb2.PostProcessing) -> PostProcessing:
    nms = message.batch_non_max_suppression
    return PostProcessing(
        score_threshold=shortest(nms.score_threshold),
        iou_threshold=shortest(nms.iou_threshold),
        max_detections_per_class=nms.max_detections_per_class,
        max_total_detections=nms.max_total_detections,
        score_converter=pipeline_pb2.PostProcessing.ScoreConverter.Name(message.score_converter),
    )
