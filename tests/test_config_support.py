"""The support table: it is complete, the page has it, and the checks enforce it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirilla import config
from mirilla.config import support, support_page
from mirilla.config.support_entry import ACTS, NO_EFFECT, REFUSED
from mirilla.config.support_table import TABLE
from mirilla.errors import ConfigError
from mirilla.findings import Finding


def sample() -> config.Pipeline:
    return config.sample(1, "train.record", "eval.record", "label_map.pbtxt", steps=100_000)


def errors(pipeline: config.Pipeline, **options) -> list[Finding]:
    return [f for f in config.check(pipeline, **options) if f.severity == "error"]


def with_text(overlay: str) -> config.Pipeline:
    return config.merge(sample(), overlay)


def test_every_field_is_in_the_table():
    missing = [path for path, _ in support.fields() if support.support(path) is None]
    assert missing == []


def test_every_line_of_the_table_fits_a_field():
    paths = [path for path, _ in support.fields()]
    first_matches = {next((pattern for pattern, _ in TABLE if support.fits(path, pattern)), None) for path in paths}
    assert [pattern for pattern, _ in TABLE if pattern not in first_matches] == []


def test_fields_that_do_not_act_have_a_reason():
    for path, _ in support.fields():
        entry = support.support(path)
        assert entry.status in (ACTS, REFUSED, NO_EFFECT), path
        if entry.status != ACTS or entry.only:
            assert entry.reason, path


def test_only_values_exist():
    for path, field in support.fields():
        if field.enum_type is not None:
            assert set(support.support(path).only) <= set(field.enum_type.values_by_name), path


def test_the_page_has_the_table():
    page = Path(__file__).resolve().parents[1] / "docs/config.md"
    text = page.read_text("utf-8")
    assert support_page.with_table(text) == text, "write it again: support_page.write_page('docs/config.md')"


def test_the_sample_passes():
    assert [f for f in config.check(sample()) if f.severity != "note"] == []
    assert config.require(sample()) == config.check(sample())


@pytest.mark.parametrize(
    ("overlay", "field", "words"),
    [
        ("model { faster_rcnn {} }", "model.faster_rcnn", "faster_rcnn is not supported"),
        ("model { experimental_model { name: 'x' } }", "model.experimental_model", "not supported"),
        (
            "model { ssd { feature_extractor { type: 'ssd_mobilenet_v2' } } }",
            "model.ssd.feature_extractor.type",
            "'ssd_mobilenet_v2'",
        ),
        (
            "model { ssd { feature_extractor { type: 'ssd_mobilenet_v1_ppn' } } }",
            "model.ssd.feature_extractor.type",
            "'ssd_mobilenet_v1_ppn'",
        ),
        ("model { ssd { feature_extractor { fpn {} } } }", "model.ssd.feature_extractor.fpn", "FPN"),
        (
            "model { ssd { feature_extractor { use_depthwise: true } } }",
            "model.ssd.feature_extractor.use_depthwise",
            "full convolutions",
        ),
        (
            "model { ssd { feature_extractor { conv_hyperparams { batch_norm { epsilon: 0.01 } } } } }",
            "model.ssd.feature_extractor.conv_hyperparams.batch_norm.epsilon",
            "0.001",
        ),
        (
            "model { ssd { feature_extractor { conv_hyperparams { activation: RELU } } } }",
            "model.ssd.feature_extractor.conv_hyperparams.activation",
            "'RELU' is refused (only 'RELU_6')",
        ),
        (
            "model { ssd { image_resizer { identity_resizer {} } } }",
            "model.ssd.image_resizer.identity_resizer",
            "fixed size",
        ),
        (
            "model { ssd { image_resizer { fixed_shape_resizer { resize_method: AREA } } } }",
            "model.ssd.image_resizer.fixed_shape_resizer.resize_method",
            "'AREA'",
        ),
        (
            "model { ssd { matcher { bipartite_matcher {} } } }",
            "model.ssd.matcher.bipartite_matcher",
            "argmax_matcher",
        ),
        (
            "model { ssd { box_coder { keypoint_box_coder {} } } }",
            "model.ssd.box_coder.keypoint_box_coder",
            "keypoints",
        ),
        (
            "model { ssd { similarity_calculator { ioa_similarity {} } } }",
            "model.ssd.similarity_calculator.ioa_similarity",
            "iou_similarity",
        ),
        (
            "model { ssd { anchor_generator { multiscale_anchor_generator {} } } }",
            "model.ssd.anchor_generator.multiscale_anchor_generator.aspect_ratios",
            "empty",
        ),
        (
            "model { ssd { anchor_generator { multiscale_anchor_generator { min_level: 4 max_level: 9 }}}}",
            "model.ssd.anchor_generator.multiscale_anchor_generator.max_level",
            "5 feature maps",
        ),
        (
            "model { ssd { anchor_generator { grid_anchor_generator {} } } }",
            "model.ssd.anchor_generator.grid_anchor_generator",
            "only ssd_anchor_generator",
        ),
        (
            "model { ssd { box_predictor { weight_shared_convolutional_box_predictor {} } } }",
            "model.ssd.box_predictor.weight_shared_convolutional_box_predictor",
            "share weights",
        ),
        (
            "model { ssd { loss { equalization_loss {} } } }",
            "model.ssd.loss.equalization_loss",
            "frequencies",
        ),
        (
            "model { ssd { loss { localization_loss { weighted_giou {} } } } }",
            "model.ssd.loss.localization_loss.weighted_giou",
            "weighted_iou",
        ),
        (
            "model { ssd { post_processing { calibration_config {} } } }",
            "model.ssd.post_processing.calibration_config",
            "alibration",
        ),
        ("model { ssd { mask_head_config {} } }", "model.ssd.mask_head_config", "masks"),
        ("graph_rewriter { quantization {} }", "graph_rewriter.quantization", "quantisation"),
        (
            "train_config { data_augmentation_options { autoaugment_image {} } }",
            "train_config.data_augmentation_options.autoaugment_image",
            "learnt policies",
        ),
        ("train_config { freeze_variables: '(' }", "train_config.freeze_variables", "regular expression"),
        (
            "train_input_reader { external_input_reader {} }",
            "train_input_reader.external_input_reader",
            "TFRecord",
        ),
        ("eval_input_reader { load_instance_masks: true }", "eval_input_reader.load_instance_masks", "masks"),
        ("eval_config { metrics_set: 'lvis_box' }", "eval_config.metrics_set", "'lvis_box'"),
    ],
)
def test_refused_by_name(overlay, field, words):
    found = {f.where: f for f in errors(with_text(overlay))}
    assert field in found
    assert words in found[field].what
    with pytest.raises(ConfigError) as caught:
        config.require(with_text(overlay))
    assert field in caught.value.what


def test_every_refused_field_is_refused():
    """Sets each refused field of the schema by itself and expects its name in the findings."""
    count = 0
    for path, field in support.fields():
        entry = support.support(path)
        if entry.status != REFUSED or path.startswith("train_config.data_augmentation_options."):
            continue
        pipeline = sample()
        *parents, last = path.split(".")
        message = pipeline
        for step in parents:
            message = getattr(message, step)
        if hasattr(getattr(message, last), "append"):
            getattr(message, last).append("x" if field.cpp_type == field.CPPTYPE_STRING else 1)
        elif field.message_type is not None:
            getattr(message, last).SetInParent()
        elif field.cpp_type == field.CPPTYPE_STRING:
            setattr(message, last, "x")
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(message, last, not field.default_value)
        else:
            setattr(message, last, field.default_value + 1)
        assert path in {f.where for f in errors(pipeline)}, path
        count += 1
    assert count > 40


def test_every_refused_augmentation_is_refused():
    steps = config.Pipeline().train_config.data_augmentation_options.add().DESCRIPTOR.fields
    taken = set()
    for step in steps:
        pipeline = with_text(f"train_config {{ data_augmentation_options {{ {step.name} {{}} }} }}")
        found = {f.where for f in errors(pipeline)}
        if f"train_config.data_augmentation_options.{step.name}" not in found:
            taken.add(step.name)
    acting = {
        s.name for s in steps if support.support(f"train_config.data_augmentation_options.{s.name}").status == ACTS
    }
    assert taken == acting
    assert {"random_horizontal_flip", "ssd_random_crop"} <= taken


def test_a_refused_field_may_have_its_default():
    pipeline = with_text(
        "model { ssd { encode_background_as_zeros: false negative_class_weight: 1.0 "
        "feature_extractor { pad_to_multiple: 1 use_depthwise: false } } } "
        "train_config { fine_tune_checkpoint: '' }"
    )
    assert errors(pipeline) == []


def test_a_default_that_is_refused_must_be_changed():
    pipeline = sample()
    pipeline.model.ssd.feature_extractor.conv_hyperparams.ClearField("activation")
    (found,) = errors(pipeline)
    assert found.where == "model.ssd.feature_extractor.conv_hyperparams.activation"
    assert "is not set, and its default, 'RELU', is refused" in found.what
    assert found.remedy == "Set activation: RELU_6."


def test_no_effect_is_a_note():
    (found,) = [f for f in config.check(with_text("train_input_reader { num_readers: 3 }")) if "train" in f.where]
    assert (found.where, found.severity) == ("train_input_reader.num_readers", "note")


def test_only_the_given_parts_are_checked():
    broken = with_text("train_config { fine_tune_checkpoint: 'a' }")
    assert errors(broken, parts=("model", "eval")) == []
    bare = config.loads("model { }")
    bare.model.CopyFrom(sample().model)
    config.require(bare, parts=("model",))
    with pytest.raises(ConfigError, match="train_config: is missing"):
        config.require(bare)


def test_require_names_the_lines(tmp_path):
    path = tmp_path / "p.config"
    content = config.dump(sample()).replace('type: "embedded_ssd_mobilenet_v1"', 'type: "ssd_inception_v2"')
    path.write_text("# a comment\n" + content)
    line = 1 + path.read_text().splitlines().index('      type: "ssd_inception_v2"')
    with pytest.raises(ConfigError) as caught:
        config.require(config.load(path), path=path)
    assert f"p.config:{line}: model.ssd.feature_extractor.type" in caught.value.what


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.ssd.num_classes", 0, "1 or more"),
        ("model.ssd.image_resizer.fixed_shape_resizer.height", 8, "32 or more"),
        ("model.ssd.feature_extractor.depth_multiplier", 0.0, "above 0"),
        ("model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay", 1.5, "from 0 to 1"),
        ("model.ssd.matcher.argmax_matcher.unmatched_threshold", 0.75, "above matched_threshold"),
        ("model.ssd.matcher.argmax_matcher.negatives_lower_than_unmatched", False, "equal"),
        ("model.ssd.anchor_generator.ssd_anchor_generator.num_layers", 6, "5 feature maps"),
        ("model.ssd.anchor_generator.ssd_anchor_generator.scales", [0.1, 0.2], "2 values"),
        ("model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios", [], "empty"),
        ("model.ssd.anchor_generator.ssd_anchor_generator.max_scale", 0.1, "below min_scale"),
        ("model.ssd.box_coder.faster_rcnn_box_coder.y_scale", 0.0, "above 0"),
        ("model.ssd.loss.hard_example_miner.iou_threshold", 2.0, "from 0 to 1"),
        ("model.ssd.loss.classification_weight", -1.0, "0 or more"),
        ("model.ssd.post_processing.batch_non_max_suppression.max_total_detections", 0, "1 or more"),
        ("model.ssd.negative_class_weight", -1.0, "0 or more"),
        ("train_config.batch_size", 0, "1 or more"),
        ("train_config.bias_grad_multiplier", -1.0, "0 or more"),
        ("train_input_reader.max_number_of_boxes", 0, "1 or more"),
        ("train_input_reader.sample_1_of_n_examples", 0, "1 or more"),
        ("train_config.optimizer.moving_average_decay", 1.0, "below 1"),
        ("train_config.optimizer.rms_prop_optimizer.epsilon", 0.0, "above 0"),
        ("train_input_reader.label_map_path", "", "missing"),
        ("train_input_reader.tf_record_input_reader.input_path", "PATH_TO_BE_CONFIGURED/a", "still holds"),
        ("train_input_reader.tf_record_input_reader.input_path", [], "missing"),
        ("train_config.fine_tune_checkpoint", "PATH_TO_BE_CONFIGURED/model.ckpt", "still holds"),
        ("mirilla.base_batch_norm_decay", 2.0, "from 0 to 1"),
        ("mirilla.device", "gpu", "Unknown device"),
    ],
)
def test_ranges(path, value, words):
    found = {f.where: f.what for f in errors(config.override(sample(), path, value))}
    assert words in found.get(path, ""), found


@pytest.mark.parametrize(
    ("rate", "field"),
    [
        (
            "cosine_decay_learning_rate { total_steps: 10 warmup_steps: 20 }",
            "cosine_decay_learning_rate.total_steps",
        ),
        (
            "cosine_decay_learning_rate { learning_rate_base: 0.1 warmup_learning_rate: 0.2 }",
            "cosine_decay_learning_rate.warmup_learning_rate",
        ),
        (
            "manual_step_learning_rate { schedule { step: 5 } schedule { step: 5 } }",
            "manual_step_learning_rate.schedule",
        ),
        ("manual_step_learning_rate { warmup: true }", "manual_step_learning_rate.warmup"),
        ("exponential_decay_learning_rate { decay_steps: 0 }", "exponential_decay_learning_rate.decay_steps"),
        ("constant_learning_rate { learning_rate: -1 }", "constant_learning_rate.learning_rate"),
        ("", ""),
    ],
)
def test_learning_rates(rate, field):
    pipeline = sample()
    pipeline.train_config.optimizer.ClearField("rms_prop_optimizer")
    pipeline = config.merge(
        pipeline, f"train_config {{ optimizer {{ momentum_optimizer {{ learning_rate {{ {rate} }} }} }} }}"
    )
    base = "train_config.optimizer.momentum_optimizer.learning_rate"
    assert f"{base}.{field}".rstrip(".") in {f.where for f in errors(pipeline)}


@pytest.mark.parametrize(
    "name",
    [
        "image_resizer",
        "box_coder",
        "matcher",
        "similarity_calculator",
        "anchor_generator",
        "box_predictor",
        "feature_extractor",
    ],
)
def test_missing_parts_of_the_model(name):
    pipeline = sample()
    pipeline.model.ssd.ClearField(name)
    assert f"model.ssd.{name}" in {f.where for f in errors(pipeline)}


def test_letterbox_must_be_square_and_padded():
    pipeline = config.sample(1, "a", "b", "l", keep_aspect_ratio=True)
    assert errors(pipeline) == []
    path = "model.ssd.image_resizer.keep_aspect_ratio_resizer"
    assert {f.where for f in errors(config.override(pipeline, f"{path}.min_dimension", 128))} == {
        f"{path}.min_dimension"
    }
    assert {f.where for f in errors(config.override(pipeline, f"{path}.pad_to_max_dimension", False))} == {
        f"{path}.pad_to_max_dimension"
    }
    with pytest.raises(ConfigError, match="256x128"):
        config.sample(1, "a", "b", "l", keep_aspect_ratio=True, width=128)


def test_warnings_about_short_runs():
    """0.9999^600 = 0.942, 0.9997^600 = 0.835: a run of 600 steps exports its initial values."""
    short = config.override(sample(), "train_config.num_steps", 600)
    warnings = {f.where: f.what for f in config.check(short) if f.severity == "warning"}
    assert set(warnings) == {
        "train_config.optimizer.moving_average_decay",
        "mirilla.base_batch_norm_decay",
        "model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay",
    }
    assert "94%" in warnings["train_config.optimizer.moving_average_decay"]
    assert "84%" in warnings["mirilla.base_batch_norm_decay"]
    for path, value in (
        ("mirilla.moving_average_warmup", True),
        ("mirilla.base_batch_norm_decay", 0.99),
        ("model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay", 0.99),
    ):
        short = config.override(short, path, value)
    assert [f for f in config.check(short) if f.severity == "warning"] == []
    short.mirilla.ClearField("base_batch_norm_decay")
    short.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams = True
    assert [f for f in config.check(short) if f.severity == "warning"] == []


def test_the_samples_of_other_families_are_refused_by_name(shared):
    folder = shared / "data/odapi/samples"
    for file, field in (
        ("ssd_mobilenet_v2_coco", "model.ssd.feature_extractor.type"),
        ("ssd_inception_v2_coco", "model.ssd.feature_extractor.type"),
        ("ssd_mobilenet_v1_quantized_300x300_coco14_sync", "graph_rewriter.quantization"),
        ("ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync", "model.ssd.feature_extractor.fpn"),
        ("ssdlite_mobilenet_v1_coco", "model.ssd.feature_extractor.use_depthwise"),
        (
            "ssd_mobilenet_v2_fullyconv_coco",
            "model.ssd.image_resizer.keep_aspect_ratio_resizer.pad_to_max_dimension",
        ),
    ):
        assert field in {f.where for f in errors(config.load(folder / f"{file}.config"))}, file


FAMILY = (
    "embedded_ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v1_pets",
    "ssd_mobilenet_v1_focal_loss_pets",
    "ssd_mobilenet_v1_focal_loss_pets_inference",
    "ssd_mobilenet_v1_300x300_coco14_sync",
    "ssd_mobilenet_v1_0.75_depth_300x300_coco14_sync",
)


def filled_in(path: Path) -> config.Pipeline:
    """A sample with its PATH_TO_BE_CONFIGURED filled in."""
    pipeline = config.load(path)
    pipeline.train_config.ClearField("fine_tune_checkpoint")
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader):
        reader.label_map_path = "label_map.pbtxt"
        reader.tf_record_input_reader.input_path[:] = ["a.record"]
    return pipeline


@pytest.mark.parametrize("name", FAMILY)
def test_the_samples_of_our_family_pass(shared, name):
    assert errors(filled_in(shared / f"data/odapi/samples/{name}.config")) == []


def test_every_placeholder_of_a_sample_is_reported(shared):
    pipeline = config.load(shared / "data/odapi/samples/ssd_mobilenet_v1_pets.config")
    assert {f.where for f in errors(pipeline)} == {
        "train_config.fine_tune_checkpoint",
        "train_input_reader.label_map_path",
        "train_input_reader.tf_record_input_reader.input_path",
        "eval_input_reader.label_map_path",
        "eval_input_reader.tf_record_input_reader.input_path",
    }


def test_every_other_sample_parses_and_is_refused_by_name(shared):
    files = sorted((shared / "data/odapi/samples").glob("*.config"))
    assert len(files) > 20
    missing = ("type", "quantization", "use_depthwise", "fpn", "weight_shared_convolutional_box_predictor")
    for path in files:
        if path.stem in FAMILY:
            continue
        names = {f.where.rpartition(".")[2] for f in errors(filled_in(path))}
        assert names & set(missing), path.stem


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ("random_crop_image { min_area: 0.5 max_area: 0.4 }", "max_area"),
        ("random_crop_image { overlap_thresh: 1.5 }", "overlap_thresh"),
        ("random_crop_to_aspect_ratio { aspect_ratio: 0 }", "aspect_ratio"),
        ("random_pad_image { min_image_height: 5 }", "min_image_height"),
        ("random_pad_image { pad_color: [1, 2] }", "pad_color"),
        ("random_crop_pad_image { min_padded_size_ratio: 1 }", "min_padded_size_ratio"),
        (
            "ssd_random_crop_pad { operations { max_area: 1 max_aspect_ratio: 1 } }",
            "operations.max_padded_size_ratio",
        ),
        ("random_absolute_pad_image { max_width_padding: -1 }", "max_width_padding"),
        ("random_distort_color { color_ordering: 2 }", "color_ordering"),
        ("random_adjust_brightness { max_delta: 1.5 }", "max_delta"),
        ("random_adjust_hue { max_delta: 0.6 }", "max_delta"),
        ("random_adjust_contrast { min_delta: 2 }", "max_delta"),
        ("random_rgb_to_gray { probability: -0.1 }", "probability"),
        ("random_jpeg_quality { min_jpeg_quality: 50 max_jpeg_quality: 50 }", "max_jpeg_quality"),
        ("random_patch_gaussian { min_patch_size: 0 }", "min_patch_size"),
        ("random_resize_method { target_height: 5 }", "target_width"),
        ("drop_label_probabilistically { label: 2 }", "label"),
        ("remap_labels { new_label: 1 }", "original_labels"),
        ("remap_labels { original_labels: 1 new_label: 3 }", "new_label"),
    ],
)
def test_values_of_augmentations(step, field):
    found = errors(with_text(f"train_config {{ data_augmentation_options {{ {step} }} }}"))
    kind = step.split()[0]
    assert f"train_config.data_augmentation_options.{kind}.{field}" in {f.where for f in found}
