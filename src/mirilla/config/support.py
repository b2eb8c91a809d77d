"""What every field of pipeline.config does here: the one table of what acts and what is refused.

A path names a field from the top, without the indices of lists. An entry for a message stands for all that
is in it, unless the message acts; then each of its fields has an entry of its own (a test walks the schema
and fails where one is missing). To switch a field over, change its line: the checks, the refusals and the
table in docs/config.md follow; that one is written by
`python -c "from mirilla.config import support; support.write_page('docs/config.md')"`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from mirilla.protos.pipeline_pb2 import TrainEvalPipelineConfig

ACTS, REFUSED, NO_EFFECT = "acts", "refused", "no effect"


@dataclass(frozen=True)
class Support:
    """What one field does.

    status: ACTS; REFUSED (any value but the default, or the mere presence of a message, is an error);
        NO_EFFECT (nothing here depends on it, nor did it change the API's result).
    reason: why it is refused or has no effect, or what to know about how it acts.
    only: the values that are taken, where not all are; counts for unset fields, too, with their default.
    """

    status: str
    reason: str = ""
    only: tuple[object, ...] = ()


_A = Support(ACTS)
_SPEED = "speed and memory only; the API's result does not depend on it either"
_LEGACY = "read only by the API's legacy trainer and evaluator, not by its model_main.py"
_MASKS = "instance masks are not supported: Mirilla finds boxes"
_KEYPOINTS = "keypoints are not supported: Mirilla finds boxes"
_FULL = "the layers on top of the base network are full convolutions, here and in the exported graphs"
_NMS = "the exported graph's post-processing works class by class, and drops what it suppresses"
_RANGE = "the network's own preprocessing sets the range of its input"
_RECALL = "average precision goes over the whole recall"
_AFTER = "per pixel of the network's input, where the API did it per pixel of the picture"
_PATTERNS = "regular expressions, searched for anywhere in a variable's name; one that fits none is an error"
_TENSORBOARD = "TensorBoard pictures are not made; 'mirilla detect' and the report draw detections"


def _only(*values: object, reason: str = "") -> Support:
    return Support(ACTS, reason, values)


def _refused(reason: str) -> Support:
    return Support(REFUSED, reason)


def _none(reason: str) -> Support:
    return Support(NO_EFFECT, reason)


_E = "model.ssd.feature_extractor"
_P = "model.ssd.box_predictor.convolutional_box_predictor"
_BEFORE = "acts on layers before the predictor, and num_layers_before_predictor other than 0 is refused"

# Patterns: '*' stands for one name (or part of one), '**' for one or several. The first that fits counts.
_TABLE: tuple[tuple[str, Support], ...] = (
    # model
    ("model", _A),
    ("model.faster_rcnn", _refused("faster_rcnn is not supported: Mirilla trains SSD models only")),
    ("model.center_net", _refused("center_net is not supported: Mirilla trains SSD models only")),
    (
        "model.experimental_model",
        _refused("experimental_model is not supported: Mirilla trains SSD models only"),
    ),
    ("model.ssd", _A),
    ("model.ssd.num_classes", _A),
    ("model.ssd.image_resizer", _A),
    ("model.ssd.image_resizer.fixed_shape_resizer", _A),
    ("model.ssd.image_resizer.fixed_shape_resizer.height", _A),
    ("model.ssd.image_resizer.fixed_shape_resizer.width", _A),
    (
        "model.ssd.image_resizer.*.resize_method",
        _only("BILINEAR", reason="the exported graphs, the detector and the kit resize bilinearly"),
    ),
    ("model.ssd.image_resizer.*.convert_to_grayscale", _refused("the networks take three channels")),
    ("model.ssd.image_resizer.keep_aspect_ratio_resizer", _A),
    (
        "model.ssd.image_resizer.keep_aspect_ratio_resizer.min_dimension",
        Support(ACTS, "must equal max_dimension"),
    ),
    ("model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension", _A),
    (
        "model.ssd.image_resizer.keep_aspect_ratio_resizer.pad_to_max_dimension",
        _only(
            True,
            reason="without padding the input's size changes from picture to picture, and so do the anchors",
        ),
    ),
    (
        "model.ssd.image_resizer.keep_aspect_ratio_resizer.per_channel_pad_value",
        _refused("pictures are padded with 0, the default"),
    ),
    ("model.ssd.image_resizer.identity_resizer", _refused("the network's input has one fixed size")),
    ("model.ssd.image_resizer.conditional_shape_resizer", _refused("the network's input has one fixed size")),
    (_E, _A),
    (
        _E + ".type",
        _only(
            "embedded_ssd_mobilenet_v1",
            "ssd_mobilenet_v1",
            reason="no other feature extractor is implemented",
        ),
    ),
    (_E + ".depth_multiplier", _A),
    (_E + ".min_depth", _A),
    (_E + ".pad_to_multiple", _only(1, reason="the exported graphs do not pad the input")),
    (_E + ".use_explicit_padding", _refused("the network and its exported graphs pad as SAME does")),
    (_E + ".use_depthwise", _refused(_FULL)),
    (
        _E + ".override_base_feature_extractor_hyperparams",
        Support(
            ACTS,
            "conv_hyperparams on the base network, too; false leaves that its own values (decay 0.9997, "
            "epsilon 0.001, stddev 0.09, L2 4e-05), of which mirilla.base_batch_norm_decay changes the one "
            "that short runs need",
        ),
    ),
    (_E + ".fpn", _refused("feature pyramids (FPN) are not supported")),
    (_E + ".bifpn", _refused("feature pyramids (BiFPN) are not supported")),
    (_E + ".replace_preprocessor_with_placeholder", _refused("the exported graph carries its preprocessing")),
    (_E + ".num_layers", _only(6, reason="the number of feature maps goes with the type")),
    (
        _E + ".conv_hyperparams",
        Support(ACTS, "on the extra layers; on all with override_base_..., as in the API"),
    ),
    (
        _E + ".conv_hyperparams.activation",
        _only("RELU_6", reason="the exported graphs and the bonnet have no other"),
    ),
    (_E + ".conv_hyperparams.batch_norm", _A),
    (_E + ".conv_hyperparams.batch_norm.decay", _A),
    (
        _E + ".conv_hyperparams.batch_norm.epsilon",
        Support(ACTS, "0.001, the base network's, or any with override_base_...: the layers share one"),
    ),
    (
        _E + ".conv_hyperparams.batch_norm.scale",
        _only(True, reason="graphs and checkpoints are written with batch norm's factor gamma"),
    ),
    (
        _E + ".conv_hyperparams.batch_norm.center",
        _only(True, reason="graphs and checkpoints are written with batch norm's offset beta"),
    ),
    (
        _E + ".conv_hyperparams.batch_norm.train",
        Support(ACTS, "false: the statistics stay, and training normalises by them"),
    ),
    (_P + ".conv_hyperparams", Support(ACTS, "on the two convolutions of every predictor")),
    (_P + ".conv_hyperparams.activation", _none(_BEFORE)),
    (_P + ".conv_hyperparams.batch_norm", _none(_BEFORE)),
    ("**.conv_hyperparams.op", _only("CONV", reason="the layers are convolutions, which FC would not reach")),
    ("**.conv_hyperparams.regularizer", _A),
    ("**.conv_hyperparams.regularizer.l1_regularizer", _refused("only L2 is implemented")),
    ("**.conv_hyperparams.regularizer.l2_regularizer", _A),
    ("**.conv_hyperparams.regularizer.l2_regularizer.weight", _A),
    ("**.conv_hyperparams.initializer", _A),
    ("**.conv_hyperparams.initializer.**", _A),
    ("**.conv_hyperparams.group_norm", _refused("group normalisation is not supported")),
    (
        "**.conv_hyperparams.regularize_depthwise",
        _none("concerns the API's Keras models only"),
    ),
    ("**.conv_hyperparams.force_use_bias", _none("concerns the API's Keras models only")),
    ("model.ssd.box_coder", _A),
    ("model.ssd.box_coder.faster_rcnn_box_coder", _A),
    ("model.ssd.box_coder.faster_rcnn_box_coder.*", _A),
    ("model.ssd.box_coder.keypoint_box_coder", _refused(_KEYPOINTS)),
    ("model.ssd.box_coder.*", _refused("only faster_rcnn_box_coder is supported")),
    ("model.ssd.matcher", _A),
    ("model.ssd.matcher.argmax_matcher", _A),
    ("model.ssd.matcher.argmax_matcher.use_matmul_gather", _none("the same result by another operation")),
    ("model.ssd.matcher.argmax_matcher.*", _A),
    ("model.ssd.matcher.*", _refused("only argmax_matcher is supported")),
    ("model.ssd.similarity_calculator", _A),
    ("model.ssd.similarity_calculator.iou_similarity", _A),
    ("model.ssd.similarity_calculator.*", _refused("only iou_similarity is supported")),
    ("model.ssd.encode_background_as_zeros", _A),
    ("model.ssd.negative_class_weight", _A),
    ("model.ssd.anchor_generator", _A),
    ("model.ssd.anchor_generator.ssd_anchor_generator", _A),
    ("model.ssd.anchor_generator.ssd_anchor_generator.*", _A),
    ("model.ssd.anchor_generator.multiscale_anchor_generator", _A),
    (
        "model.ssd.anchor_generator.multiscale_anchor_generator.normalize_coordinates",
        _only(True, reason="boxes are normalised to the picture throughout"),
    ),
    ("model.ssd.anchor_generator.multiscale_anchor_generator.*", _A),
    (
        "model.ssd.anchor_generator.*",
        _refused("only ssd_anchor_generator and multiscale_anchor_generator are supported"),
    ),
    ("model.ssd.box_predictor", _A),
    (_P, _A),
    (_P + ".min_depth", _none(_BEFORE)),
    (_P + ".max_depth", _none(_BEFORE)),
    (_P + ".num_layers_before_predictor", _only(0, reason="the exported graphs have none")),
    (_P + ".use_dropout", Support(ACTS, "before the class predictors, in training")),
    (_P + ".dropout_keep_probability", _A),
    (_P + ".kernel_size", _only(1, reason="the exported graphs' predictors are 1x1")),
    (_P + ".box_code_size", _only(4, reason="a box has four numbers")),
    (
        _P + ".apply_sigmoid_to_scores",
        _refused("the exported graph gives logits; score_converter turns them into scores"),
    ),
    (_P + ".class_prediction_bias_init", _A),
    (_P + ".use_depthwise", _refused(_FULL)),
    (_P + ".mask_head", _refused(_MASKS)),
    (
        "model.ssd.box_predictor.weight_shared_convolutional_box_predictor",
        _refused("predictors that share weights between feature maps are not supported"),
    ),
    ("model.ssd.box_predictor.mask_rcnn_box_predictor", _refused("belongs to faster_rcnn")),
    ("model.ssd.box_predictor.rfcn_box_predictor", _refused("belongs to faster_rcnn")),
    ("model.ssd.post_processing", _A),
    ("model.ssd.post_processing.batch_non_max_suppression", _A),
    (
        "model.ssd.post_processing.batch_non_max_suppression.use_static_shapes",
        _none("the same detections in tensors of fixed size"),
    ),
    ("model.ssd.post_processing.batch_non_max_suppression.use_class_agnostic_nms", _refused(_NMS)),
    (
        "model.ssd.post_processing.batch_non_max_suppression.max_classes_per_detection",
        _none("acts with use_class_agnostic_nms, which is refused"),
    ),
    ("model.ssd.post_processing.batch_non_max_suppression.soft_nms_sigma", _refused(_NMS)),
    ("model.ssd.post_processing.batch_non_max_suppression.*", _A),
    ("model.ssd.post_processing.score_converter", _A),
    (
        "model.ssd.post_processing.logit_scale",
        _only(1.0, reason="the exported graphs' scores are of the logits themselves"),
    ),
    ("model.ssd.post_processing.calibration_config", _refused("calibration of scores is not supported")),
    ("model.ssd.normalize_loss_by_num_matches", _A),
    ("model.ssd.normalize_loc_loss_by_codesize", _A),
    ("model.ssd.loss", _A),
    ("model.ssd.loss.localization_loss", _A),
    ("model.ssd.loss.localization_loss.weighted_l2", _A),
    ("model.ssd.loss.localization_loss.weighted_smooth_l1", _A),
    ("model.ssd.loss.localization_loss.weighted_smooth_l1.delta", _A),
    (
        "model.ssd.loss.localization_loss.weighted_iou",
        Support(ACTS, "on decoded boxes, as it is defined; the API's SSD handed it box codes"),
    ),
    ("model.ssd.loss.localization_loss.l1_localization_loss", _refused("belongs to other model families")),
    ("model.ssd.loss.localization_loss.weighted_giou", _refused("weighted_iou is there")),
    ("model.ssd.loss.classification_loss", _A),
    ("model.ssd.loss.classification_loss.weighted_sigmoid", _A),
    ("model.ssd.loss.classification_loss.weighted_sigmoid_focal", _A),
    ("model.ssd.loss.classification_loss.weighted_sigmoid_focal.gamma", _A),
    ("model.ssd.loss.classification_loss.weighted_sigmoid_focal.alpha", _A),
    ("model.ssd.loss.*.*.anchorwise_output", _none("out of use; the API does not read it")),
    ("model.ssd.loss.classification_loss.weighted_softmax", _A),
    ("model.ssd.loss.classification_loss.weighted_softmax.logit_scale", _A),
    ("model.ssd.loss.classification_loss.weighted_logits_softmax", _refused("distillation is not supported")),
    ("model.ssd.loss.classification_loss.bootstrapped_sigmoid", _A),
    ("model.ssd.loss.classification_loss.bootstrapped_sigmoid.*", _A),
    ("model.ssd.loss.classification_loss.*", _refused("belongs to other model families")),
    ("model.ssd.loss.hard_example_miner", _A),
    ("model.ssd.loss.hard_example_miner.*", _A),
    ("model.ssd.loss.classification_weight", _A),
    ("model.ssd.loss.localization_weight", _A),
    ("model.ssd.loss.random_example_sampler", _A),
    ("model.ssd.loss.random_example_sampler.positive_sample_fraction", _A),
    ("model.ssd.loss.equalization_loss", _refused("label maps with frequencies of classes are not read")),
    ("model.ssd.loss.expected_loss_weights", _only("NONE", reason="choose examples by miner or sampler")),
    ("model.ssd.loss.min_num_negative_samples", _none("acts with expected_loss_weights, which is refused")),
    (
        "model.ssd.loss.desired_negative_sampling_ratio",
        _none("acts with expected_loss_weights, which is refused"),
    ),
    ("model.ssd.freeze_batchnorm", Support(ACTS, "statistics stay; gamma and beta are trained")),
    (
        "model.ssd.inplace_batchnorm_update",
        _none("the same statistics, updated at another moment of the step"),
    ),
    ("model.ssd.add_background_class", _only(True, reason="the network has a background column")),
    ("model.ssd.explicit_background_class", _refused("the network has a background column of its own")),
    ("model.ssd.use_confidences_as_targets", _refused("records with confidences are not read")),
    ("model.ssd.implicit_example_weight", _none("acts with use_confidences_as_targets, which is refused")),
    ("model.ssd.return_raw_detections_during_predict", _refused("the exported graph has fixed outputs")),
    ("model.ssd.mask_head_config", _refused(_MASKS)),
    # training
    ("train_config", _A),
    ("train_config.batch_size", _A),
    ("train_config.num_steps", _A),
    ("train_config.gradient_clipping_by_norm", _A),
    ("train_config.data_augmentation_options", _A),
    (
        "train_config.data_augmentation_options.*.keypoint_flip_permutation",
        _none("there are no keypoints to flip"),
    ),
    ("train_config.data_augmentation_options.normalize_image", _refused(_RANGE)),
    ("train_config.data_augmentation_options.subtract_channel_mean", _refused(_RANGE)),
    (
        "train_config.data_augmentation_options.scale_boxes_to_pixel_coordinates",
        _refused("boxes are normalised to the picture throughout"),
    ),
    ("train_config.data_augmentation_options.rgb_to_gray", _refused("the networks take three channels")),
    (
        "train_config.data_augmentation_options.convert_class_logits_to_softmax",
        _refused("distillation is not supported"),
    ),
    (
        "train_config.data_augmentation_options.autoaugment_image",
        _refused("learnt policies are not implemented; name the steps one by one"),
    ),
    ("train_config.data_augmentation_options.random_pixel_value_scale", Support(ACTS, _AFTER)),
    ("train_config.data_augmentation_options.random_patch_gaussian", Support(ACTS, _AFTER)),
    ("train_config.data_augmentation_options.*", _A),
    ("train_config.data_augmentation_options.*.*", _A),
    ("train_config.data_augmentation_options.*.operations.*", _A),
    ("train_config.optimizer", _A),
    ("train_config.optimizer.**", _A),
    (
        "train_config.fine_tune_checkpoint",
        Support(
            ACTS,
            "where the run starts that has no checkpoint of its own; an error where the API would only warn "
            "and train from scratch (docs/old-checkpoints.md)",
        ),
    ),
    (
        "train_config.fine_tune_checkpoint_type",
        Support(ACTS, "`detection` or `classification`; empty: as from_detection_checkpoint says"),
    ),
    (
        "train_config.from_detection_checkpoint",
        Support(ACTS, "where fine_tune_checkpoint_type is empty; false, the default, means classification"),
    ),
    (
        "train_config.load_all_detection_checkpoint_vars",
        Support(ACTS, "the predictors too, as far as their shapes fit; on detection checkpoints only"),
    ),
    ("train_config.bias_grad_multiplier", Support(ACTS, "of the predictors' biases; 0 means 1")),
    ("train_config.update_trainable_variables", Support(ACTS, _PATTERNS)),
    ("train_config.freeze_variables", Support(ACTS, _PATTERNS)),
    ("train_config.merge_multiple_label_boxes", _refused("an object has one class")),
    ("train_config.use_multiclass_scores", _refused("distillation is not supported")),
    ("train_config.add_regularization_loss", _A),
    (
        "train_config.keep_checkpoint_every_n_hours",
        Support(ACTS, "one of that age stays, beside the newest five"),
    ),
    ("train_config.max_number_of_boxes", _none("out of use; the API reads the input reader's")),
    (
        "train_config.unpad_groundtruth_tensors",
        _none("boxes are not padded, and padding adds nothing to the loss"),
    ),
    ("train_config.retain_original_images", _none(_SPEED)),
    ("train_config.sync_replicas", _none(_LEGACY)),
    ("train_config.replicas_to_aggregate", _none(_LEGACY)),
    ("train_config.startup_delay_steps", _none(_LEGACY)),
    ("train_config.batch_queue_capacity", _none(_LEGACY)),
    ("train_config.num_batch_queue_threads", _none(_LEGACY)),
    ("train_config.prefetch_queue_capacity", _none(_LEGACY)),
    # readers
    ("*_input_reader", _A),
    ("*_input_reader.name", _none("a name for the reader of the file")),
    ("*_input_reader.label_map_path", _A),
    ("train_input_reader.shuffle", _A),
    ("eval_input_reader.shuffle", _none("every picture is measured once, in whatever order")),
    ("*_input_reader.shuffle_buffer_size", _none("the whole set is shuffled")),
    (
        "*_input_reader.filenames_shuffle_buffer_size",
        _none("only the order of the first pictures depends on it"),
    ),
    (
        "train_input_reader.num_epochs",
        Support(ACTS, "training ends with them, or with num_steps; 0: no bound"),
    ),
    ("eval_input_reader.num_epochs", _only(0, 1, reason="every picture is measured once")),
    ("eval_input_reader.sample_1_of_n_examples", _A),
    ("train_input_reader.sample_1_of_n_examples", _A),
    ("train_input_reader.max_number_of_boxes", Support(ACTS, "the first so many of a picture")),
    (
        "eval_input_reader.max_number_of_boxes",
        _only(100, reason="the default; a picture's objects all count in the measurement"),
    ),
    ("*_input_reader.num_readers", _none(_SPEED)),
    ("*_input_reader.num_parallel_batches", _none(_SPEED)),
    ("*_input_reader.num_prefetch_batches", _none(_SPEED)),
    ("*_input_reader.read_block_length", _none(_SPEED)),
    ("*_input_reader.queue_capacity", _none(_LEGACY)),
    ("*_input_reader.min_after_dequeue", _none(_LEGACY)),
    ("*_input_reader.prefetch_size", _none(_LEGACY)),
    ("*_input_reader.num_parallel_map_calls", _none(_LEGACY)),
    ("*_input_reader.num_additional_channels", _refused("the networks take three channels")),
    ("*_input_reader.num_keypoints", _refused(_KEYPOINTS)),
    ("*_input_reader.keypoint_type_weight", _refused(_KEYPOINTS)),
    ("*_input_reader.load_instance_masks", _refused(_MASKS)),
    ("*_input_reader.mask_type", _none("acts with load_instance_masks, which is refused")),
    ("*_input_reader.load_multiclass_scores", _refused("distillation is not supported")),
    ("*_input_reader.load_context_features", _refused("belongs to other model families")),
    (
        "*_input_reader.use_display_name",
        _none("names and display names of the label map are both looked up, as the API does"),
    ),
    ("*_input_reader.include_source_id", _refused("nothing here asks for source ids")),
    (
        "*_input_reader.input_type",
        _only("TF_EXAMPLE", "INPUT_DEFAULT", reason="records of tf.train.Example only"),
    ),
    ("*_input_reader.tf_record_input_reader", _A),
    ("*_input_reader.tf_record_input_reader.input_path", Support(ACTS, "several files, and globs")),
    ("*_input_reader.external_input_reader", _refused("only TFRecord files are read")),
    # evaluation
    ("eval_config", _A),
    ("eval_config.metrics_set", _A),
    (
        "eval_config.use_moving_averages",
        Support(ACTS, "in evaluation, detection and export from checkpoints, as in the API"),
    ),
    (
        "eval_config.num_examples",
        _none("the whole evaluation set is measured, as in the API's model_main.py"),
    ),
    ("eval_config.max_evals", _none("out of use; 'mirilla eval' measures once")),
    ("eval_config.batch_size", _none(_SPEED)),
    ("eval_config.eval_interval_secs", _none(_LEGACY)),
    ("eval_config.save_graph", _none(_LEGACY)),
    ("eval_config.visualization_export_dir", _none(_LEGACY)),
    ("eval_config.eval_master", _none(_LEGACY)),
    ("eval_config.export_path", _none(_LEGACY)),
    ("eval_config.ignore_groundtruth", _none(_LEGACY)),
    ("eval_config.skip_scores", _none(_LEGACY)),
    ("eval_config.skip_labels", _none(_LEGACY)),
    ("eval_config.visualize_groundtruth_boxes", _none(_LEGACY)),
    ("eval_config.groundtruth_box_visualization_color", _none(_LEGACY)),
    ("eval_config.keep_image_id_for_visualization_export", _none(_LEGACY)),
    ("eval_config.eval_instance_masks", _refused(_MASKS)),
    ("eval_config.num_visualizations", _only(10, reason=_TENSORBOARD)),
    ("eval_config.min_score_threshold", _only(0.5, reason=_TENSORBOARD)),
    ("eval_config.max_num_boxes_to_visualize", _only(20, reason=_TENSORBOARD)),
    ("eval_config.retain_original_images", _none(_TENSORBOARD)),
    ("eval_config.retain_original_image_additional_channels", _refused("the networks take three channels")),
    ("eval_config.include_metrics_per_category", _refused("figures are means over the classes")),
    ("eval_config.recall_lower_bound", _only(0.0, reason=_RECALL)),
    ("eval_config.recall_upper_bound", _only(1.0, reason=_RECALL)),
    # quantisation
    ("graph_rewriter", _A),
    ("graph_rewriter.quantization", _refused("training with quantisation is not supported")),
    # ours
    ("mirilla", _A),
    ("mirilla.recipe", _none("tells the reader where the values come from")),
    ("mirilla.**", _A),
)


@cache
def support(path: str) -> Support | None:
    """The entry for a field by its path (without indices), or None where the table has none.

    A field inside a message that is refused or has no effect has its message's entry.
    """
    steps = path.split(".")
    for end in range(1, len(steps) + 1):
        head = ".".join(steps[:end])
        entry = _find(head)
        if entry is None:
            return None
        if entry.status != ACTS:
            return entry
    return _find(path)


@cache
def _find(path: str) -> Support | None:
    return next((entry for pattern, entry in _TABLE if _fits(path.split("."), pattern.split("."))), None)


def _fits(path: list[str], pattern: list[str]) -> bool:
    if not path or not pattern:
        return not path and not pattern
    if pattern[0] == "**":
        return any(_fits(path[count:], pattern[1:]) for count in range(1, len(path) + 1))
    return fnmatchcase(path[0], pattern[0]) and _fits(path[1:], pattern[1:])


def unused_patterns() -> list[str]:
    """Patterns of the table that fit no field, for the tests."""
    used = set()
    for path, _ in fields():
        names = path.split(".")
        used.add(next((pattern for pattern, _ in _TABLE if _fits(names, pattern.split("."))), None))
    return [pattern for pattern, _ in _TABLE if pattern not in used]


def fields() -> Iterator[tuple[str, Any]]:
    """(path, descriptor) of every reachable field; it does not go into messages that are refused."""
    yield from _walk(TrainEvalPipelineConfig.DESCRIPTOR, "")


def _walk(descriptor: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in descriptor.fields:
        path = prefix + field.name
        yield path, field
        entry = support(path)
        if field.message_type is not None and entry is not None and entry.status == ACTS:
            yield from _walk(field.message_type, path + ".")


def markdown() -> str:
    """The table of docs/config.md: one line for every field, and for every message that does not act."""
    lines = ["| field | here | note |", "| --- | --- | --- |"]
    for path, field in fields():
        entry = support(path)
        if entry is None:
            continue
        inner = field.message_type is not None and len(field.message_type.fields) > 0
        if inner and entry.status == ACTS and not entry.reason:
            continue
        note = entry.reason
        if entry.only:
            shown = ", ".join(f"`{_text_form(value)}`" for value in entry.only)
            note = f"only {shown}" + (f": {entry.reason}" if entry.reason else "")
        lines.append(f"| `{path}` | {entry.status} | {note} |")
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def with_table(page: str) -> str:
    """A page with the table put between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{markdown()}{END}{tail}"


def write_page(path: str | os.PathLike[str]) -> None:
    """Put the table into a page that has the two marks."""
    file = Path(path)
    file.write_text(with_table(file.read_text("utf-8")), "utf-8")


def _text_form(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
