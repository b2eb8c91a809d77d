"""Rules about values: what must be there, ranges, what must agree, and settings that defeat themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mirilla.config import rules_augmentation
from mirilla.config.findings import Finding
from mirilla.config.pipeline import Pipeline
from mirilla.config.pipeline_pb2 import PostProcessing
from mirilla.config.support import ACTS, support

# feature extractor -> number of feature maps
FEATURE_MAPS = {"embedded_ssd_mobilenet_v1": 5, "ssd_mobilenet_v1": 6}

METRICS = (
    "coco_detection_metrics",
    "pascal_voc_detection_metrics",
    "weighted_pascal_voc_detection_metrics",
)

PLACEHOLDER = "PATH_TO_BE_CONFIGURED"


def findings(pipeline: Pipeline, parts: Iterable[str]) -> Iterator[Finding]:
    """What the values of the given parts break."""
    parts = tuple(parts)
    if "model" in parts:
        yield from _model(pipeline)
    if "train" in parts:
        yield from _training(pipeline)
        yield from _reader(pipeline, "train_input_reader")
    if "eval" in parts:
        yield from _reader(pipeline, "eval_input_reader")
        yield from _evaluation(pipeline)
    yield from _ours(pipeline)


# ---- model


def _model(pipeline: Pipeline) -> Iterator[Finding]:
    if not pipeline.model.HasField("ssd"):
        # Another family is refused by the table; here only its absence is said.
        if pipeline.model.WhichOneof("model") is None:
            yield Finding("model.ssd", "is missing.", "'mirilla init' writes a complete file.")
        return
    ssd, path = pipeline.model.ssd, "model.ssd"
    yield from _at_least(ssd, path, "num_classes", 1)
    for name, kinds in (
        ("image_resizer", "image_resizer_oneof"),
        ("box_coder", "box_coder_oneof"),
        ("matcher", "matcher_oneof"),
        ("similarity_calculator", "region_similarity"),
        ("anchor_generator", "anchor_generator_oneof"),
        ("box_predictor", "box_predictor_oneof"),
    ):
        yield from _chosen(getattr(ssd, name), f"{path}.{name}", kinds)
    yield from _resizer(ssd, f"{path}.image_resizer")
    yield from _extractor(ssd, f"{path}.feature_extractor")
    yield from _matcher(ssd.matcher.argmax_matcher, f"{path}.matcher.argmax_matcher")
    coder = f"{path}.box_coder.faster_rcnn_box_coder"
    for name in ("y_scale", "x_scale", "height_scale", "width_scale"):
        yield from _above(ssd.box_coder.faster_rcnn_box_coder, coder, name, 0)
    yield from _anchors(ssd, f"{path}.anchor_generator.ssd_anchor_generator")
    if ssd.box_predictor.HasField("convolutional_box_predictor"):
        predictor = ssd.box_predictor.convolutional_box_predictor
        here = f"{path}.box_predictor.convolutional_box_predictor"
        yield from _hyperparams(predictor, here, normed=False)
        if predictor.use_dropout:
            yield from _above(predictor, here, "dropout_keep_probability", 0)
            yield from _between(predictor, here, "dropout_keep_probability", 0, 1)
    yield from _at_least(ssd, path, "negative_class_weight", 0)
    yield from _losses(ssd.loss, f"{path}.loss")
    yield from _post_processing(ssd, f"{path}.post_processing")


def _resizer(ssd: Any, path: str) -> Iterator[Finding]:
    if ssd.image_resizer.HasField("fixed_shape_resizer"):
        for name in ("height", "width"):
            yield from _at_least(
                ssd.image_resizer.fixed_shape_resizer, f"{path}.fixed_shape_resizer", name, 32
            )
    if ssd.image_resizer.HasField("keep_aspect_ratio_resizer"):
        resizer, path = ssd.image_resizer.keep_aspect_ratio_resizer, f"{path}.keep_aspect_ratio_resizer"
        yield from _at_least(resizer, path, "max_dimension", 32)
        if resizer.min_dimension != resizer.max_dimension:
            yield Finding(
                f"{path}.min_dimension",
                f"{resizer.min_dimension} differs from max_dimension, {resizer.max_dimension}; a picture "
                "padded to a square is scaled so that its longer side fits.",
                f"Set min_dimension: {resizer.max_dimension}.",
            )


def _extractor(ssd: Any, path: str) -> Iterator[Finding]:
    extractor = ssd.feature_extractor
    if not ssd.HasField("feature_extractor"):
        yield Finding(path, "is missing.", "Add feature_extractor { type: 'embedded_ssd_mobilenet_v1' ... }.")
        return
    yield from _above(extractor, path, "depth_multiplier", 0)
    yield from _at_least(extractor, path, "min_depth", 1)
    yield from _hyperparams(extractor, path, normed=True)
    norm = extractor.conv_hyperparams.batch_norm
    if not extractor.override_base_feature_extractor_hyperparams and abs(norm.epsilon - 0.001) > 1e-8:
        yield Finding(
            f"{path}.conv_hyperparams.batch_norm.epsilon",
            f"{norm.epsilon:g} differs from the base network's, 0.001; the layers share one.",
            "Set epsilon: 0.001, or override_base_feature_extractor_hyperparams: true.",
        )


def _hyperparams(owner: Any, path: str, normed: bool) -> Iterator[Finding]:
    path = f"{path}.conv_hyperparams"
    if not owner.HasField("conv_hyperparams"):
        yield Finding(path, "is missing.", "Copy the block from the file that 'mirilla init' writes.")
        return
    block = owner.conv_hyperparams
    yield from _chosen(block.initializer, f"{path}.initializer", "initializer_oneof")
    weight = f"{path}.regularizer.l2_regularizer"
    yield from _at_least(block.regularizer.l2_regularizer, weight, "weight", 0)
    for kind in ("truncated_normal_initializer", "random_normal_initializer"):
        yield from _at_least(getattr(block.initializer, kind), f"{path}.initializer.{kind}", "stddev", 0)
    scaling = block.initializer.variance_scaling_initializer
    yield from _above(scaling, f"{path}.initializer.variance_scaling_initializer", "factor", 0)
    if normed:
        if block.WhichOneof("normalizer_oneof") is None:
            yield Finding(
                f"{path}.batch_norm",
                "is missing; the graphs are written with batch norm.",
                "Add batch_norm { scale: true decay: 0.9997 }.",
            )
        yield from _between(block.batch_norm, f"{path}.batch_norm", "decay", 0, 1)
        yield from _above(block.batch_norm, f"{path}.batch_norm", "epsilon", 0)


def _matcher(matcher: Any, path: str) -> Iterator[Finding]:
    if matcher.ignore_thresholds:
        return
    for name in ("matched_threshold", "unmatched_threshold"):
        yield from _between(matcher, path, name, 0, 1)
    if matcher.unmatched_threshold > matcher.matched_threshold:
        yield Finding(
            f"{path}.unmatched_threshold",
            f"{matcher.unmatched_threshold:g} is above matched_threshold, {matcher.matched_threshold:g}.",
            "Lower unmatched_threshold.",
        )
    elif (
        not matcher.negatives_lower_than_unmatched
        and matcher.unmatched_threshold == matcher.matched_threshold
    ):
        yield Finding(
            f"{path}.negatives_lower_than_unmatched",
            "false takes the negatives from between the two thresholds, which are equal.",
            "Lower unmatched_threshold, or remove the field.",
        )


def _anchors(ssd: Any, path: str) -> Iterator[Finding]:
    if ssd.anchor_generator.HasField("multiscale_anchor_generator"):
        yield from _multiscale(ssd, path.replace("ssd_anchor", "multiscale_anchor"))
    if not ssd.anchor_generator.HasField("ssd_anchor_generator"):
        return
    anchors = ssd.anchor_generator.ssd_anchor_generator
    kind = ssd.feature_extractor.type
    maps = FEATURE_MAPS.get(kind)
    if maps is not None and anchors.num_layers != maps:
        yield Finding(
            f"{path}.num_layers",
            f"{anchors.num_layers}, but {kind} has {maps} feature maps.",
            f"Set num_layers: {maps}.",
        )
    if not anchors.scales:
        yield from _above(anchors, path, "min_scale", 0)
        if anchors.max_scale < anchors.min_scale:
            yield Finding(
                f"{path}.max_scale", f"{anchors.max_scale:g} is below min_scale, {anchors.min_scale:g}."
            )
    elif min(anchors.scales) <= 0:
        yield Finding(f"{path}.scales", "holds a scale that is not above 0.")
    if not anchors.aspect_ratios:
        yield Finding(
            f"{path}.aspect_ratios", "is empty.", "Set aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333]."
        )
    elif min(anchors.aspect_ratios) <= 0:
        yield Finding(f"{path}.aspect_ratios", "holds a ratio that is not above 0.")
    yield from _at_least(anchors, path, "interpolated_scale_aspect_ratio", 0)
    for name in ("base_anchor_height", "base_anchor_width"):
        yield from _above(anchors, path, name, 0)
    for name in ("scales", "height_stride", "width_stride", "height_offset", "width_offset"):
        count = len(getattr(anchors, name))
        if count not in (0, anchors.num_layers):
            yield Finding(f"{path}.{name}", f"has {count} values, but num_layers is {anchors.num_layers}.")
    for first, second in (("height_stride", "width_stride"), ("height_offset", "width_offset")):
        if len(getattr(anchors, first)) != len(getattr(anchors, second)):
            yield Finding(f"{path}.{second}", f"and {first} must have the same number of values.")


def _multiscale(ssd: Any, path: str) -> Iterator[Finding]:
    anchors, kind = ssd.anchor_generator.multiscale_anchor_generator, ssd.feature_extractor.type
    count, maps = anchors.max_level - anchors.min_level + 1, FEATURE_MAPS.get(kind)
    yield from _at_least(anchors, path, "min_level", 1)
    if maps is not None and count != maps:
        yield Finding(
            f"{path}.max_level",
            f"levels {anchors.min_level} to {anchors.max_level} are {count}, but {kind} has {maps} feature "
            "maps.",
            f"Its first map has level 4: set min_level: 4 and max_level: {3 + maps}.",
        )
    elif anchors.min_level != 4:
        yield Finding(
            f"{path}.min_level",
            f"{anchors.min_level}, but the first map of {kind} has 1/16 of the input's side, which is level "
            "4: the anchors will not cover the picture as the map does.",
            "Set min_level: 4.",
            "warning",
        )
    if not anchors.aspect_ratios:
        yield Finding(f"{path}.aspect_ratios", "is empty.", "Set aspect_ratios: [1.0, 2.0, 0.5].")
    elif min(anchors.aspect_ratios) <= 0:
        yield Finding(f"{path}.aspect_ratios", "holds a ratio that is not above 0.")
    yield from _above(anchors, path, "anchor_scale", 0)
    yield from _at_least(anchors, path, "scales_per_octave", 1)


def _losses(loss: Any, path: str) -> Iterator[Finding]:
    yield from _chosen(loss.classification_loss, f"{path}.classification_loss", "classification_loss")
    yield from _chosen(loss.localization_loss, f"{path}.localization_loss", "localization_loss")
    for name in ("classification_weight", "localization_weight"):
        yield from _at_least(loss, path, name, 0)
    smooth = f"{path}.localization_loss.weighted_smooth_l1"
    yield from _above(loss.localization_loss.weighted_smooth_l1, smooth, "delta", 0)
    focal, focal_path = loss.classification_loss.weighted_sigmoid_focal, f"{path}.classification_loss"
    yield from _at_least(focal, f"{focal_path}.weighted_sigmoid_focal", "gamma", 0)
    if focal.HasField("alpha"):
        yield from _between(focal, f"{focal_path}.weighted_sigmoid_focal", "alpha", 0, 1)
    bootstrapped, softmax = (
        loss.classification_loss.bootstrapped_sigmoid,
        loss.classification_loss.weighted_softmax,
    )
    yield from _between(bootstrapped, f"{focal_path}.bootstrapped_sigmoid", "alpha", 0, 1)
    yield from _above(softmax, f"{focal_path}.weighted_softmax", "logit_scale", 0)
    if loss.HasField("random_example_sampler"):
        sampler, sampler_path = loss.random_example_sampler, f"{path}.random_example_sampler"
        yield from _above(sampler, sampler_path, "positive_sample_fraction", 0)
        yield from _between(sampler, sampler_path, "positive_sample_fraction", 0, 1)
    if loss.HasField("hard_example_miner"):
        miner, miner_path = loss.hard_example_miner, f"{path}.hard_example_miner"
        for name in ("num_hard_examples", "max_negatives_per_positive", "min_negatives_per_image"):
            yield from _at_least(miner, miner_path, name, 0)
        yield from _between(miner, miner_path, "iou_threshold", 0, 1)


def _post_processing(ssd: Any, path: str) -> Iterator[Finding]:
    nms, nms_path = ssd.post_processing.batch_non_max_suppression, f"{path}.batch_non_max_suppression"
    for name in ("score_threshold", "iou_threshold"):
        yield from _between(nms, nms_path, name, 0, 1)
    for name in ("max_detections_per_class", "max_total_detections"):
        yield from _at_least(nms, nms_path, name, 1)
    converter = PostProcessing.ScoreConverter.Name(ssd.post_processing.score_converter)
    loss = ssd.loss.classification_loss.WhichOneof("classification_loss")
    fitting = {
        "weighted_sigmoid": "SIGMOID",
        "weighted_sigmoid_focal": "SIGMOID",
        "bootstrapped_sigmoid": "SIGMOID",
        "weighted_softmax": "SOFTMAX",
    }
    if loss in fitting and fitting[loss] != converter:
        yield Finding(
            f"{path}.score_converter",
            f"{converter} does not go with the loss {loss}: scores will not be probabilities.",
            f"Set score_converter: {fitting[loss]}.",
            "warning",
        )


# ---- training


def _training(pipeline: Pipeline) -> Iterator[Finding]:
    config, path = pipeline.train_config, "train_config"
    if not pipeline.HasField("train_config"):
        yield Finding(path, "is missing.", "'mirilla init' writes a complete file.")
        return
    yield from _at_least(config, path, "batch_size", 1)
    yield from _at_least(config, path, "gradient_clipping_by_norm", 0)
    yield from _chosen(config.optimizer, f"{path}.optimizer", "optimizer")
    chosen = config.optimizer.WhichOneof("optimizer")
    if chosen is not None:
        yield from _optimizer(getattr(config.optimizer, chosen), f"{path}.optimizer.{chosen}")
    if config.optimizer.use_moving_average:
        yield from _between(
            config.optimizer, f"{path}.optimizer", "moving_average_decay", 0, 1, upper_open=True
        )
    yield from rules_augmentation.findings(
        config.data_augmentation_options, pipeline.model.ssd.num_classes, f"{path}.data_augmentation_options"
    )
    for name in ("update_trainable_variables", "freeze_variables"):
        for pattern in getattr(config, name):
            try:
                re.compile(pattern)
            except re.error as error:
                yield Finding(f"{path}.{name}", f"'{pattern}' is no regular expression: {error}.")
    yield from _at_least(config, path, "bias_grad_multiplier", 0)
    yield from _at_least(config, path, "keep_checkpoint_every_n_hours", 1)
    yield from _fine_tuning(pipeline)
    yield from _short_run(pipeline)


def _fine_tuning(pipeline: Pipeline) -> Iterator[Finding]:
    config, options = pipeline.train_config, pipeline.mirilla
    kind = config.fine_tune_checkpoint_type
    if kind not in ("", "detection", "classification"):
        yield Finding(
            "train_config.fine_tune_checkpoint_type",
            f"'{kind}' is none that SSD models have (detection, classification).",
            'Set fine_tune_checkpoint_type: "detection" for a checkpoint of a detector.',
        )
    if config.fine_tune_checkpoint:
        return
    for name in ("fine_tune_from_averages", "fine_tune_slice_channels"):
        if getattr(options, name):
            yield Finding(
                f"mirilla.{name}",
                "is set, but train_config.fine_tune_checkpoint is not.",
                "Name a checkpoint to start from, or remove it.",
            )


def _optimizer(optimizer: Any, path: str) -> Iterator[Finding]:
    names = {field.name for field in optimizer.DESCRIPTOR.fields}
    if "momentum_optimizer_value" in names:
        yield from _between(optimizer, path, "momentum_optimizer_value", 0, 1, upper_open=True)
    if "decay" in names:
        yield from _between(optimizer, path, "decay", 0, 1)
    if "epsilon" in names:
        yield from _above(optimizer, path, "epsilon", 0)
    rate, path = optimizer.learning_rate, f"{path}.learning_rate"
    yield from _chosen(rate, path, "learning_rate")
    kind = rate.WhichOneof("learning_rate")
    if kind is None:
        return
    schedule, path = getattr(rate, kind), f"{path}.{kind}"
    for field in schedule.DESCRIPTOR.fields:
        if "learning_rate" in field.name:
            yield from _at_least(schedule, path, field.name, 0)
    if kind == "exponential_decay_learning_rate":
        yield from _at_least(schedule, path, "decay_steps", 1)
        yield from _above(schedule, path, "decay_factor", 0)
    elif kind == "manual_step_learning_rate":
        steps = [entry.step for entry in schedule.schedule]
        if any(later <= earlier for earlier, later in zip([0, *steps], steps, strict=False)):
            yield Finding(f"{path}.schedule", f"its steps must rise from above 0, but are {steps}.")
        if schedule.warmup and not steps:
            yield Finding(f"{path}.warmup", "needs a schedule with at least one step.")
    elif kind == "cosine_decay_learning_rate":
        if schedule.total_steps < schedule.warmup_steps + schedule.hold_base_rate_steps:
            yield Finding(
                f"{path}.total_steps",
                f"{schedule.total_steps} is less than warmup_steps ({schedule.warmup_steps}) and "
                f"hold_base_rate_steps ({schedule.hold_base_rate_steps}) together.",
                "Raise total_steps, or lower the other two.",
            )
        if schedule.warmup_steps and schedule.warmup_learning_rate > schedule.learning_rate_base:
            yield Finding(
                f"{path}.warmup_learning_rate",
                f"{schedule.warmup_learning_rate:g} is above learning_rate_base, "
                f"{schedule.learning_rate_base:g}.",
            )


def _short_run(pipeline: Pipeline) -> Iterator[Finding]:
    """A run too short for its averages exports a network that has hardly left its initial state."""
    steps = pipeline.train_config.num_steps
    if not steps:
        return
    optimizer, options = pipeline.train_config.optimizer, pipeline.mirilla
    decay = optimizer.moving_average_decay
    share = _initial_share(decay, steps)
    if optimizer.use_moving_average and not options.moving_average_warmup and share > 0.05:
        yield Finding(
            "train_config.optimizer.moving_average_decay",
            f"after {steps} steps at {decay:g} the moving average is still {share:.0%} initial values, "
            "and the average is what is exported.",
            "Set mirilla { moving_average_warmup: true }, lower moving_average_decay, or train longer.",
            "warning",
        )
    batch_norm = pipeline.model.ssd.feature_extractor.conv_hyperparams.batch_norm
    override = pipeline.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams
    base = batch_norm.decay if override else 0.9997
    if options.HasField("base_batch_norm_decay"):
        base = options.base_batch_norm_decay
    for field, value in (
        ("mirilla.base_batch_norm_decay", base),
        ("model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay", batch_norm.decay),
    ):
        if (share := _initial_share(value, steps)) > 0.05:
            yield Finding(
                field,
                f"after {steps} steps at {value:g} the batch-norm statistics are still {share:.0%} "
                "initial values.",
                "Set mirilla { base_batch_norm_decay: 0.99 } and batch_norm { decay: 0.99 }, or train "
                "longer.",
                "warning",
            )


def _initial_share(decay: float, steps: int) -> float:
    return min(max(decay, 0.0), 1.0) ** steps  # out of range is said elsewhere


# ---- readers, evaluation, ours


def _reader(pipeline: Pipeline, path: str) -> Iterator[Finding]:
    reader = getattr(pipeline, path)
    if not pipeline.HasField(path):
        yield Finding(path, "is missing.", "'mirilla init' writes a complete file.")
        return
    yield from _chosen(reader, path, "input_reader")
    for name in ("max_number_of_boxes", "sample_1_of_n_examples"):
        yield from _at_least(reader, path, name, 1)
    if not reader.label_map_path:
        yield Finding(f"{path}.label_map_path", "is missing.", "Name the label map's file.")
    elif PLACEHOLDER in reader.label_map_path:
        yield Finding(f"{path}.label_map_path", f"still holds {PLACEHOLDER}.", "Name the label map's file.")
    if reader.HasField("tf_record_input_reader"):
        files, here = reader.tf_record_input_reader.input_path, f"{path}.tf_record_input_reader.input_path"
        if not files:
            yield Finding(here, "is missing.", "Name the TFRecord files.")
        for file in files:
            if PLACEHOLDER in file:
                yield Finding(here, f"still holds {PLACEHOLDER}.", "Name the TFRecord files.")


def _evaluation(pipeline: Pipeline) -> Iterator[Finding]:
    for name in pipeline.eval_config.metrics_set:
        if name not in METRICS:
            yield Finding(
                "eval_config.metrics_set",
                f"'{name}' is refused: no such measurement is implemented.",
                f"Use {' or '.join(METRICS)}.",
            )
    use = pipeline.train_config.optimizer.use_moving_average
    if pipeline.eval_config.use_moving_averages and pipeline.HasField("train_config") and not use:
        yield Finding(
            "eval_config.use_moving_averages",
            "true, but the optimizer keeps no moving average (use_moving_average: false).",
            "Set eval_config { use_moving_averages: false }.",
        )


def _ours(pipeline: Pipeline) -> Iterator[Finding]:
    options = pipeline.mirilla
    if options.HasField("base_batch_norm_decay"):
        yield from _between(options, "mirilla", "base_batch_norm_decay", 0, 1)
    device = options.device
    if device not in ("auto", "cpu", "mps", "cuda") and not (device[:5] == "cuda:" and device[5:].isdigit()):
        yield Finding(
            "mirilla.device", f"'{device}' is no device.", "Use auto, cpu, cuda, cuda:0, ... or mps."
        )


# ---- small rules


def _chosen(message: Any, path: str, oneof: str) -> Iterator[Finding]:
    if message.WhichOneof(oneof) is None:
        names = [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields]
        taken = [name for name in names if (entry := support(f"{path}.{name}")) and entry.status == ACTS]
        yield Finding(path, "is missing or empty.", f"Put one of these in it: {', '.join(taken)}.")


def _at_least(message: Any, path: str, name: str, least: float) -> Iterator[Finding]:
    if not getattr(message, name) >= least:
        yield Finding(f"{path}.{name}", f"{_value(message, name)} must be {least:g} or more.")


def _above(message: Any, path: str, name: str, limit: float) -> Iterator[Finding]:
    if not getattr(message, name) > limit:
        yield Finding(f"{path}.{name}", f"{_value(message, name)} must be above {limit:g}.")


def _between(
    message: Any, path: str, name: str, low: float, high: float, upper_open: bool = False
) -> Iterator[Finding]:
    value = getattr(message, name)
    if not (low <= value < high if upper_open else low <= value <= high):
        bound = f"at least {low:g} and below {high:g}" if upper_open else f"from {low:g} to {high:g}"
        yield Finding(f"{path}.{name}", f"{_value(message, name)} must be {bound}.")


def _value(message: Any, name: str) -> str:
    return f"{getattr(message, name):g}" + ("" if message.HasField(name) else " (not set)")
