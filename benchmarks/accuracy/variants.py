"""The recipes that the ablation compares: the default recipe without each ingredient, and tf1 with each.

An ingredient is a few fields of pipeline.config. A variant takes the values of these fields from the other recipe, so
the recipes themselves are defined in `mirilla.job.recipe` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import LABELS, SHARED

from mirilla import config
from mirilla.config import zoo
from mirilla.config.fields import is_repeated
from mirilla.data.tfrecord import read_tfrecords
from mirilla.job import recipe
from mirilla.job.configure import fit_anchors

IMAGENET = SHARED / "weights/mobilenet_v1_025_imagenet_keras.npz"
YUNET = SHARED / "peers/yunet_n.onnx"
OURS, TF1 = "mirilla", "tf1"


@dataclass(frozen=True)
class Ingredient:
    """Fields that belong together.

    needs: more fields to add with it. goes_with: fields to remove with it.
    opposite: the name of a recipe without it, if "without NAME" would be misleading.
    """

    name: str
    fields: tuple[str, ...]
    needs: tuple[str, ...] = ()
    goes_with: tuple[str, ...] = ()
    opposite: str = ""

    @property
    def without(self) -> str:
        return self.opposite or f"without {self.name}"


_OPTIMIZER = "train_config.optimizer"
INGREDIENTS = (
    Ingredient("SimOTA assignment", ("mirilla.dynamic_assigner",), goes_with=("mirilla.quality_focal_loss",)),
    Ingredient("quality focal loss", ("mirilla.quality_focal_loss",), needs=("mirilla.dynamic_assigner",)),
    Ingredient("GIoU loss", ("mirilla.giou_loss", "model.ssd.loss.localization_weight")),
    Ingredient(
        "bias for rare faces",
        ("model.ssd.box_predictor.convolutional_box_predictor.class_prediction_bias_init",),
    ),
    Ingredient(
        "Adam", (f"{_OPTIMIZER}.rms_prop_optimizer", f"{_OPTIMIZER}.adam_optimizer", f"{_OPTIMIZER}.momentum_optimizer")
    ),
    Ingredient("longer moving average", (f"{_OPTIMIZER}.moving_average_decay",)),
    Ingredient("batch-norm recalibration", ("mirilla.recalibration_batches",)),
    Ingredient("flips alone for SSD crops", ("train_config.data_augmentation_options",), opposite="with SSD crops"),
)


@dataclass(frozen=True)
class Variant:
    """One recipe to train.

    recipe: OURS or TF1. model: a name of the zoo. fitted: anchors fitted to the training photos.
    start: '' for initial values, or the file to start from. changes: fields to take from the other recipe, and kinds
    of augmentation as 'augmentation KIND'. overlay: text of a pipeline.config that is merged last.
    """

    name: str
    recipe: str = OURS
    model: str = "kit"
    fitted: bool = True
    start: str = ""
    changes: tuple[str, ...] = ()
    overlay: str = ""


def variants(base: Variant, ours: config.Pipeline) -> dict[str, Variant]:
    """All known variants by name.

    Args:
        base: the variant to change.
        ours: a pipeline of the default recipe, for its list of augmentations.
    """
    kinds = [variant.WhichOneof("step") for variant in ours.mirilla.augmentation]
    parts = [*INGREDIENTS, *(Ingredient(kind.replace("_", " "), (f"augmentation {kind}",)) for kind in kinds)]
    found = [base]
    found += [replace(base, name=p.without, changes=p.fields + p.goes_with) for p in parts]
    found.append(replace(base, name="without all augmentation", changes=tuple(f"augmentation {k}" for k in kinds)))
    found.append(replace(base, name="without fitted anchors", fitted=False))
    if base.start:
        found.append(replace(base, name="without ImageNet start", start=""))
    else:
        found.append(replace(base, name="with ImageNet start", start=str(IMAGENET)))
    found.append(
        replace(base, name="with YuNet's soft labels", overlay=f'mirilla {{ distillation {{ teacher: "{YUNET}" }} }}')
    )
    if not base.model.endswith("-s8"):
        found.append(replace(base, name="with stride-8 head", model=f"{base.model}-s8"))
    old = Variant(TF1, recipe=TF1, fitted=False)
    found.append(old)
    found += [replace(old, name=f"tf1 with {p.name}", changes=p.fields + p.needs) for p in parts]
    found.append(replace(old, name="tf1 with fitted anchors", fitted=True))
    found.append(replace(old, name="tf1 with ImageNet start", start=str(IMAGENET)))
    found.append(replace(old, name="tf1 with stride-8 head", model="kit-s8"))
    return {variant.name: variant for variant in found}


def pipeline(
    variant: Variant,
    records: Path,
    steps: int,
    batch_size: int,
    seed: int,
    recipes: Mapping[str, Callable[[int, int], config.Pipeline]] | None = None,
    size_px: int = 256,
) -> config.Pipeline:
    """The variant's pipeline.config; photos are letterboxed unless the recipe mixes both resizes.

    Args:
        size_px: side of the input.
        recipes: functions (steps, batch size) -> pipeline to use instead of `mirilla.job.recipe`.
    """
    labels = records.with_name("label_map.pbtxt")

    def plain(name: str) -> config.Pipeline:
        if recipes and name in recipes:
            return recipes[name](steps, batch_size)
        made = config.sample(1, records, records, labels, height=size_px, width=size_px, keep_aspect_ratio=True)
        recipe.apply(recipe.for_steps(steps, batch_size, name), made)
        return made

    made, other = plain(variant.recipe), plain(TF1 if variant.recipe == OURS else OURS)
    for field in variant.changes:
        take(field, other, made)
    zoo.apply(variant.model, made)
    if variant.fitted:
        fit_anchors(made, read_tfrecords(records, LABELS.names))
    if variant.start:
        made.train_config.fine_tune_checkpoint = variant.start
        made.mirilla.fine_tune_slice_channels = True
    made.mirilla.seed = seed
    made.mirilla.recipe = f"{variant.name}, {steps} steps"
    return config.merge(made, variant.overlay) if variant.overlay else made


def take(field: str, source: config.Pipeline, target: config.Pipeline) -> None:
    """Copy a field (a dotted path, or 'augmentation KIND') from source to target, or clear it if source lacks it.

    An augmentation that the target lacks is inserted in the source's order.
    """
    if field.startswith("augmentation "):
        _take_augmentation(field.split()[1], source, target)
        return
    *parents, last = field.split(".")
    given: Any = source
    taken: Any = target
    for name in parents:
        given, taken = getattr(given, name), getattr(taken, name)
    descriptor = taken.DESCRIPTOR.fields_by_name[last]
    if is_repeated(descriptor):
        taken.ClearField(last)
        getattr(taken, last).extend(getattr(given, last))
    elif not given.HasField(last):
        taken.ClearField(last)
    elif descriptor.message_type is not None:
        getattr(taken, last).CopyFrom(getattr(given, last))
    else:
        setattr(taken, last, getattr(given, last))


def _take_augmentation(kind: str, source: config.Pipeline, target: config.Pipeline) -> None:
    kept = [step for step in target.mirilla.augmentation if step.WhichOneof("step") != kind]
    kept += [step for step in source.mirilla.augmentation if step.WhichOneof("step") == kind]
    order = [step.WhichOneof("step") for step in (*source.mirilla.augmentation, *target.mirilla.augmentation)]
    kept.sort(key=lambda step: order.index(step.WhichOneof("step")))
    copies = [type(step).FromString(step.SerializeToString()) for step in kept]
    del target.mirilla.augmentation[:]
    target.mirilla.augmentation.extend(copies)
