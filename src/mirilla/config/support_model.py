"""The support table for `model`: the network, its anchors, losses and post-processing."""

from __future__ import annotations

from mirilla.config.support_entry import (
    DISTILLATION,
    KEYPOINTS,
    MASKS,
    NORMALISED,
    OTHER_FAMILY,
    RGB,
    acts,
    each,
    no_effect,
    only,
    refused,
    under,
)

_FAMILY = "Mirilla trains SSD models only"
_INPUT_SIZE = "the network's input has one fixed size"
_FULL = "the layers on top of the base network are full convolutions, here and in the exported graphs"
_NMS = "the exported graph suppresses detections class by class, and drops them"
_BEFORE = "affects only layers before the predictor, and num_layers_before_predictor must be 0"
_KERAS = "affects only the API's Keras models"
_SAMPLING = "acts with expected_loss_weights, which is refused"

_EXTRACTOR = "model.ssd.feature_extractor"
_PREDICTOR = "model.ssd.box_predictor.convolutional_box_predictor"

MODEL = (
    *under(
        "model",
        {
            "": acts(),
            "faster_rcnn": refused(f"faster_rcnn is not supported; {_FAMILY}"),
            "center_net": refused(f"center_net is not supported; {_FAMILY}"),
            "experimental_model": refused(f"experimental_model is not supported; {_FAMILY}"),
            **each(acts(), "ssd", "ssd.num_classes"),
        },
    ),
    *under(
        "model.ssd.image_resizer",
        {
            **each(acts(), "", "fixed_shape_resizer", "fixed_shape_resizer.height", "fixed_shape_resizer.width"),
            "*.resize_method": only("BILINEAR", reason="the exported graphs, the detector and the kit use bilinear"),
            "*.convert_to_grayscale": refused(RGB),
            "keep_aspect_ratio_resizer": acts(),
            "keep_aspect_ratio_resizer.min_dimension": acts("must equal max_dimension"),
            "keep_aspect_ratio_resizer.max_dimension": acts(),
            "keep_aspect_ratio_resizer.pad_to_max_dimension": only(
                True,
                reason="without padding the size of the input would differ from image to image, as would the anchors",
            ),
            "keep_aspect_ratio_resizer.per_channel_pad_value": refused("images are padded with 0, the default"),
            **each(refused(_INPUT_SIZE), "identity_resizer", "conditional_shape_resizer"),
        },
    ),
    *under(
        _EXTRACTOR,
        {
            "": acts(),
            "type": only(
                "embedded_ssd_mobilenet_v1", "ssd_mobilenet_v1", reason="no other feature extractor is implemented"
            ),
            **each(acts(), "depth_multiplier", "min_depth"),
            "pad_to_multiple": only(1, reason="the exported graphs do not pad the input"),
            "use_explicit_padding": refused("the network and its exported graphs use SAME padding"),
            "use_depthwise": refused(_FULL),
            "override_base_feature_extractor_hyperparams": acts(
                "applies conv_hyperparams to the base network too; with false it has its own: decay 0.9997 "
                "(see mirilla.base_batch_norm_decay), epsilon 0.001, stddev 0.09, L2 4e-05"
            ),
            "fpn": refused("feature pyramids (FPN) are not supported"),
            "bifpn": refused("feature pyramids (BiFPN) are not supported"),
            "replace_preprocessor_with_placeholder": refused("the exported graph contains its preprocessing"),
            "num_layers": only(6, reason="the type determines the number of feature maps"),
            "conv_hyperparams": acts("for the extra layers; for all with override_base_..., as in the API"),
            "conv_hyperparams.activation": only(
                "RELU_6", reason="the exported graphs and the bonnet support no other activation"
            ),
            **each(acts(), "conv_hyperparams.batch_norm", "conv_hyperparams.batch_norm.decay"),
            "conv_hyperparams.batch_norm.epsilon": acts(
                "0.001 as in the base network, or any value with override_base_...: all layers share one epsilon"
            ),
            "conv_hyperparams.batch_norm.scale": only(
                True, reason="graphs and checkpoints contain gamma, the scale of batch norm"
            ),
            "conv_hyperparams.batch_norm.center": only(
                True, reason="graphs and checkpoints contain beta, the offset of batch norm"
            ),
            "conv_hyperparams.batch_norm.train": acts("false freezes the statistics; training normalises by them"),
        },
    ),
    *under(
        f"{_PREDICTOR}.conv_hyperparams",
        {
            "": acts("for the two convolutions of every predictor"),
            "activation": no_effect(_BEFORE),
            "batch_norm": no_effect(_BEFORE),
        },
    ),
    *under(
        "**.conv_hyperparams",
        {
            "op": only("CONV", reason="all layers are convolutions, which FC would not apply to"),
            "regularizer": acts(),
            "regularizer.l1_regularizer": refused("only L2 is implemented"),
            **each(
                acts(),
                "regularizer.l2_regularizer",
                "regularizer.l2_regularizer.weight",
                "initializer",
                "initializer.**",
            ),
            "group_norm": refused("group normalisation is not supported"),
            **each(no_effect(_KERAS), "regularize_depthwise", "force_use_bias"),
        },
    ),
    *under(
        "model.ssd",
        {
            **each(acts(), "box_coder", "box_coder.faster_rcnn_box_coder", "box_coder.faster_rcnn_box_coder.*"),
            "box_coder.keypoint_box_coder": refused(KEYPOINTS),
            "box_coder.*": refused("only faster_rcnn_box_coder is supported"),
            **each(acts(), "matcher", "matcher.argmax_matcher"),
            "matcher.argmax_matcher.use_matmul_gather": no_effect("gives the same result by another operation"),
            "matcher.argmax_matcher.*": acts(),
            "matcher.*": refused("only argmax_matcher is supported"),
            **each(acts(), "similarity_calculator", "similarity_calculator.iou_similarity"),
            "similarity_calculator.*": refused("only iou_similarity is supported"),
            **each(
                acts(),
                "encode_background_as_zeros",
                "negative_class_weight",
                "anchor_generator",
                "anchor_generator.ssd_anchor_generator",
                "anchor_generator.ssd_anchor_generator.*",
                "anchor_generator.multiscale_anchor_generator",
            ),
            "anchor_generator.multiscale_anchor_generator.normalize_coordinates": only(True, reason=NORMALISED),
            "anchor_generator.multiscale_anchor_generator.*": acts(),
            "anchor_generator.*": refused("only ssd_anchor_generator and multiscale_anchor_generator are supported"),
            "box_predictor": acts(),
        },
    ),
    *under(
        _PREDICTOR,
        {
            "": acts(),
            "min_depth": no_effect(_BEFORE),
            "max_depth": no_effect(_BEFORE),
            "num_layers_before_predictor": only(0, reason="the exported graphs have none"),
            "use_dropout": acts("before the class predictors, in training"),
            "dropout_keep_probability": acts(),
            "kernel_size": only(1, reason="the predictors of the exported graphs are 1x1"),
            "box_code_size": only(4, reason="a box has four numbers"),
            "apply_sigmoid_to_scores": refused(
                "the exported graph outputs logits; score_converter turns them into scores"
            ),
            "class_prediction_bias_init": acts(),
            "use_depthwise": refused(_FULL),
            "mask_head": refused(MASKS),
        },
    ),
    *under(
        "model.ssd.box_predictor",
        {
            "weight_shared_convolutional_box_predictor": refused(
                "predictors that share weights between feature maps are not supported"
            ),
            "mask_rcnn_box_predictor": refused("belongs to faster_rcnn"),
            "rfcn_box_predictor": refused("belongs to faster_rcnn"),
        },
    ),
    *under(
        "model.ssd.post_processing",
        {
            **each(acts(), "", "batch_non_max_suppression"),
            "batch_non_max_suppression.use_static_shapes": no_effect(
                "gives the same detections in tensors of fixed size"
            ),
            "batch_non_max_suppression.use_class_agnostic_nms": refused(_NMS),
            "batch_non_max_suppression.max_classes_per_detection": no_effect(
                "acts with use_class_agnostic_nms, which is refused"
            ),
            "batch_non_max_suppression.soft_nms_sigma": refused(_NMS),
            **each(acts(), "batch_non_max_suppression.*", "score_converter"),
            "logit_scale": only(1.0, reason="the exported graphs compute scores from the logits as they are"),
            "calibration_config": refused("calibration of scores is not supported"),
        },
    ),
    *under(
        "model.ssd.loss",
        {
            **each(
                acts(),
                "",
                "localization_loss",
                "localization_loss.weighted_l2",
                "localization_loss.weighted_smooth_l1",
                "localization_loss.weighted_smooth_l1.delta",
            ),
            "localization_loss.weighted_iou": acts("on decoded boxes, as defined; the API's SSD passed it box codes"),
            "localization_loss.l1_localization_loss": refused(OTHER_FAMILY),
            "localization_loss.weighted_giou": refused("use weighted_iou"),
            **each(
                acts(),
                "classification_loss",
                "classification_loss.weighted_sigmoid",
                "classification_loss.weighted_sigmoid_focal",
                "classification_loss.weighted_sigmoid_focal.gamma",
                "classification_loss.weighted_sigmoid_focal.alpha",
            ),
            "*.*.anchorwise_output": no_effect("deprecated; the API does not read it"),
            **each(acts(), "classification_loss.weighted_softmax", "classification_loss.weighted_softmax.logit_scale"),
            "classification_loss.weighted_logits_softmax": refused(DISTILLATION),
            **each(acts(), "classification_loss.bootstrapped_sigmoid", "classification_loss.bootstrapped_sigmoid.*"),
            "classification_loss.*": refused(OTHER_FAMILY),
            **each(
                acts(),
                "hard_example_miner",
                "hard_example_miner.*",
                "classification_weight",
                "localization_weight",
                "random_example_sampler",
                "random_example_sampler.positive_sample_fraction",
            ),
            "equalization_loss": refused("class frequencies in label maps are not supported"),
            "expected_loss_weights": only("NONE", reason="use hard_example_miner or random_example_sampler"),
            **each(no_effect(_SAMPLING), "min_num_negative_samples", "desired_negative_sampling_ratio"),
        },
    ),
    *under(
        "model.ssd",
        {
            **each(acts(), "normalize_loss_by_num_matches", "normalize_loc_loss_by_codesize"),
            "freeze_batchnorm": acts("freezes the statistics; gamma and beta are trained"),
            "inplace_batchnorm_update": no_effect("gives the same statistics, updated at another time of the step"),
            "add_background_class": only(True, reason="the network has a background column"),
            "explicit_background_class": refused("the network adds its own background column"),
            "use_confidences_as_targets": refused("confidences in records are not supported"),
            "implicit_example_weight": no_effect("acts with use_confidences_as_targets, which is refused"),
            "return_raw_detections_during_predict": refused("the exported graph has fixed outputs"),
            "mask_head_config": refused(MASKS),
        },
    ),
)
