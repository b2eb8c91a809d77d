"""The training recipes, fitted to a number of steps.

`tf1` is a shortened form of the sample configuration's training. The sample's schedule is meant for weeks of training:
in a run of a few thousand steps, a moving average with decay 0.9999 without warm-up, and batch norm with decay 0.9997,
would keep mostly their initial values. So both averages span a share of the run, and the learning rate falls to zero
along a cosine. Network, matching, losses, augmentation and optimiser are the sample's.

`mirilla`, the default, keeps the network and the code on the device, and changes the training: the targets are assigned
by the predictions (`training.simota`), with quality focal and GIoU losses, Adam, mosaics and other augmentation, and
batch-norm statistics that are measured for the averaged weights. benchmarks/accuracy.md lists the gain from each.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import text_format

from mirilla.config import Pipeline
from mirilla.job.options import JobOptions

WARMUP_SHARE, MAX_WARMUP_STEPS = 0.05, 500
# tf1. The sample's rate is 0.004 with batches of 24. With its epsilon of 1.0, RMSProp behaves like SGD with momentum,
# so a short run benefits from a higher peak; the cosine lowers it again.
TF1_PEAK_RATE = 0.04
# The moving average and the batch-norm statistics span a few hundredths of the run. A longer average does not fit the
# newest statistics: with a tenth of the run, a checkpoint from its middle detected nothing.
TF1_AVERAGE_SHARE, STATISTICS_SHARE = 0.03, 0.02
# mirilla. Adam changes every weight by about the rate, whatever the size of its gradient; those of box codes are small.
# 0.002 is far too low for a run of a few thousand steps (benchmarks/accuracy.md).
PEAK_RATE = 0.01
AVERAGE_SHARE = 0.05  # can be longer, since the statistics are measured for it at the end
RECALIBRATION_BATCHES = 50
AVERAGE_RANGE = (0.9, 0.9999)
STATISTICS_RANGE = (0.9, 0.9997)  # the upper limits are the sample's values

_MIRILLA = """
model { ssd {
  loss { localization_weight: 2.0 }
  box_predictor { convolutional_box_predictor { class_prediction_bias_init: -3.0 } }
} }
train_config { data_augmentation_options { random_horizontal_flip {} } }
mirilla {
  dynamic_assigner {}
  quality_focal_loss {}
  giou_loss {}
  augmentation { mosaic { probability: 0.5 off_share: 0.1 } }
  augmentation { object_zoom { probability: 0.5 least_px: 12 most_px: 160 } }
  augmentation { zoom_out { probability: 0.2 most: 2.0 } }
  augmentation { aspect_mix { letterbox_probability: 0.5 } }
  augmentation { photometric { probability: 0.5 } }
  augmentation { grey { probability: 0.1 } }
  augmentation { blur { probability: 0.05 } }
  augmentation { noise { probability: 0.05 } }
  augmentation { jpeg_traces { probability: 0.1 } }
}
"""


@dataclass(frozen=True)
class Recipe:
    """A schedule for a number of steps; `name` is one of `options.RECIPES`."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    moving_average_decay: float
    batch_norm_decay: float

    def describe(self) -> str:
        """The schedule on one line."""
        return (
            f"recipe {self.name}: learning rate up to {self.learning_rate:g} in {self.warmup_steps} steps, then down "
            f"along a cosine; decay of the moving average {self.moving_average_decay:.4f}, of batch norm "
            f"{self.batch_norm_decay:.4f}"
        )


def for_steps(steps: int, batch_size: int, name: str = JobOptions.recipe) -> Recipe:
    """The schedule for a run of `steps` steps of `batch_size` pictures."""
    share, rate = (TF1_AVERAGE_SHARE, TF1_PEAK_RATE) if name == "tf1" else (AVERAGE_SHARE, PEAK_RATE)
    return Recipe(
        name=name,
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup_steps=min(MAX_WARMUP_STEPS, max(1, round(WARMUP_SHARE * steps))),
        moving_average_decay=_clip(1 - 1 / (share * steps), AVERAGE_RANGE),
        batch_norm_decay=_clip(1 - 1 / (STATISTICS_SHARE * steps), STATISTICS_RANGE),
    )


def apply(recipe: Recipe, pipeline: Pipeline) -> None:
    """Write the recipe into a pipeline made by `config.sample`."""
    if recipe.name != "tf1":
        _apply_mirilla(recipe, pipeline)
    train = pipeline.train_config
    train.num_steps, train.batch_size = recipe.steps, recipe.batch_size
    optimizer = train.optimizer
    optimizer.use_moving_average = True
    optimizer.moving_average_decay = recipe.moving_average_decay
    rate = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    rate.Clear()
    cosine = rate.cosine_decay_learning_rate
    cosine.learning_rate_base = recipe.learning_rate
    cosine.total_steps = recipe.steps
    cosine.warmup_learning_rate = recipe.learning_rate / 10
    cosine.warmup_steps = recipe.warmup_steps
    ssd = pipeline.model.ssd
    ssd.feature_extractor.conv_hyperparams.batch_norm.decay = recipe.batch_norm_decay
    # the API's own field does not apply to the base network
    pipeline.mirilla.base_batch_norm_decay = recipe.batch_norm_decay
    # a killed run loses at most a twentieth of its steps
    pipeline.mirilla.checkpoint_every_steps = min(max(recipe.steps // 20, 20), 1000)
    pipeline.mirilla.recipe = f"{recipe.name}, {recipe.steps} steps"


def _apply_mirilla(recipe: Recipe, pipeline: Pipeline) -> None:
    """Write the losses, optimiser and augmentation of the recipe `mirilla`."""
    del pipeline.train_config.data_augmentation_options[:]
    pipeline.train_config.optimizer.adam_optimizer.SetInParent()
    text_format.Merge(_MIRILLA, pipeline)
    pipeline.mirilla.recalibration_batches = min(RECALIBRATION_BATCHES, max(1, recipe.steps // 10))


def _clip(value: float, limits: tuple[float, float]) -> float:
    return round(min(max(value, limits[0]), limits[1]), 6)
