"""What the training part of a pipeline.config says, as plain dataclasses that the trainer works from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mirilla.batches.api_steps import augmentations
from mirilla.batches.examples import Augmentation
from mirilla.batches.mosaic import InputRecipe, input_recipe
from mirilla.config import Pipeline
from mirilla.config.to_spec import batch_norm_decays
from mirilla.errors import ConfigError
from mirilla.model.initializers import Initializer
from mirilla.model.layers import Architecture, architecture
from mirilla.model.spec import ModelSpec
from mirilla.training import schedules
from mirilla.training.distillation import DistillationSpec
from mirilla.training.losses import ClassificationLoss, LocalizationLoss, ObjectiveSpec
from mirilla.training.matching import MatcherSpec
from mirilla.training.mining import MinerSpec
from mirilla.training.optimizer import Adam, Momentum, Optimizer, RmsProp
from mirilla.training.simota import SimOtaSpec

# The base network keeps slim's own arguments (mobilenet_v1_arg_scope), unless conv_hyperparams override them.
BASE_STDDEV = 0.09
BASE_L2 = 0.00004


@dataclass(frozen=True)
class Plan:
    """How to train.

    l2: kernel's variable name -> weight of its L2 loss.
    num_steps: None trains until stopped. num_epochs: the same, in passes over the pictures.
    dropout: share of the class predictors' input that a step drops.
    freeze_base_batch_norm, freeze_extra_batch_norm: whether statistics stay what they are.
    gradient_scale: variable's name -> what its gradient is multiplied with; 0 freezes it. Not in it: 1.
    keep_every_hours: so far apart are the checkpoints that stay when older ones go.
    average_decay: None keeps no moving average.
    recalibration_batches: so many batches measure the statistics of the averages at the end; 0: none.
    distillation: what softens the labels; None: nothing.
    """

    batch_size: int
    num_steps: int | None
    num_epochs: int | None
    objective: ObjectiveSpec
    optimizer: Optimizer
    schedule: schedules.Schedule
    average_decay: float | None
    average_warmup: bool
    clip_norm: float
    base_batch_norm_decay: float
    extra_batch_norm_decay: float
    freeze_base_batch_norm: bool
    freeze_extra_batch_norm: bool
    dropout: float
    initializers: tuple[Initializer, Initializer, Initializer]  # base, extra maps, predictors
    class_bias: float
    l2: dict[str, float]
    gradient_scale: dict[str, float]
    augmentations: tuple[Augmentation, ...]
    input_recipe: InputRecipe | None
    shuffle: bool
    checkpoint_every_steps: int
    keep_every_hours: int
    seed: int
    recalibration_batches: int
    distillation: DistillationSpec | None

    @property
    def draws(self) -> bool:
        """Whether a step itself draws random numbers."""
        return self.dropout > 0 or self.objective.sampled_positive_share is not None


def training_plan(pipeline: Pipeline, spec: ModelSpec) -> Plan:
    """The plan of a pipeline that has passed `mirilla.config.require`.

    Raises:
        ConfigError: a pattern of freeze_variables or update_trainable_variables that fits no variable.
    """
    ssd, train = pipeline.model.ssd, pipeline.train_config
    options = pipeline.mirilla
    extra = ssd.feature_extractor.conv_hyperparams
    head = ssd.box_predictor.convolutional_box_predictor
    predictor = head.conv_hyperparams
    table = architecture(spec)
    kind = train.optimizer.WhichOneof("optimizer")
    message = getattr(train.optimizer, kind)
    averages = train.optimizer.use_moving_average
    base_decay, extra_decay = batch_norm_decays(pipeline)
    override = ssd.feature_extractor.override_base_feature_extractor_hyperparams
    frozen = ssd.freeze_batchnorm, ssd.freeze_batchnorm or not extra.batch_norm.train
    base_initializer = _initializer(extra) if override else Initializer(stddev=BASE_STDDEV)
    base_l2, depthwise_l2 = _base_l2(spec, _l2_weight(extra) if override else None)
    l2 = _l2(table, base_l2, depthwise_l2, _l2_weight(extra), _l2_weight(predictor))
    return Plan(
        batch_size=train.batch_size,
        num_steps=train.num_steps or None,
        num_epochs=pipeline.train_input_reader.num_epochs or None,
        objective=_objective(ssd, options, spec),
        optimizer=_optimizer(kind, message),
        schedule=_schedule(message.learning_rate),
        average_decay=train.optimizer.moving_average_decay if averages else None,
        average_warmup=options.moving_average_warmup,
        clip_norm=train.gradient_clipping_by_norm,
        base_batch_norm_decay=base_decay,
        extra_batch_norm_decay=extra_decay,
        freeze_base_batch_norm=frozen[1] if override else frozen[0],
        freeze_extra_batch_norm=frozen[1],
        dropout=1 - head.dropout_keep_probability if head.use_dropout else 0.0,
        initializers=(base_initializer, _initializer(extra), _initializer(predictor)),
        class_bias=head.class_prediction_bias_init,
        l2=l2 if train.add_regularization_loss else {},
        gradient_scale=_gradient_scale(table, train),
        augmentations=augmentations(train.data_augmentation_options),
        input_recipe=input_recipe(options.augmentation),
        shuffle=pipeline.train_input_reader.shuffle,
        checkpoint_every_steps=options.checkpoint_every_steps,
        keep_every_hours=train.keep_checkpoint_every_n_hours,
        seed=options.seed,
        recalibration_batches=options.recalibration_batches,
        distillation=_distillation(options.distillation) if options.HasField("distillation") else None,
    )


def _distillation(message) -> DistillationSpec:
    return DistillationSpec(Path(message.teacher), message.share, message.least_score)


def _objective(ssd, options, spec: ModelSpec) -> ObjectiveSpec:
    loss, matcher = ssd.loss, ssd.matcher.argmax_matcher
    miner = None
    if loss.HasField("hard_example_miner"):
        message = loss.hard_example_miner
        types = message.DESCRIPTOR.fields_by_name["loss_type"].enum_type.values_by_number
        miner = MinerSpec(
            num_hard_examples=message.num_hard_examples or 2**31 - 1,
            iou_threshold=message.iou_threshold,
            loss_type=types[message.loss_type].name,
            max_negatives_per_positive=message.max_negatives_per_positive,
            min_negatives_per_image=message.min_negatives_per_image,
        )
    dynamic = None
    if options.HasField("dynamic_assigner"):
        message = options.dynamic_assigner
        dynamic = SimOtaSpec(message.center_radius, message.candidates, message.box_cost)
    sampled = None
    if loss.HasField("random_example_sampler"):
        sampled = loss.random_example_sampler.positive_sample_fraction
    return ObjectiveSpec(
        num_classes=spec.num_classes,
        matcher=MatcherSpec(
            matched_threshold=matcher.matched_threshold,
            unmatched_threshold=matcher.unmatched_threshold,
            negatives_lower_than_unmatched=matcher.negatives_lower_than_unmatched,
            force_match_for_each_row=matcher.force_match_for_each_row,
            ignore_thresholds=matcher.ignore_thresholds,
        ),
        box_coder=spec.box_coder,
        classification=_classification(loss.classification_loss, options),
        localization=_localization(loss.localization_loss, options),
        classification_weight=loss.classification_weight,
        localization_weight=loss.localization_weight,
        miner=miner,
        dynamic=dynamic,
        normalize_by_matches=ssd.normalize_loss_by_num_matches,
        normalize_localization_by_code_size=ssd.normalize_loc_loss_by_codesize,
        background_as_zeros=ssd.encode_background_as_zeros,
        negative_class_weight=ssd.negative_class_weight,
        sampled_positive_share=sampled,
    )


def _classification(message, options) -> ClassificationLoss:
    if options.HasField("quality_focal_loss"):
        return ClassificationLoss("quality_focal", gamma=options.quality_focal_loss.beta)
    kind = message.WhichOneof("classification_loss") or "weighted_sigmoid"
    if kind == "weighted_sigmoid_focal":
        focal = message.weighted_sigmoid_focal
        return ClassificationLoss("focal", gamma=focal.gamma, alpha=focal.alpha if focal.HasField("alpha") else None)
    if kind == "weighted_softmax":
        return ClassificationLoss("softmax", logit_scale=message.weighted_softmax.logit_scale)
    if kind == "bootstrapped_sigmoid":
        bootstrapped = message.bootstrapped_sigmoid
        return ClassificationLoss("bootstrapped", alpha=bootstrapped.alpha, hard=bootstrapped.hard_bootstrap)
    return ClassificationLoss("sigmoid")


def _localization(message, options) -> LocalizationLoss:
    if options.HasField("giou_loss"):
        return LocalizationLoss("giou")
    kind = message.WhichOneof("localization_loss")
    if kind in ("weighted_l2", "weighted_iou"):
        return LocalizationLoss(kind.removeprefix("weighted_"))
    return LocalizationLoss("smooth_l1", delta=message.weighted_smooth_l1.delta)


def _optimizer(kind: str, message) -> Optimizer:
    if kind == "rms_prop_optimizer":
        return RmsProp(decay=message.decay, momentum=message.momentum_optimizer_value, epsilon=message.epsilon)
    if kind == "momentum_optimizer":
        return Momentum(momentum=message.momentum_optimizer_value)
    return Adam(epsilon=message.epsilon)


def _schedule(message) -> schedules.Schedule:
    kind = message.WhichOneof("learning_rate") or "exponential_decay_learning_rate"
    rate = getattr(message, kind)
    if kind == "constant_learning_rate":
        return schedules.constant(rate.learning_rate)
    if kind == "manual_step_learning_rate":
        steps = [(s.step, s.learning_rate) for s in rate.schedule]
        return schedules.manual_steps(rate.initial_learning_rate, steps, rate.warmup)
    if kind == "cosine_decay_learning_rate":
        return schedules.cosine_decay(
            rate.learning_rate_base,
            rate.total_steps,
            rate.warmup_learning_rate,
            rate.warmup_steps,
            rate.hold_base_rate_steps,
        )
    return schedules.exponential_decay(
        rate.initial_learning_rate,
        rate.decay_steps,
        rate.decay_factor,
        rate.staircase,
        rate.burnin_learning_rate,
        rate.burnin_steps,
        rate.min_learning_rate,
    )


def _l2_weight(hyperparams) -> float:
    """0 where no L2 regulariser is set."""
    if hyperparams.regularizer.WhichOneof("regularizer_oneof") != "l2_regularizer":
        return 0.0
    return hyperparams.regularizer.l2_regularizer.weight


def _base_l2(spec: ModelSpec, override: float | None) -> tuple[float, float]:
    """(kernels, depthwise kernels) of the base network.

    slim's arguments leave depthwise kernels alone, but ssd_mobilenet_v1 asks for them, too; conv_hyperparams, where
    they override the base's, reach both.
    """
    if override is not None:
        return override, override
    return BASE_L2, BASE_L2 if spec.feature_extractor == "ssd_mobilenet_v1" else 0.0


def _l2(table: Architecture, base: float, depthwise: float, extra: float, predictor: float) -> dict[str, float]:
    """By kernel; biases and batch norm have none."""
    result = {e.weights: base if e.is_base else extra for e in table.layers if e.kind == "conv"}
    result |= {e.weights: depthwise for e in table.layers if e.kind == "depthwise"}
    for entry in table.predictors:
        result |= dict.fromkeys((f"{entry.box_scope}/weights", f"{entry.class_scope}/weights"), predictor)
    return result


def _gradient_scale(table: Architecture, train) -> dict[str, float]:
    """Biases by their factor, frozen variables by 0; patterns are searched for anywhere in a name."""
    names = [name for name, _, trainable in table.variables() if trainable]
    result = {}
    if train.bias_grad_multiplier:
        result = {name: train.bias_grad_multiplier for name in names if name.endswith("/biases")}
    for field, inverted in (("update_trainable_variables", True), ("freeze_variables", False)):
        patterns = list(getattr(train, field))
        if not patterns:
            continue
        found: set[str] = set()
        for pattern in patterns:
            hits = {name for name in names if re.search(pattern, name)}
            if not hits:
                raise ConfigError(
                    f"train_config.{field}: '{pattern}' fits no variable of the network.",
                    f"Names look like '{names[0]}'. Correct the pattern, or remove it.",
                )
            found |= hits
        result |= dict.fromkeys((name for name in names if (name in found) != inverted), 0.0)
    if sum(factor == 0 for factor in result.values()) == len(names):
        raise ConfigError("train_config.freeze_variables: every variable is frozen.", "Leave some to be trained.")
    return result


def _initializer(hyperparams) -> Initializer:
    kind = hyperparams.initializer.WhichOneof("initializer_oneof")
    if kind == "variance_scaling_initializer":
        message = hyperparams.initializer.variance_scaling_initializer
        mode = message.DESCRIPTOR.fields_by_name["mode"].enum_type.values_by_number[message.mode].name
        return Initializer("variance_scaling", factor=message.factor, mode=mode, uniform=message.uniform)
    if kind == "random_normal_initializer":
        message = hyperparams.initializer.random_normal_initializer
        return Initializer("normal", message.mean, message.stddev)
    message = hyperparams.initializer.truncated_normal_initializer
    return Initializer("truncated_normal", message.mean, message.stddev)
