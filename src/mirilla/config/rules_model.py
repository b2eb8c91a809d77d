"""Rules about `model`: required fields, ranges, and consistency."""

from __future__ import annotations

from collections.abc import Iterator

from mirilla.config import rules_anchors, rules_memory
from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import INIT, above, at_least, between, chosen, refused, suspect
from mirilla.config.to_spec import BASE_BATCH_NORM_DECAY, BASE_BATCH_NORM_EPSILON
from mirilla.findings import Finding
from mirilla.protos.pipeline_pb2 import (
    ArgMaxMatcher,
    ClassificationLoss,
    ConvolutionalBoxPredictor,
    Loss,
    PostProcessing,
    Ssd,
    SsdFeatureExtractor,
)

MIN_SIDE_PX = 32
# Classification loss -> the score converter that turns its logits into probabilities.
_CONVERTERS = {
    "weighted_sigmoid": "SIGMOID",
    "weighted_sigmoid_focal": "SIGMOID",
    "bootstrapped_sigmoid": "SIGMOID",
    "weighted_softmax": "SOFTMAX",
}


def findings(pipeline: Pipeline) -> Iterator[Finding]:
    """Violations of the rules about `model`."""
    if not pipeline.model.HasField("ssd"):
        # Another family of models is refused by the support table.
        if pipeline.model.WhichOneof("model") is None:
            yield refused("model.ssd", "is missing.", INIT)
        return
    ssd, path = pipeline.model.ssd, "model.ssd"
    yield from at_least(ssd, path, "num_classes", 1)
    yield from rules_memory.findings(pipeline, path)
    for name, kinds in (
        ("image_resizer", "image_resizer_oneof"),
        ("box_coder", "box_coder_oneof"),
        ("matcher", "matcher_oneof"),
        ("similarity_calculator", "region_similarity"),
        ("anchor_generator", "anchor_generator_oneof"),
        ("box_predictor", "box_predictor_oneof"),
    ):
        yield from chosen(getattr(ssd, name), f"{path}.{name}", kinds)
    yield from _resizer(ssd, f"{path}.image_resizer")
    yield from _extractor(ssd, f"{path}.feature_extractor")
    yield from _matcher(ssd.matcher.argmax_matcher, f"{path}.matcher.argmax_matcher")
    coder = f"{path}.box_coder.faster_rcnn_box_coder"
    for name in ("y_scale", "x_scale", "height_scale", "width_scale"):
        yield from above(ssd.box_coder.faster_rcnn_box_coder, coder, name, 0)
    yield from rules_anchors.findings(pipeline)
    if ssd.box_predictor.HasField("convolutional_box_predictor"):
        predictor = ssd.box_predictor.convolutional_box_predictor
        here = f"{path}.box_predictor.convolutional_box_predictor"
        yield from _hyperparams(predictor, here, needs_batch_norm=False)
        if predictor.use_dropout:
            yield from above(predictor, here, "dropout_keep_probability", 0)
            yield from between(predictor, here, "dropout_keep_probability", 0, 1)
    yield from at_least(ssd, path, "negative_class_weight", 0)
    yield from _losses(ssd.loss, f"{path}.loss")
    yield from _post_processing(ssd, f"{path}.post_processing")


def _resizer(ssd: Ssd, path: str) -> Iterator[Finding]:
    if ssd.image_resizer.HasField("fixed_shape_resizer"):
        for name in ("height", "width"):
            yield from at_least(ssd.image_resizer.fixed_shape_resizer, f"{path}.fixed_shape_resizer", name, MIN_SIDE_PX)
    if ssd.image_resizer.HasField("keep_aspect_ratio_resizer"):
        resizer, path = ssd.image_resizer.keep_aspect_ratio_resizer, f"{path}.keep_aspect_ratio_resizer"
        yield from at_least(resizer, path, "max_dimension", MIN_SIDE_PX)
        if resizer.min_dimension != resizer.max_dimension:
            yield refused(
                f"{path}.min_dimension",
                f"{resizer.min_dimension} differs from max_dimension, {resizer.max_dimension}; an image that is padded "
                "to a square is scaled so that its longer side fits.",
                f"Set min_dimension: {resizer.max_dimension}.",
            )


def _extractor(ssd: Ssd, path: str) -> Iterator[Finding]:
    extractor = ssd.feature_extractor
    if not ssd.HasField("feature_extractor"):
        yield refused(path, "is missing.", "Add feature_extractor { type: 'embedded_ssd_mobilenet_v1' ... }.")
        return
    yield from above(extractor, path, "depth_multiplier", 0)
    yield from at_least(extractor, path, "min_depth", 1)
    yield from _hyperparams(extractor, path, needs_batch_norm=True)
    norm = extractor.conv_hyperparams.batch_norm
    if not extractor.override_base_feature_extractor_hyperparams and abs(norm.epsilon - BASE_BATCH_NORM_EPSILON) > 1e-8:
        yield refused(
            f"{path}.conv_hyperparams.batch_norm.epsilon",
            f"{norm.epsilon:g} differs from the base network's, {BASE_BATCH_NORM_EPSILON:g}; all layers share one.",
            f"Set epsilon: {BASE_BATCH_NORM_EPSILON:g}, or override_base_feature_extractor_hyperparams: true.",
        )


