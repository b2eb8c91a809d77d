"""The training recipes at different lengths."""

from __future__ import annotations

import pytest

from mirilla.job import recipe


@pytest.mark.parametrize("steps", [1, 60, 1000, 12_000, 800_000])
def test_recipe_fits_the_run(steps):
    made = recipe.for_steps(steps, 24)
    assert 0.9 <= made.moving_average_decay <= 0.9999
    assert 0.9 <= made.batch_norm_decay <= 0.9997
    assert made.warmup_steps < max(steps, 2)
    if steps >= 1000:  # the run's beginning is forgotten at its end
        assert made.moving_average_decay**steps < 1e-4
        assert made.batch_norm_decay**steps < 1e-4


def test_recipe_is_read_back_by_the_trainer(tmp_path):
    from mirilla import config

    pytest.importorskip("torch")
    from mirilla.config.to_spec import model_spec
    from mirilla.training.plan import training_plan

    pipeline = config.sample(1, "a", "b", "c")
    made = recipe.for_steps(2000, 16)
    recipe.apply(made, pipeline)
    config.require(pipeline)
    plan = training_plan(pipeline, model_spec(pipeline))
    assert (plan.num_steps, plan.batch_size) == (2000, 16)
    assert plan.average_decay == pytest.approx(made.moving_average_decay)
    assert plan.base_batch_norm_decay == pytest.approx(made.batch_norm_decay)
    assert plan.extra_batch_norm_decay == pytest.approx(made.batch_norm_decay)
    assert plan.schedule(made.warmup_steps) == pytest.approx(made.learning_rate, rel=0.02)
    assert plan.schedule(1999) < 0.01 * made.learning_rate
