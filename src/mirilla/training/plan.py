"""Training settings: the training part of a pipeline.config as plain dataclasses."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from mirilla.protos import pipeline_pb2 as pb
from mirilla.training import schedules
from mirilla.training.distillation import DistillationSpec
from mirilla.training.losses import ClassificationLoss, LocalizationLoss, ObjectiveSpec
from mirilla.training.matching import MatcherSpec
from mirilla.training.mining import MinerSpec
from mirilla.training.optimizer import Adam, Momentum, Optimizer, RmsProp
from mirilla.training.simota import SimOtaSpec

# The base network has the arguments of slim's mobilenet_v1_arg_scope, unless conv_hyperparams override them.
BASE_STDDEV = 0.09
BASE_L2 = 0.00004


@dataclass(frozen=True)
class Plan:
    """Training settings.

    num_steps: the last step; None trains until stopped. num_epochs: the same limit in passes over the pictures.
    average_decay: decay of the weights' moving averages; None keeps no averages.
    average_warmup: whether early averages decay faster.
    freeze_base_batch_norm, freeze_extra_batch_norm: whether the moving statistics are kept constant.
    dropout: dropout rate of the class predictors' input.
    l2: name of a kernel's variable -> weight of its L2 loss.
    gradient_scale: variable name -> factor of its gradient; 0 freezes the variable, the default is 1.
    keep_every_hours: interval between checkpoints that are never deleted.
    recalibration_batches: number of batches that measure the averaged weights' batch-norm statistics at the end.
    distillation: the teacher for soft labels; None for hard labels.
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
    def is_random(self) -> bool:
        """Whether a step draws random numbers other than those for the batch."""
        return self.dropout > 0 or self.objective.sampled_positive_share is not None


def training_plan(pipeline: Pipeline, spec: ModelSpec) -> Plan:
    """The training settings of a pipeline, which must have passed `mirilla.config.require`.

    Raises:
        ConfigError: a pattern of freeze_variables or update_trainable_variables matches no variable.
    """
    ssd, train = pipeline.model.ssd, pipeline.train_config
    options = pipeline.mirilla
    extra = ssd.feature_extractor.conv_hyperparams
    head = ssd.box_predictor.convolutional_box_predictor
    predictor = head.conv_hyperparams
    table = architecture(spec)
    optimizer, schedule = _optimizer(train.optimizer)
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
        optimizer=optimizer,
        schedule=schedule,
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


def _distillation(message: pb.Distillation) -> DistillationSpec:
    return DistillationSpec(Path(message.teacher), message.share, message.least_score)


