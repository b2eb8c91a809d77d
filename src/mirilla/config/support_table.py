"""The table of what each field of pipeline.config does: used as in the API, refused, or without effect.

A path names a field from the top, without the indices of lists. In a pattern '*' stands for a name or part of one, and
'**' for one or several names; the first pattern that matches counts. An entry for a message that is refused or has no
effect covers all its fields; in a message that acts, each field has an entry of its own (a test walks the schema and
fails where one is missing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mirilla.config.fields import Scalar

Status = Literal["acts", "refused", "no effect"]
ACTS: Final = "acts"
REFUSED: Final = "refused"
NO_EFFECT: Final = "no effect"


@dataclass(frozen=True)
class Support:
    """What a field does.

    Attributes:
        status: ACTS; REFUSED (any value but the default is an error; for a message, its presence is); NO_EFFECT
            (nothing depends on it, neither here nor in the API's result).
        reason: why it is refused or has no effect, or how it acts.
        only: the accepted values, if not all are. An unset field is judged by its default.
    """

    status: Status
    reason: str = ""
    only: tuple[Scalar, ...] = ()


def _acts(reason: str = "") -> Support:
    return Support(ACTS, reason)


def _all(entry: Support, *names: str) -> dict[str, Support]:
    return dict.fromkeys(names, entry)


def _only(*values: Scalar, reason: str) -> Support:
    return Support(ACTS, reason, values)


def _refused(reason: str) -> Support:
    return Support(REFUSED, reason)


def _no_effect(reason: str) -> Support:
    return Support(NO_EFFECT, reason)


def _under(prefix: str, entries: Mapping[str, Support]) -> tuple[tuple[str, Support], ...]:
    """Entries of the fields of a message; the empty name stands for the message itself."""
    return tuple((f"{prefix}.{name}" if name else prefix, entry) for name, entry in entries.items())


_SPEED = "affects speed and memory only, in the API too"
_LEGACY = "used only by the API's legacy trainer and evaluator, not by its model_main.py"
_MASKS = "instance masks are not supported; Mirilla detects boxes"
_KEYPOINTS = "keypoints are not supported; Mirilla detects boxes"
_FAMILY = "Mirilla trains SSD models only"
_OTHER_FAMILY = "belongs to other model families"
_DISTILLATION = "the API's distillation is not supported; see mirilla.distillation"
_RGB = "the networks have three input channels"
_INPUT_SIZE = "the network's input has one fixed size"
_FULL = "the layers on top of the base network are full convolutions, here and in the exported graphs"
_NMS = "the exported graph suppresses detections class by class, and drops them"
_RANGE = "the network's own preprocessing sets the range of its input"
_NORMALISED = "boxes are always normalised to the image"
_RECALL = "average precision covers the whole range of recall"
_INPUT_PIXELS = "per pixel of the network's input; the API: per pixel of the image"
_PATTERNS = "regular expressions that may match anywhere in a variable's name; one without a match is an error"
_TENSORBOARD = "no images are written for TensorBoard; 'mirilla detect' and the report draw detections"
_BEFORE = "affects only layers before the predictor, and num_layers_before_predictor must be 0"
_KERAS = "affects only the API's Keras models"
_SAMPLING = "acts with expected_loss_weights, which is refused"

_EXTRACTOR = "model.ssd.feature_extractor"
_PREDICTOR = "model.ssd.box_predictor.convolutional_box_predictor"

_MODEL = (
    *_under(
        "model",
        {
            "": _acts(),
            "faster_rcnn": _refused(f"faster_rcnn is not supported; {_FAMILY}"),
            "center_net": _refused(f"center_net is not supported; {_FAMILY}"),
            "experimental_model": _refused(f"experimental_model is not supported; {_FAMILY}"),
            **_all(_acts(), "ssd", "ssd.num_classes"),
        },
    ),
    *_under(
        "model.ssd.image_resizer",
        {
            **_all(_acts(), "", "fixed_shape_resizer", "fixed_shape_resizer.height", "fixed_shape_resizer.width"),
            "*.resize_method": _only("BILINEAR", reason="the exported graphs, the detector and the kit use bilinear"),
            "*.convert_to_grayscale": _refused(_RGB),
            "keep_aspect_ratio_resizer": _acts(),
            "keep_aspect_ratio_resizer.min_dimension": _acts("must equal max_dimension"),
            "keep_aspect_ratio_resizer.max_dimension": _acts(),
            "keep_aspect_ratio_resizer.pad_to_max_dimension": _only(
                True,
                reason="without padding the size of the input would differ from image to image, as would the anchors",
            ),
            "keep_aspect_ratio_resizer.per_channel_pad_value": _refused("images are padded with 0, the default"),
            **_all(_refused(_INPUT_SIZE), "identity_resizer", "conditional_shape_resizer"),
        },
    ),
    *_under(
        _EXTRACTOR,
        {
            "": _acts(),
            "type": _only(
                "embedded_ssd_mobilenet_v1", "ssd_mobilenet_v1", reason="no other feature extractor is implemented"
            ),
            **_all(_acts(), "depth_multiplier", "min_depth"),
            "pad_to_multiple": _only(1, reason="the exported graphs do not pad the input"),
            "use_explicit_padding": _refused("the network and its exported graphs use SAME padding"),
            "use_depthwise": _refused(_FULL),
            "override_base_feature_extractor_hyperparams": _acts(
                "applies conv_hyperparams to the base network too; false leaves it its own values (decay 0.9997, "
                "epsilon 0.001, stddev 0.09, L2 4e-05), of which mirilla.base_batch_norm_decay changes the decay"
            ),
            "fpn": _refused("feature pyramids (FPN) are not supported"),
            "bifpn": _refused("feature pyramids (BiFPN) are not supported"),
            "replace_preprocessor_with_placeholder": _refused("the exported graph contains its preprocessing"),
            "num_layers": _only(6, reason="the type determines the number of feature maps"),
            "conv_hyperparams": _acts("for the extra layers; for all with override_base_..., as in the API"),
            "conv_hyperparams.activation": _only(
                "RELU_6", reason="the exported graphs and the bonnet support no other activation"
            ),
            **_all(_acts(), "conv_hyperparams.batch_norm", "conv_hyperparams.batch_norm.decay"),
            "conv_hyperparams.batch_norm.epsilon": _acts(
                "0.001 as in the base network, or any value with override_base_...: all layers share one epsilon"
            ),
            "conv_hyperparams.batch_norm.scale": _only(
                True, reason="graphs and checkpoints contain gamma, the scale of batch norm"
            ),
            "conv_hyperparams.batch_norm.center": _only(
                True, reason="graphs and checkpoints contain beta, the offset of batch norm"
            ),
            "conv_hyperparams.batch_norm.train": _acts("false freezes the statistics; training normalises by them"),
        },
    ),
    *_under(
        f"{_PREDICTOR}.conv_hyperparams",
        {
            "": _acts("for the two convolutions of every predictor"),
            "activation": _no_effect(_BEFORE),
            "batch_norm": _no_effect(_BEFORE),
        },
    ),
    *_under(
        "**.conv_hyperparams",
        {
            "op": _only("CONV", reason="all layers are convolutions, which FC would not apply to"),
            "regularizer": _acts(),
            "regularizer.l1_regularizer": _refused("only L2 is implemented"),
            **_all(
                _acts(),
                "regularizer.l2_regularizer",
                "regularizer.l2_regularizer.weight",
                "initializer",
                "initializer.**",
            ),
            "group_norm": _refused("group normalisation is not supported"),
            **_all(_no_effect(_KERAS), "regularize_depthwise", "force_use_bias"),
        },
    ),
    *_under(
        "model.ssd",
        {
            **_all(_acts(), "box_coder", "box_coder.faster_rcnn_box_coder", "box_coder.faster_rcnn_box_coder.*"),
            "box_coder.keypoint_box_coder": _refused(_KEYPOINTS),
            "box_coder.*": _refused("only faster_rcnn_box_coder is supported"),
            **_all(_acts(), "matcher", "matcher.argmax_matcher"),
            "matcher.argmax_matcher.use_matmul_gather": _no_effect("gives the same result by another operation"),
            "matcher.argmax_matcher.*": _acts(),
            "matcher.*": _refused("only argmax_matcher is supported"),
            **_all(_acts(), "similarity_calculator", "similarity_calculator.iou_similarity"),
            "similarity_calculator.*": _refused("only iou_similarity is supported"),
            **_all(
                _acts(),
                "encode_background_as_zeros",
                "negative_class_weight",
                "anchor_generator",
                "anchor_generator.ssd_anchor_generator",
                "anchor_generator.ssd_anchor_generator.*",
                "anchor_generator.multiscale_anchor_generator",
            ),
            "anchor_generator.multiscale_anchor_generator.normalize_coordinates": _only(True, reason=_NORMALISED),
            "anchor_generator.multiscale_anchor_generator.*": _acts(),
            "anchor_generator.*": _refused("only ssd_anchor_generator and multiscale_anchor_generator are supported"),
            "box_predictor": _acts(),
        },
    ),
    *_under(
        _PREDICTOR,
        {
            "": _acts(),
            "min_depth": _no_effect(_BEFORE),
            "max_depth": _no_effect(_BEFORE),
            "num_layers_before_predictor": _only(0, reason="the exported graphs have none"),
            "use_dropout": _acts("before the class predictors, in training"),
            "dropout_keep_probability": _acts(),
            "kernel_size": _only(1, reason="the predictors of the exported graphs are 1x1"),
            "box_code_size": _only(4, reason="a box has four numbers"),
            "apply_sigmoid_to_scores": _refused(
                "the exported graph outputs logits; score_converter turns them into scores"
            ),
            "class_prediction_bias_init": _acts(),
            "use_depthwise": _refused(_FULL),
            "mask_head": _refused(_MASKS),
        },
    ),
    *_under(
        "model.ssd.box_predictor",
        {
            "weight_shared_convolutional_box_predictor": _refused(
                "predictors that share weights between feature maps are not supported"
            ),
            "mask_rcnn_box_predictor": _refused("belongs to faster_rcnn"),
            "rfcn_box_predictor": _refused("belongs to faster_rcnn"),
        },
    ),
    *_under(
        "model.ssd.post_processing",
        {
            **_all(_acts(), "", "batch_non_max_suppression"),
            "batch_non_max_suppression.use_static_shapes": _no_effect(
                "gives the same detections in tensors of fixed size"
            ),
            "batch_non_max_suppression.use_class_agnostic_nms": _refused(_NMS),
            "batch_non_max_suppression.max_classes_per_detection": _no_effect(
                "acts with use_class_agnostic_nms, which is refused"
            ),
            "batch_non_max_suppression.soft_nms_sigma": _refused(_NMS),
            **_all(_acts(), "batch_non_max_suppression.*", "score_converter"),
            "logit_scale": _only(1.0, reason="the exported graphs compute scores from the logits as they are"),
            "calibration_config": _refused("calibration of scores is not supported"),
        },
    ),
    *_under(
        "model.ssd.loss",
        {
            **_all(
                _acts(),
                "",
                "localization_loss",
                "localization_loss.weighted_l2",
                "localization_loss.weighted_smooth_l1",
                "localization_loss.weighted_smooth_l1.delta",
            ),
            "localization_loss.weighted_iou": _acts("on decoded boxes, as defined; the API's SSD passed it box codes"),
            "localization_loss.l1_localization_loss": _refused(_OTHER_FAMILY),
            "localization_loss.weighted_giou": _refused("use weighted_iou"),
            **_all(
                _acts(),
                "classification_loss",
                "classification_loss.weighted_sigmoid",
                "classification_loss.weighted_sigmoid_focal",
                "classification_loss.weighted_sigmoid_focal.gamma",
                "classification_loss.weighted_sigmoid_focal.alpha",
            ),
            "*.*.anchorwise_output": _no_effect("deprecated; the API does not read it"),
            **_all(_acts(), "classification_loss.weighted_softmax", "classification_loss.weighted_softmax.logit_scale"),
            "classification_loss.weighted_logits_softmax": _refused(_DISTILLATION),
            **_all(_acts(), "classification_loss.bootstrapped_sigmoid", "classification_loss.bootstrapped_sigmoid.*"),
            "classification_loss.*": _refused(_OTHER_FAMILY),
            **_all(
                _acts(),
                "hard_example_miner",
                "hard_example_miner.*",
                "classification_weight",
                "localization_weight",
                "random_example_sampler",
                "random_example_sampler.positive_sample_fraction",
            ),
            "equalization_loss": _refused("class frequencies in label maps are not supported"),
            "expected_loss_weights": _only("NONE", reason="use hard_example_miner or random_example_sampler"),
            **_all(_no_effect(_SAMPLING), "min_num_negative_samples", "desired_negative_sampling_ratio"),
        },
    ),
    *_under(
        "model.ssd",
        {
            **_all(_acts(), "normalize_loss_by_num_matches", "normalize_loc_loss_by_codesize"),
            "freeze_batchnorm": _acts("freezes the statistics; gamma and beta are trained"),
            "inplace_batchnorm_update": _no_effect("gives the same statistics, updated at another time of the step"),
            "add_background_class": _only(True, reason="the network has a background column"),
            "explicit_background_class": _refused("the network adds its own background column"),
            "use_confidences_as_targets": _refused("confidences in records are not supported"),
            "implicit_example_weight": _no_effect("acts with use_confidences_as_targets, which is refused"),
            "return_raw_detections_during_predict": _refused("the exported graph has fixed outputs"),
            "mask_head_config": _refused(_MASKS),
        },
    ),
)

_TRAINING = (
    *_under(
        "train_config.data_augmentation_options",
        {
            "": _acts(),
            "*.keypoint_flip_permutation": _no_effect("there are no keypoints to flip"),
            "normalize_image": _refused(_RANGE),
            "subtract_channel_mean": _refused(_RANGE),
            "scale_boxes_to_pixel_coordinates": _refused(_NORMALISED),
            "rgb_to_gray": _refused(_RGB),
            "convert_class_logits_to_softmax": _refused(_DISTILLATION),
            "autoaugment_image": _refused("learnt policies are not implemented; list the steps instead"),
            "random_pixel_value_scale": _acts(_INPUT_PIXELS),
            "random_patch_gaussian": _acts(_INPUT_PIXELS),
            **_all(_acts(), "*", "*.*", "*.operations.*"),
        },
    ),
    *_under(
        "train_config",
        {
            **_all(_acts(), "", "batch_size", "num_steps", "gradient_clipping_by_norm", "optimizer", "optimizer.**"),
            "fine_tune_checkpoint": _acts(
                "the initial weights of a run without a checkpoint of its own; a failure is an error, where the API "
                "only warned and trained from scratch (docs/old-checkpoints.md)"
            ),
            "fine_tune_checkpoint_type": _acts(
                "`detection` or `classification`; if empty, from_detection_checkpoint decides"
            ),
            "from_detection_checkpoint": _acts(
                "used if fine_tune_checkpoint_type is empty; false, the default, means classification"
            ),
            "load_all_detection_checkpoint_vars": _acts(
                "loads the predictors too, if their shapes match; for detection checkpoints only"
            ),
            "bias_grad_multiplier": _acts("for the biases of the predictors; 0 means 1"),
            "update_trainable_variables": _acts(_PATTERNS),
            "freeze_variables": _acts(_PATTERNS),
            "merge_multiple_label_boxes": _refused("an object has one class"),
            "use_multiclass_scores": _refused(_DISTILLATION),
            "add_regularization_loss": _acts(),
            "keep_checkpoint_every_n_hours": _acts("keeps one checkpoint per period, besides the newest five"),
            "max_number_of_boxes": _no_effect("deprecated; the API uses the input reader's"),
            "unpad_groundtruth_tensors": _no_effect("boxes are not padded, and padding does not change the loss"),
            "retain_original_images": _no_effect(_SPEED),
            **_all(
                _no_effect(_LEGACY),
                "sync_replicas",
                "replicas_to_aggregate",
                "startup_delay_steps",
                "batch_queue_capacity",
                "num_batch_queue_threads",
                "prefetch_queue_capacity",
            ),
        },
    ),
)

_READERS = (
    *_under(
        "train_input_reader",
        {
            "shuffle": _acts(),
            "num_epochs": _acts("training ends after them or after num_steps, whichever is first; 0: no limit"),
            "max_number_of_boxes": _acts("uses the first boxes of an image, up to this number"),
        },
    ),
    *_under(
        "eval_input_reader",
        {
            "shuffle": _no_effect("every image is evaluated once, in any order"),
            "num_epochs": _only(0, 1, reason="every image is evaluated once"),
            "max_number_of_boxes": _only(100, reason="the default; evaluation uses all objects of an image"),
        },
    ),
    *_under(
        "*_input_reader",
        {
            "": _acts(),
            "name": _no_effect("a name for people who read the file"),
            "label_map_path": _acts(),
            "shuffle_buffer_size": _no_effect("the whole data set is shuffled"),
            "filenames_shuffle_buffer_size": _no_effect("affects only the order of the first images"),
            "sample_1_of_n_examples": _acts(),
            **_all(
                _no_effect(_SPEED), "num_readers", "num_parallel_batches", "num_prefetch_batches", "read_block_length"
            ),
            **_all(
                _no_effect(_LEGACY), "queue_capacity", "min_after_dequeue", "prefetch_size", "num_parallel_map_calls"
            ),
            "num_additional_channels": _refused(_RGB),
            **_all(_refused(_KEYPOINTS), "num_keypoints", "keypoint_type_weight"),
            "load_instance_masks": _refused(_MASKS),
            "mask_type": _no_effect("acts with load_instance_masks, which is refused"),
            "load_multiclass_scores": _refused(_DISTILLATION),
            "load_context_features": _refused(_OTHER_FAMILY),
            "use_display_name": _no_effect(
                "names and display names of the label map are both looked up, as in the API"
            ),
            "include_source_id": _refused("source ids are not used"),
            "input_type": _only("TF_EXAMPLE", "INPUT_DEFAULT", reason="only records of tf.train.Example are supported"),
            "tf_record_input_reader": _acts(),
            "tf_record_input_reader.input_path": _acts("several files, and globs"),
            "external_input_reader": _refused("only TFRecord files are supported"),
        },
    ),
)

_EVALUATION = _under(
    "eval_config",
    {
        **_all(_acts(), "", "metrics_set"),
        "use_moving_averages": _acts("for evaluation, detection and export from checkpoints, as in the API"),
        "num_examples": _no_effect("the whole evaluation set is used, as in the API's model_main.py"),
        "max_evals": _no_effect("deprecated; 'mirilla eval' evaluates once"),
        "batch_size": _no_effect(_SPEED),
        **_all(
            _no_effect(_LEGACY),
            "eval_interval_secs",
            "save_graph",
            "visualization_export_dir",
            "eval_master",
            "export_path",
            "ignore_groundtruth",
            "skip_scores",
            "skip_labels",
            "visualize_groundtruth_boxes",
            "groundtruth_box_visualization_color",
            "keep_image_id_for_visualization_export",
        ),
        "eval_instance_masks": _refused(_MASKS),
        "num_visualizations": _only(10, reason=_TENSORBOARD),
        "min_score_threshold": _only(0.5, reason=_TENSORBOARD),
        "max_num_boxes_to_visualize": _only(20, reason=_TENSORBOARD),
        "retain_original_images": _no_effect(_TENSORBOARD),
        "retain_original_image_additional_channels": _refused(_RGB),
        "include_metrics_per_category": _refused("metrics are means over the classes"),
        "recall_lower_bound": _only(0.0, reason=_RECALL),
        "recall_upper_bound": _only(1.0, reason=_RECALL),
    },
)

TABLE: tuple[tuple[str, Support], ...] = (
    *_MODEL,
    *_TRAINING,
    *_READERS,
    *_EVALUATION,
    ("graph_rewriter", _acts()),
    ("graph_rewriter.quantization", _refused("training with quantisation is not supported")),
    ("mirilla", _acts()),
    ("mirilla.recipe", _acts("a comment: where the values come from")),
    ("mirilla.**", _acts()),
)
