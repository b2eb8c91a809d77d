"""Rules about mirilla { ... }: settings of the recipe."""

import pytest
from google.protobuf import text_format

from mirilla import config


def errors(text: str) -> dict[str, str]:
    pipeline = config.sample(1, "train.tfrecord", "eval.tfrecord", "labels.pbtxt")
    text_format.Merge(text, pipeline)
    return {f.where: f.what for f in config.check(pipeline) if f.severity == "error"}


def test_the_recipes_settings_pass():
    assert errors("mirilla { dynamic_assigner {} quality_focal_loss {} giou_loss {} precision: 'bfloat16' }") == {}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("dynamic_assigner { center_radius: 0 }", "mirilla.dynamic_assigner.center_radius"),
        ("dynamic_assigner { candidates: 0 }", "mirilla.dynamic_assigner.candidates"),
        ("dynamic_assigner { box_cost: -1 }", "mirilla.dynamic_assigner.box_cost"),
        ("dynamic_assigner {} quality_focal_loss { beta: -1 }", "mirilla.quality_focal_loss.beta"),
        ("quality_focal_loss {}", "mirilla.quality_focal_loss"),
        ("precision: 'half'", "mirilla.precision"),
        ("dynamic_assigner {} quality_focal_loss {} distillation {}", "mirilla.distillation.teacher"),
        ("dynamic_assigner {} distillation { teacher: 'x.onnx' }", "mirilla.distillation"),
        (
            "dynamic_assigner {} quality_focal_loss {} distillation { teacher: 'x' share: 2 }",
            "mirilla.distillation.share",
        ),
        (
            "dynamic_assigner {} quality_focal_loss {} distillation { teacher: 'x' least_score: 1 }",
            "mirilla.distillation.least_score",
        ),
    ],
)
def test_invalid_settings_are_refused(text, field):
    assert list(errors(f"mirilla {{ {text} }}")) == [field]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("model { ssd { image_resizer { fixed_shape_resizer { height: 1000000 width: 1000000 } } } }", "model.ssd"),
        ("model { ssd { num_classes: 2147483647 } }", "model.ssd"),
        ("model { ssd { feature_extractor { depth_multiplier: 1e6 } } }", "model.ssd"),
        ("train_config { batch_size: 4000000000 }", "train_config.batch_size"),
    ],
)
def test_sizes_that_no_machine_bears(text, field):
    assert "GB of memory" in errors(text)[field]


def test_large_sizes_pass():
    assert errors("model { ssd { num_classes: 1000 feature_extractor { depth_multiplier: 1.4 } } }") == {}
    assert errors("model { ssd { image_resizer { fixed_shape_resizer { height: 2048 width: 2048 } } } }") == {}
