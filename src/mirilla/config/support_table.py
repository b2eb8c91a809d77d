"""The table of pipeline.config's fields: each acts as in the API, is refused, or has no effect.

A path names a field from the top, without the indices of lists. In a pattern '*' matches a name or part of one, and
'**' one or several names; the first matching pattern counts. An entry for a message that is refused or has no
effect covers all its fields; in a message that acts, each field has its own entry (a test walks the schema and fails
if an entry is missing).
"""

from __future__ import annotations

from mirilla.config.support_entry import (
    DISTILLATION,
    KEYPOINTS,
    MASKS,
    NORMALISED,
    OTHER_FAMILY,
    RGB,
    Support,
    acts,
    each,
    no_effect,
    only,
    refused,
    under,
)
from mirilla.config.support_model import MODEL

_SPEED = "affects speed and memory only, in the API too"
_LEGACY = "used only by the API's legacy trainer and evaluator, not by its model_main.py"
_RANGE = "the network's own preprocessing sets the range of its input"
_RECALL = "average precision covers the whole range of recall"
_INPUT_PIXELS = "per pixel of the network's input; the API: per pixel of the image"
_PATTERNS = "regular expressions that may match anywhere in a variable's name; one without a match is an error"
_TENSORBOARD = "no images are written for TensorBoard; 'mirilla detect' and the report draw detections"

_TRAINING = (
    *under(
        "train_config.data_augmentation_options",
        {
            "": acts(),
            "*.keypoint_flip_permutation": no_effect("there are no keypoints to flip"),
            "normalize_image": refused(_RANGE),
            "subtract_channel_mean": refused(_RANGE),
            "scale_boxes_to_pixel_coordinates": refused(NORMALISED),
            "rgb_to_gray": refused(RGB),
            "convert_class_logits_to_softmax": refused(DISTILLATION),
            "autoaugment_image": refused("learnt policies are not implemented; list the steps instead"),
            "random_pixel_value_scale": acts(_INPUT_PIXELS),
            "random_patch_gaussian": acts(_INPUT_PIXELS),
            **each(acts(), "*", "*.*", "*.operations.*"),
        },
    ),
    *under(
        "train_config",
        {
            **each(acts(), "", "batch_size", "num_steps", "gradient_clipping_by_norm", "optimizer", "optimizer.**"),
            "fine_tune_checkpoint": acts(
                "the initial weights of a run without a checkpoint of its own; a failure is an error, where the API "
                "only warned and trained from scratch (docs/old-checkpoints.md)"
            ),
            "fine_tune_checkpoint_type": acts(
                "`detection` or `classification`; if empty, from_detection_checkpoint decides"
            ),
            "fine_tune_checkpoint_version": only(
                "V1", reason="checkpoints of TensorFlow 2 (V2) have other variables and are not read"
            ),
            "from_detection_checkpoint": acts(
                "used if fine_tune_checkpoint_type is empty; false, the default, means classification"
            ),
            "load_all_detection_checkpoint_vars": acts(
                "loads the predictors too, if their shapes match; for detection checkpoints only"
            ),
            "bias_grad_multiplier": acts("for the biases of the predictors; 0 means 1"),
            "update_trainable_variables": acts(_PATTERNS),
            "freeze_variables": acts(_PATTERNS),
            "merge_multiple_label_boxes": refused("an object has one class"),
            "use_multiclass_scores": refused(DISTILLATION),
            "add_regularization_loss": acts(),
            "keep_checkpoint_every_n_hours": acts("keeps one checkpoint per period, besides the newest five"),
            "max_number_of_boxes": no_effect("deprecated; the API uses the input reader's"),
            "unpad_groundtruth_tensors": no_effect("boxes are not padded, and padding does not change the loss"),
            "retain_original_images": no_effect(_SPEED),
            **each(
                no_effect(_LEGACY),
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
    *under(
        "train_input_reader",
        {
            "shuffle": acts(),
            "num_epochs": acts("training ends after them or after num_steps, whichever is first; 0: no limit"),
            "max_number_of_boxes": acts("uses the first boxes of an image, up to this number"),
        },
    ),
    *under(
        "eval_input_reader",
        {
            "shuffle": no_effect("every image is evaluated once, in any order"),
            "num_epochs": only(0, 1, reason="every image is evaluated once"),
            "max_number_of_boxes": only(100, reason="the default; evaluation uses all objects of an image"),
        },
    ),
    *under(
        "*_input_reader",
        {
            "": acts(),
            "name": no_effect("a name for people who read the file"),
            "label_map_path": acts(),
            "shuffle_buffer_size": no_effect("the whole data set is shuffled"),
            "filenames_shuffle_buffer_size": no_effect("affects only the order of the first images"),
            "sample_1_of_n_examples": acts(),
            **each(
                no_effect(_SPEED), "num_readers", "num_parallel_batches", "num_prefetch_batches", "read_block_length"
            ),
            **each(
                no_effect(_LEGACY), "queue_capacity", "min_after_dequeue", "prefetch_size", "num_parallel_map_calls"
            ),
            "num_additional_channels": refused(RGB),
            **each(refused(KEYPOINTS), "num_keypoints", "keypoint_type_weight"),
            "load_instance_masks": refused(MASKS),
            "mask_type": no_effect("acts with load_instance_masks, which is refused"),
            "load_multiclass_scores": refused(DISTILLATION),
            "load_context_features": refused(OTHER_FAMILY),
            "use_display_name": no_effect("names and display names of the label map are both looked up, as in the API"),
            "include_source_id": refused("source ids are not used"),
            "input_type": only("TF_EXAMPLE", "INPUT_DEFAULT", reason="only records of tf.train.Example are supported"),
            "tf_record_input_reader": acts(),
            "tf_record_input_reader.input_path": acts("several files, and globs"),
            "external_input_reader": refused("only TFRecord files are supported"),
        },
    ),
)

_EVALUATION = under(
    "eval_config",
    {
        **each(acts(), "", "metrics_set"),
        "use_moving_averages": acts("for evaluation, detection and export from checkpoints, as in the API"),
        "num_examples": no_effect("the whole evaluation set is used, as in the API's model_main.py"),
        "max_evals": no_effect("deprecated; only 'mirilla tf1 eval' uses it"),
        "eval_interval_secs": no_effect("only 'mirilla tf1 eval' uses it"),
        "batch_size": no_effect(_SPEED),
        **each(
            no_effect(_LEGACY),
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
        "eval_instance_masks": refused(MASKS),
        "num_visualizations": only(10, reason=_TENSORBOARD),
        "min_score_threshold": only(0.5, reason=_TENSORBOARD),
        "max_num_boxes_to_visualize": only(20, reason=_TENSORBOARD),
        "retain_original_images": no_effect(_TENSORBOARD),
        "retain_original_image_additional_channels": refused(RGB),
        "include_metrics_per_category": refused("metrics are means over the classes"),
        "recall_lower_bound": only(0.0, reason=_RECALL),
        "recall_upper_bound": only(1.0, reason=_RECALL),
    },
)

TABLE: tuple[tuple[str, Support], ...] = (
    *MODEL,
    *_TRAINING,
    *_READERS,
    *_EVALUATION,
    ("graph_rewriter", acts()),
    ("graph_rewriter.quantization", refused("training with quantisation is not supported")),
    ("mirilla", acts()),
    ("mirilla.recipe", acts("a comment: where the values come from")),
    ("mirilla.**", acts()),
)
