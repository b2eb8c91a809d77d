"""What fine_tune_checkpoint restores, case by case as in the original, and its messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import helpers_checkpoint as handmade
from mirilla import config
from mirilla.errors import ModelError
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.weights.restore import Options, restore, restore_options, restore_plan


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape, _ in architecture(spec).variables()}


def classifier(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """A MobileNet v1 of 1001 classes, as slim names it."""
    base = {layer.name for layer in architecture(spec).layers if layer.is_base}
    found = {
        name.removeprefix("FeatureExtractor/"): shape
        for name, shape in shapes(spec).items()
        if name.startswith("FeatureExtractor/") and name.split("/")[2] in base
    }
    return found | {"MobilenetV1/Logits/Conv2d_1c_1x1/weights": (1, 1, 128, 1001), "global_step": ()}


ONE = ModelSpec()
CHECKPOINTS = {
    "detection_20to1": (shapes(replace(ONE, num_classes=20)), Options(Path("c"), "detection")),
    "detection_20to1_load_all": (
        shapes(replace(ONE, num_classes=20)),
        Options(Path("c"), "detection", load_all=True),
    ),
    "detection_1to1_load_all": (shapes(ONE), Options(Path("c"), "detection", load_all=True)),
    "classification_from_detection_ckpt": (shapes(replace(ONE, num_classes=20)), Options(Path("c"))),
    "classification_mobilenet_mindepth16": (classifier(ONE), Options(Path("c"))),
    "classification_mobilenet_mindepth8": (classifier(replace(ONE, min_depth=8)), Options(Path("c"))),
}


@pytest.mark.parametrize("case", list(CHECKPOINTS))
def test_as_the_original_restored(shared, case):
    golden = json.loads((shared / "data/odapi/restore.json").read_text())[case]
    checkpoint, options = CHECKPOINTS[case]
    assert (options.kind, options.load_all) == (golden["type"], golden["load_all"])
    plan = restore_plan(shapes(ONE), {**checkpoint, "global_step": ()}, options)
    assert len(plan.restored) + len(plan.skipped) == golden["mapped"]
    assert sorted(entry.source for entry in plan.restored) == golden["restored_ckpt_names"]
    assert sorted(entry.source for entry in plan.skipped) == golden["not_restored"]
    warned = {}
    for text in golden["warnings"]:
        name = text.split("[")[1].split("]")[0]
        warned[name] = "shape" if "incompatible shape" in text else "missing"
    warned |= {"global_step": "step"} if "global_step" in warned else {}
    assert {entry.source: entry.reason for entry in plan.skipped} == warned


def pipeline(text: str = "") -> config.Pipeline:
    return config.merge(config.sample(1, "a", "b", "c"), text)


@pytest.mark.parametrize(
    ("text", "kind", "load_all"),
    [
        ("", "classification", False),
        ("from_detection_checkpoint: true", "detection", False),
        ("fine_tune_checkpoint_type: 'detection'", "detection", False),
        (
            "fine_tune_checkpoint_type: 'classification' from_detection_checkpoint: true",
            "classification",
            False,
        ),
        ("from_detection_checkpoint: true load_all_detection_checkpoint_vars: true", "detection", True),
        (
            "load_all_detection_checkpoint_vars: true",
            "classification",
            False,
        ),  # as the API: for detection only
    ],
)
def test_which_kind_the_config_means(text, kind, load_all):
    found = restore_options(pipeline(f"train_config {{ fine_tune_checkpoint: 'old/model.ckpt' {text} }}"))
    assert found is not None
    assert (found.kind, found.load_all, found.path) == (kind, load_all, Path("old/model.ckpt"))
    assert restore_options(pipeline()) is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            "train_config { fine_tune_checkpoint: 'a' fine_tune_checkpoint_type: 'full' }",
            "train_config.fine_tune_checkpoint_type",
        ),
        ("mirilla { fine_tune_slice_channels: true }", "mirilla.fine_tune_slice_channels"),
        ("mirilla { fine_tune_from_averages: true }", "mirilla.fine_tune_from_averages"),
    ],
)
def test_options_that_mean_nothing_are_refused(text, field):
    assert field in {entry.where for entry in config.check(pipeline(text)) if entry.severity == "error"}


def saved(folder: Path, values: dict[str, np.ndarray]) -> Path:
    path = folder / "old.npz"
    np.savez(path, **values)
    return path


FRESH = handmade.mobilenet(shapes(ONE), seed=9)


def test_values_go_where_the_plan_says(tmp_path):
    old = handmade.mobilenet(shapes(replace(ONE, num_classes=20)), seed=1)
    path = saved(tmp_path, {**old, "global_step": np.int64(870894)})
    options = Options(path, "detection", load_all=True)
    restored = restore(FRESH, options)
    for name, value in restored.variables.items():
        from_old = "ClassPredictor" not in name
        np.testing.assert_array_equal(value, old[name] if from_old else FRESH[name], err_msg=name)
    line = restored.summary()
    assert line.startswith("175 of 185 variables restored from")
    assert "11 skipped (10 of another shape, global_step)" in line
    text = restored.details()
    assert "BoxPredictor_0/ClassPredictor/biases: 63 in the checkpoint, 6 in the network" in text
    assert text.count("\n  ") == 186


def test_raw_weights_unless_averages_are_asked_for(shared):
    path = shared / "data/odapi/ckpt_b24_step60/model.ckpt-60"
    with np.load(shared / "data/odapi/ckpt60_values.npz") as file:
        values = dict(file)
    name = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
    raw = restore(FRESH, Options(path, "detection"))
    np.testing.assert_array_equal(raw.variables[name], values[name])
    assert len(raw.plan.restored) == 165
    averaged = restore(FRESH, Options(path, "detection", averages=True))
    np.testing.assert_array_equal(averaged.variables[name], values[f"{name}/ExponentialMovingAverage"])
    assert averaged.note == "moving averages"
    moving = name.replace("weights", "BatchNorm/moving_mean")
    np.testing.assert_array_equal(averaged.variables[moving], values[moving])


def of(spec: ModelSpec) -> dict[str, np.ndarray]:
    return handmade.mobilenet(shapes(spec))


WRONG = {
    "detection given as classification": (
        of(ONE),
        Options(Path(), "classification"),
        "is a detection checkpoint",
        'type: "detection"',
    ),
    "classification given as detection": (
        handmade.mobilenet(classifier(ONE)),
        Options(Path(), "detection"),
        "is a classification checkpoint",
        'type: "classification"',
    ),
    "another width": (
        of(replace(ONE, depth_multiplier=1.0)),
        Options(Path(), "detection"),
        "another width",
        "fine_tune_slice_channels",
    ),
    "another width, predictors fit": (
        of(replace(ONE, depth_multiplier=1.0)),
        Options(Path(), "detection", load_all=True),
        "another width",
        None,
    ),
    "another network": (
        {"FeatureExtractor/InceptionV2/Conv2d_1a_7x7/weights": np.zeros((7, 7, 3, 8), "f4")},
        Options(Path(), "detection"),
        "another network",
        "SSD on MobileNet v1",
    ),
    "no averages": (of(ONE), Options(Path(), "detection", averages=True), "no moving averages", "false"),
    "not finite": (
        {**of(ONE), "FeatureExtractor/MobilenetV1/Conv2d_0/weights": np.full((3, 3, 3, 16), np.nan, "f4")},
        Options(Path(), "detection"),
        "not a finite number",
        "earlier checkpoint",
    ),
    "slicing half a network": (
        {k: v for k, v in of(ONE).items() if "Conv2d_7" not in k},
        Options(Path(), "detection", slice_channels=True),
        "are missing",
        None,
    ),
    "slicing another kernel": (
        {**of(ONE), "FeatureExtractor/MobilenetV1/Conv2d_0/weights": np.zeros((5, 5, 3, 16), "f4")},
        Options(Path(), "detection", slice_channels=True),
        "more than its width",
        None,
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_gives_nothing_is_an_error(tmp_path, case):
    values, options, what, remedy = WRONG[case]
    with pytest.raises(ModelError, match=what) as caught:
        restore(FRESH, replace(options, path=saved(tmp_path, values)))
    if remedy is not None:
        assert remedy in caught.value.remedy


def test_a_partly_fitting_width_is_said_with_its_option(tmp_path):
    path = saved(tmp_path, handmade.mobilenet(classifier(replace(ONE, min_depth=8))))
    line = restore(FRESH, Options(path)).summary()
    assert "114 of 185" in line
    assert "51 skipped (30 not in the checkpoint, 21 of another shape)" in line
    assert "fine_tune_slice_channels" in line