def _hyperparams(
    owner: SsdFeatureExtractor | ConvolutionalBoxPredictor, path: str, *, needs_batch_norm: bool
) -> Iterator[Finding]:
    path = f"{path}.conv_hyperparams"
    if not owner.HasField("conv_hyperparams"):
        yield refused(path, "is missing.", "Copy the block from the file that 'mirilla init' writes.")
        return
    block = owner.conv_hyperparams
    yield from chosen(block.initializer, f"{path}.initializer", "initializer_oneof")
    weight = f"{path}.regularizer.l2_regularizer"
    yield from at_least(block.regularizer.l2_regularizer, weight, "weight", 0)
    for kind in ("truncated_normal_initializer", "random_normal_initializer"):
        yield from at_least(getattr(block.initializer, kind), f"{path}.initializer.{kind}", "stddev", 0)
    scaling = block.initializer.variance_scaling_initializer
    yield from above(scaling, f"{path}.initializer.variance_scaling_initializer", "factor", 0)
    if needs_batch_norm:
        if block.WhichOneof("normalizer_oneof") is None:
            yield refused(
                f"{path}.batch_norm",
                "is missing; all exported graphs have batch norm.",
                f"Add batch_norm {{ scale: true decay: {BASE_BATCH_NORM_DECAY} }}.",
            )
        yield from between(block.batch_norm, f"{path}.batch_norm", "decay", 0, 1)
        yield from above(block.batch_norm, f"{path}.batch_norm", "epsilon", 0)


def _matcher(matcher: ArgMaxMatcher, path: str) -> Iterator[Finding]:
    if matcher.ignore_thresholds:
        return
    for name in ("matched_threshold", "unmatched_threshold"):
        yield from between(matcher, path, name, 0, 1)
    if matcher.unmatched_threshold > matcher.matched_threshold:
        yield refused(
            f"{path}.unmatched_threshold",
            f"{matcher.unmatched_threshold:g} is above matched_threshold, {matcher.matched_threshold:g}.",
            "Lower unmatched_threshold.",
        )
    elif not matcher.negatives_lower_than_unmatched and matcher.unmatched_threshold == matcher.matched_threshold:
        yield refused(
            f"{path}.negatives_lower_than_unmatched",
            "is false, which takes the negatives from between the two thresholds, but these are equal.",
            "Lower unmatched_threshold, or remove the field.",
        )


def _losses(loss: Loss, path: str) -> Iterator[Finding]:
    yield from chosen(loss.classification_loss, f"{path}.classification_loss", "classification_loss")
    yield from chosen(loss.localization_loss, f"{path}.localization_loss", "localization_loss")
    for name in ("classification_weight", "localization_weight"):
        yield from at_least(loss, path, name, 0)
    smooth = f"{path}.localization_loss.weighted_smooth_l1"
    yield from above(loss.localization_loss.weighted_smooth_l1, smooth, "delta", 0)
    yield from _classification_loss(loss.classification_loss, f"{path}.classification_loss")
    if loss.HasField("random_example_sampler"):
        sampler, sampler_path = loss.random_example_sampler, f"{path}.random_example_sampler"
        yield from above(sampler, sampler_path, "positive_sample_fraction", 0)
        yield from between(sampler, sampler_path, "positive_sample_fraction", 0, 1)
    if loss.HasField("hard_example_miner"):
        miner, miner_path = loss.hard_example_miner, f"{path}.hard_example_miner"
        for name in ("num_hard_examples", "max_negatives_per_positive", "min_negatives_per_image"):
            yield from at_least(miner, miner_path, name, 0)
        yield from between(miner, miner_path, "iou_threshold", 0, 1)


def _classification_loss(loss: ClassificationLoss, path: str) -> Iterator[Finding]:
    focal = loss.weighted_sigmoid_focal
    yield from at_least(focal, f"{path}.weighted_sigmoid_focal", "gamma", 0)
    if focal.HasField("alpha"):
        yield from between(focal, f"{path}.weighted_sigmoid_focal", "alpha", 0, 1)
    yield from between(loss.bootstrapped_sigmoid, f"{path}.bootstrapped_sigmoid", "alpha", 0, 1)
    yield from above(loss.weighted_softmax, f"{path}.weighted_softmax", "logit_scale", 0)


def _post_processing(ssd: Ssd, path: str) -> Iterator[Finding]:
    nms, nms_path = ssd.post_processing.batch_non_max_suppression, f"{path}.batch_non_max_suppression"
    for name in ("score_threshold", "iou_threshold"):
        yield from between(nms, nms_path, name, 0, 1)
    for name in ("max_detections_per_class", "max_total_detections"):
        yield from at_least(nms, nms_path, name, 1)
    converter = PostProcessing.ScoreConverter.Name(ssd.post_processing.score_converter)
    loss = ssd.loss.classification_loss.WhichOneof("classification_loss")
    expected = _CONVERTERS.get(loss or "")
    if expected is not None and expected != converter:
        yield suspect(
            f"{path}.score_converter",
            f"{converter} does not match the loss {loss}: scores will not be probabilities.",
            f"Set score_converter: {expected}.",
        )