def _objective(ssd: pb.Ssd, options: pb.MirillaOptions, spec: ModelSpec) -> ObjectiveSpec:
    loss, matcher = ssd.loss, ssd.matcher.argmax_matcher
    miner = None
    if loss.HasField("hard_example_miner"):
        message = loss.hard_example_miner
        miner = MinerSpec(
            num_hard_examples=message.num_hard_examples or 2**31 - 1,
            iou_threshold=message.iou_threshold,
            loss_type=pb.HardExampleMiner.LossType.Name(message.loss_type),
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


def _classification(message: pb.ClassificationLoss, options: pb.MirillaOptions) -> ClassificationLoss:
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


def _localization(message: pb.LocalizationLoss, options: pb.MirillaOptions) -> LocalizationLoss:
    if options.HasField("giou_loss"):
        return LocalizationLoss("giou")
    kind = message.WhichOneof("localization_loss")
    if kind in ("weighted_l2", "weighted_iou"):
        return LocalizationLoss(kind.removeprefix("weighted_"))
    return LocalizationLoss("smooth_l1", delta=message.weighted_smooth_l1.delta)


def _optimizer(message: pb.Optimizer) -> tuple[Optimizer, schedules.Schedule]:
    kind = message.WhichOneof("optimizer")
    if kind == "rms_prop_optimizer":
        rms = message.rms_prop_optimizer
        optimizer = RmsProp(decay=rms.decay, momentum=rms.momentum_optimizer_value, epsilon=rms.epsilon)
        return optimizer, _schedule(rms.learning_rate)
    if kind == "momentum_optimizer":
        momentum = message.momentum_optimizer
        return Momentum(momentum=momentum.momentum_optimizer_value), _schedule(momentum.learning_rate)
    return Adam(epsilon=message.adam_optimizer.epsilon), _schedule(message.adam_optimizer.learning_rate)


def _schedule(message: pb.LearningRate) -> schedules.Schedule:
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


def _l2_weight(hyperparams: pb.Hyperparams) -> float:
    """0 if no L2 regulariser is set."""
    if hyperparams.regularizer.WhichOneof("regularizer_oneof") != "l2_regularizer":
        return 0.0
    return hyperparams.regularizer.l2_regularizer.weight


def _base_l2(spec: ModelSpec, override: float | None) -> tuple[float, float]:
    """L2 weights of the base network: (kernels, depthwise kernels).

    slim's arguments do not regularise depthwise kernels, but ssd_mobilenet_v1 does. conv_hyperparams that override the
    base's apply to both.
    """
    if override is not None:
        return override, override
    return BASE_L2, BASE_L2 if spec.feature_extractor == "ssd_mobilenet_v1" else 0.0


def _l2(table: Architecture, base: float, depthwise: float, extra: float, predictor: float) -> dict[str, float]:
    """L2 weight of every kernel; biases and batch norm have none."""
    result = {e.weights: base if e.is_base else extra for e in table.layers if e.kind == "conv"}
    result |= {e.weights: depthwise for e in table.layers if e.kind == "depthwise"}
    for entry in table.predictors:
        result |= dict.fromkeys((f"{entry.box_scope}/weights", f"{entry.class_scope}/weights"), predictor)
    return result


def _gradient_scale(table: Architecture, train: pb.TrainConfig) -> dict[str, float]:
    """Factors of the gradients: bias_grad_multiplier for biases, 0 for frozen variables."""
    names = [name for name, _, trainable in table.variables() if trainable]
    scale = {}
    if train.bias_grad_multiplier:
        scale = {name: train.bias_grad_multiplier for name in names if name.endswith("/biases")}
    frozen = _matching(names, "freeze_variables", train.freeze_variables)
    if train.update_trainable_variables:
        updated = _matching(names, "update_trainable_variables", train.update_trainable_variables)
        frozen |= set(names) - updated
    if len(frozen) == len(names):
        raise ConfigError(
            "train_config.freeze_variables: every variable is frozen.", "Leave at least one variable trainable."
        )
    return scale | dict.fromkeys(frozen, 0.0)


def _matching(names: Sequence[str], field: str, patterns: Sequence[str]) -> set[str]:
    """The variables whose names contain a match of a pattern."""
    matching: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if re.search(pattern, name)}
        if not matches:
            raise ConfigError(
                f"train_config.{field}: '{pattern}' matches no variable of the network.",
                f"Names look like '{names[0]}'. Correct the pattern, or remove it.",
            )
        matching |= matches
    return matching


def _initializer(hyperparams: pb.Hyperparams) -> Initializer:
    kind = hyperparams.initializer.WhichOneof("initializer_oneof")
    if kind == "variance_scaling_initializer":
        message = hyperparams.initializer.variance_scaling_initializer
        mode = pb.VarianceScalingInitializer.Mode.Name(message.mode)
        return Initializer("variance_scaling", factor=message.factor, mode=mode, uniform=message.uniform)
    if kind == "random_normal_initializer":
        message = hyperparams.initializer.random_normal_initializer
        return Initializer("normal", message.mean, message.stddev)
    message = hyperparams.initializer.truncated_normal_initializer
    return Initializer("truncated_normal", message.mean, message.stddev)
