"""The specification of a detector without its weights: enough to build it, run it and decode its outputs.

A `ModelSpec` is made from a pipeline.config (`mirilla.config.to_spec`) or from the model.json beside a model
(`mirilla.model.card`). No later code reads either of them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

INPUT_SCALE, INPUT_OFFSET = 2.0 / 255.0, -1.0  # network input = INPUT_SCALE * pixel + INPUT_OFFSET

OPTIONAL = {"optional": True}  # metadata of fields that model.json omits at their defaults


@dataclass(frozen=True)
class AnchorSpec:
    """The API's `ssd_anchor_generator`: scales spaced evenly over the feature maps.

    With `min_level` it is `multiscale_anchor_generator`: a feature map of level l has anchors of anchor_scale * 2 ** l
    pixels. Of the fields before min_level only aspect_ratios and num_layers are used.

    With `boxes`, sizes are explicit: for each feature map, finest first, a tuple of (height, width) relative to the
    input's height and width. Of the other fields only strides, offsets and num_layers are used.
    """

    num_layers: int = 5
    min_scale: float = 0.2
    max_scale: float = 0.95
    scales: tuple[float, ...] = ()  # if given, used instead of min_scale .. max_scale
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 0.3333)
    interpolated_scale_aspect_ratio: float = 1.0  # aspect ratio of the additional anchor between two scales; 0 for none
    reduce_boxes_in_lowest_layer: bool = True  # the first feature map gets only 3 anchors
    base_anchor_height: float = 1.0
    base_anchor_width: float = 1.0
    height_stride: tuple[int, ...] = ()  # pixels; empty: input size / map size
    width_stride: tuple[int, ...] = ()
    height_offset: tuple[int, ...] = ()  # pixels; empty: half a stride
    width_offset: tuple[int, ...] = ()
    min_level: int = field(default=0, metadata=OPTIONAL)  # level of the first map; 0: ssd_anchor_generator
    anchor_scale: float = field(default=4.0, metadata=OPTIONAL)
    scales_per_octave: int = field(default=2, metadata=OPTIONAL)
    boxes: tuple[tuple[tuple[float, float], ...], ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True)
class BoxCoderSpec:
    """Scales of the Faster R-CNN box coder."""

    y_scale: float = 10.0
    x_scale: float = 10.0
    height_scale: float = 5.0
    width_scale: float = 5.0


@dataclass(frozen=True)
class PostProcessing:
    """How scores become detections: NMS per class, then the best detections over all classes."""

    score_threshold: float = 1e-8
    iou_threshold: float = 0.6
    max_detections_per_class: int = 100
    max_total_detections: int = 100
    score_converter: str = "SIGMOID"  # or SOFTMAX, IDENTITY


@dataclass(frozen=True)
class ModelSpec:
    """A single-shot detector on MobileNet v1.

    feature_extractor: 'embedded_ssd_mobilenet_v1' or 'ssd_mobilenet_v1'.
    depth_multiplier, min_depth: channels of a layer are max(int(depth * depth_multiplier), min_depth).
    height_px, width_px: size of the network's input.
    num_classes: number of classes without the background, which is column 0 of the logits.
    keep_aspect_ratio: False squashes a photo to the input (fixed_shape_resizer); True letterboxes it at the top
        left (keep_aspect_ratio_resizer with pad_to_max_dimension).
    batch_norm_epsilon: epsilon in base and extra layers.
    feature_maps: base layers whose outputs get predictors, finest first; empty: the default,
        `mirilla.model.layers.FIRST_MAPS`. The extra feature maps follow.
    """

    feature_extractor: str = "embedded_ssd_mobilenet_v1"
    depth_multiplier: float = 0.125
    min_depth: int = 16
    height_px: int = 256
    width_px: int = 256
    num_classes: int = 1
    keep_aspect_ratio: bool = False
    batch_norm_epsilon: float = 0.001
    anchors: AnchorSpec = field(default_factory=AnchorSpec)
    box_coder: BoxCoderSpec = field(default_factory=BoxCoderSpec)
    post_processing: PostProcessing = field(default_factory=PostProcessing)
    feature_maps: tuple[str, ...] = field(default=(), metadata=OPTIONAL)

    @property
    def resize(self) -> str:
        """'letterbox' or 'squash', for model.json, protocols and messages."""
        return "letterbox" if self.keep_aspect_ratio else "squash"
