"""How to train for a given number of steps.

The sample's own schedule is made for weeks: a moving average of decay 0.9999 without warm-up and batch-norm
decays of 0.9997 keep mostly their initial values in a run of some thousand steps, and the exported model then
answers the same whatever it is shown. So both averages are made to look back over a share of the run, and the
learning rate falls to zero along a cosine. Network, matching, losses and optimiser stay the sample's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirilla.config import Pipeline

# The sample's rate is 0.004 with batches of 24. RMSProp's epsilon of 1.0 makes its steps close to SGD's with
# momentum, so a short run gains from a higher peak; the cosine brings it down again.
PEAK_LEARNING_RATE = 0.04
WARMUP_SHARE, MOST_WARMUP_STEPS = 0.05, 500
# The moving average and the batch-norm statistics look back over a few hundredths of the run. A longer average belongs
# to other statistics than the newest: with a tenth, a checkpoint from the middle of a run found nothing at all.
AVERAGE_SHARE, STATISTICS_SHARE = 0.03, 0.02
AVERAGE_RANGE = (0.9, 0.9999)
STATISTICS_RANGE = (0.9, 0.9997)  # the upper ends are the sample's values


@dataclass(frozen=True)
class Recipe:
    """A schedule fitted to a run's length."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    moving_average_decay: float
    batch_norm_decay: float

    def describe(self) -> str:
        """One line for people."""
        return (
            f"learning rate to {self.learning_rate:g} within {self.warmup_steps} steps, then down a cosine; "
            f"moving average {self.moving_average_decay:.4f}, batch norm {self.batch_norm_decay:.4f}"
        )


def for_steps(steps: int, batch_size: int) -> Recipe:
    """The schedule for a run of `steps` steps of `batch_size` pictures."""
    return Recipe(
        steps=steps,
        batch_size=batch_size,
        learning_rate=PEAK_LEARNING_RATE,
        warmup_steps=min(MOST_WARMUP_STEPS, max(1, round(WARMUP_SHARE * steps))),
        moving_average_decay=_clip(1 - 1 / (AVERAGE_SHARE * steps), AVERAGE_RANGE),
        batch_norm_decay=_clip(1 - 1 / (STATISTICS_SHARE * steps), STATISTICS_RANGE),
    )


def apply(recipe: Recipe, pipeline: Pipeline) -> None:
    """Write the recipe into a pipeline made by `config.sample`."""
    train = pipeline.train_config
    train.num_steps, train.batch_size = recipe.steps, recipe.batch_size
    optimizer = train.optimizer
    optimizer.use_moving_average = True
    optimizer.moving_average_decay = recipe.moving_average_decay
    rate = optimizer.rms_prop_optimizer.learning_rate
    rate.Clear()
    cosine = rate.cosine_decay_learning_rate
    cosine.learning_rate_base = recipe.learning_rate
    cosine.total_steps = recipe.steps
    cosine.warmup_learning_rate = recipe.learning_rate / 10
    cosine.warmup_steps = recipe.warmup_steps
    ssd = pipeline.model.ssd
    ssd.feature_extractor.conv_hyperparams.batch_norm.decay = recipe.batch_norm_decay
    pipeline.mirilla.base_batch_norm_decay = (
        recipe.batch_norm_decay
    )  # the API's own field does not reach the base
    # What a run that is killed loses at most: a twentieth of itself.
    pipeline.mirilla.checkpoint_every_steps = min(max(recipe.steps // 20, 20), 1000)
    pipeline.mirilla.recipe = f"{recipe.steps} steps"


def _clip(value: float, ends: tuple[float, float]) -> float:
    return round(min(max(value, ends[0]), ends[1]), 6)
