"""The sample pipeline: an embedded SSD whose network the AIY Vision Kit's compiler accepts.

The values are those of the API's `embedded_ssd_mobilenet_v1_coco.config`: depth multiplier 0.125, 256x256, batch 24.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from google.protobuf import text_format

from mirilla.config.pipeline import Pipeline
from mirilla.errors import ConfigError
from mirilla.model.spec import ModelSpec

BATCH_SIZE = 24
DEPTH_MULTIPLIER = ModelSpec.depth_multiplier
HEIGHT_PX, WIDTH_PX = ModelSpec.height_px, ModelSpec.width_px

_HYPERPARAMS = """
  activation: RELU_6
  regularizer { l2_regularizer { weight: 4e-05 } }
  initializer { truncated_normal_initializer { mean: 0.0 stddev: 0.03 } }
  batch_norm { decay: 0.9997 center: true scale: true epsilon: 0.001 train: true }
"""

_SSD = f"""
feature_extractor {{
  type: "embedded_ssd_mobilenet_v1"
  depth_multiplier: {DEPTH_MULTIPLIER}
  min_depth: 16
  conv_hyperparams {{ {_HYPERPARAMS} }}
}}
box_coder {{ faster_rcnn_box_coder {{ y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0 }} }}
matcher {{
  argmax_matcher {{
    matched_threshold: 0.5
    unmatched_threshold: 0.5
    ignore_thresholds: false
    negatives_lower_than_unmatched: true
    force_match_for_each_row: true
  }}
}}
similarity_calculator {{ iou_similarity {{}} }}
anchor_generator {{
  ssd_anchor_generator {{
    num_layers: 5
    min_scale: 0.2
    max_scale: 0.95
    aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333]
  }}
}}
box_predictor {{
  convolutional_box_predictor {{
    conv_hyperparams {{ {_HYPERPARAMS} }}
    min_depth: 0
    max_depth: 0
    num_layers_before_predictor: 0
    use_dropout: false
    dropout_keep_probability: 0.8
    kernel_size: 1
    box_code_size: 4
    apply_sigmoid_to_scores: false
  }}
}}
loss {{
  classification_loss {{ weighted_sigmoid {{}} }}
  localization_loss {{ weighted_smooth_l1 {{}} }}
  hard_example_miner {{
    num_hard_examples: 3000
    iou_threshold: 0.99
    loss_type: CLASSIFICATION
    max_negatives_per_positive: 3
    min_negatives_per_image: 0
  }}
  classification_weight: 1.0
  localization_weight: 1.0
}}
normalize_loss_by_num_matches: true
post_processing {{
  batch_non_max_suppression {{
    score_threshold: 1e-8
    iou_threshold: 0.6
    max_detections_per_class: 100
    max_total_detections: 100
  }}
  score_converter: SIGMOID
}}
"""

_REST = """
train_config {
  optimizer {
    rms_prop_optimizer {
      learning_rate {
        exponential_decay_learning_rate {
          initial_learning_rate: 0.004
          decay_steps: 800720
          decay_factor: 0.95
        }
      }
      momentum_optimizer_value: 0.9
      decay: 0.9
      epsilon: 1.0
    }
  }
  data_augmentation_options { random_horizontal_flip {} }
  data_augmentation_options { ssd_random_crop {} }
}
eval_config { use_moving_averages: true }
eval_input_reader { shuffle: false num_readers: 1 }
"""

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def sample(
    num_classes: int,
    train_records: Paths,
    eval_records: Paths,
    label_map_path: str | os.PathLike[str],
    *,
    steps: int | None = None,
    batch_size: int = BATCH_SIZE,
    depth_multiplier: float = DEPTH_MULTIPLIER,
    height: int = HEIGHT_PX,
    width: int = WIDTH_PX,
    num_eval_examples: int | None = None,
    keep_aspect_ratio: bool = False,
) -> Pipeline:
    """The sample pipeline for a data set.

    Args:
        num_classes: number of classes, without the background.
        train_records, eval_records: one or several TFRecord files or globs.
        label_map_path: file of the label map.
        steps: number of training steps; None leaves it to `mirilla train --num-train-steps`.
        batch_size: images per step.
        depth_multiplier: width of the network.
        height, width: input size in pixels.
        num_eval_examples: number of images in the evaluation set, for information only.
        keep_aspect_ratio: letterbox images (pad at the bottom and right) instead of squashing them; needs
            height = width.

    Raises:
        ConfigError: keep_aspect_ratio is set, but height and width differ.
    """
    pipeline = text_format.Parse(_REST, Pipeline())
    ssd = pipeline.model.ssd
    text_format.Parse(_SSD, ssd)
    ssd.num_classes = num_classes
    ssd.feature_extractor.depth_multiplier = depth_multiplier
    if keep_aspect_ratio:
        if height != width:
            raise ConfigError(
                f"keep_aspect_ratio pads images to a square, but the input is {height}x{width}.",
                "Set the same height and width, or keep_aspect_ratio to False.",
            )
        resizer = ssd.image_resizer.keep_aspect_ratio_resizer
        resizer.min_dimension = resizer.max_dimension = height
        resizer.pad_to_max_dimension = True
    else:
        ssd.image_resizer.fixed_shape_resizer.height = height
        ssd.image_resizer.fixed_shape_resizer.width = width

    pipeline.train_config.batch_size = batch_size
    if steps is not None:
        pipeline.train_config.num_steps = steps
    if num_eval_examples is not None:
        pipeline.eval_config.num_examples = num_eval_examples
    readers = ((pipeline.train_input_reader, train_records), (pipeline.eval_input_reader, eval_records))
    for reader, records in readers:
        reader.tf_record_input_reader.input_path.extend(_paths(records))
        reader.label_map_path = os.fspath(label_map_path)
    return pipeline


def _paths(records: Paths) -> list[str]:
    if isinstance(records, (str, os.PathLike)):
        return [os.fspath(records)]
    return [os.fspath(record) for record in records]
