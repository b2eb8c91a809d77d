"""The API's own sample configs of the MobileNet v1 family, trained for two steps on drawn pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from mirilla import config  # noqa: E402
from mirilla.batches.dataset import open_training_set  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.data.sample import Sample  # noqa: E402
from mirilla.data.tfrecord import write_tfrecords  # noqa: E402
from mirilla.labels import LabelMap, save_label_map  # noqa: E402
from mirilla.training import log  # noqa: E402
from mirilla.training.trainer import train  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402
from test_config_support import FAMILY, filled_in  # noqa: E402


def records(folder, count=4, boxes=1):
    """Noise pictures of 72x96 with `boxes` equal objects each; their label map."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (72, 96, 3)).astype(np.uint8)).save(file, "PNG")
        place = np.tile([0.1, 0.2, 0.6, 0.7], (boxes, 1))
        samples.append(Sample(file.getvalue(), f"{i}.png", 72, 96, place, ("thing",) * boxes))
    write_tfrecords(samples, ["thing"], folder / "train.tfrecord")
    save_label_map(folder / "label_map.pbtxt", LabelMap.from_names(["thing"]))


def on(pipeline, folder):
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader):
        reader.label_map_path = str(folder / "label_map.pbtxt")
        reader.tf_record_input_reader.input_path[:] = [str(folder / "train.tfrecord")]
    pipeline.mirilla.device = "cpu"
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_two_steps_of_every_sample(shared, tmp_path, name):
    torch.set_num_threads(1)
    records(tmp_path, 2)
    pipeline = on(filled_in(shared / f"data/odapi/samples/{name}.config"), tmp_path)
    pipeline.train_config.batch_size = 2
    result = train(pipeline, tmp_path / "run", num_steps=2)
    saved = checkpoint.load(result.checkpoint)
    assert saved.step == 2
    assert all(np.isfinite(v).all() for v in saved.variables.values())
    assert np.isfinite(log.read(tmp_path / "run")[-1]["loss"])


def small(folder, overlay=""):
    pipeline = config.sample(1, "t", "e", "l", batch_size=2, height=64, width=64, steps=2)
    pipeline.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    del pipeline.train_config.data_augmentation_options[:]
    return on(config.merge(pipeline, overlay), folder)


STEPS = [
    "random_vertical_flip {}",
    "random_rotation90 {}",
    "random_pixel_value_scale {}",
    "random_image_scale {}",
    "random_rgb_to_gray { probability: 0.5 }",
    "random_adjust_brightness {}",
    "random_adjust_contrast {}",
    "random_adjust_hue {}",
    "random_adjust_saturation {}",
    "random_distort_color {}",
    "random_jitter_boxes {}",
    "random_crop_image {}",
    "random_pad_image {}",
    "random_crop_pad_image {}",
    "random_crop_to_aspect_ratio {}",
    "random_black_patches {}",
    "random_resize_method { target_height: 80 target_width: 70 }",
    "ssd_random_crop_pad {}",
    "ssd_random_crop_fixed_aspect_ratio {}",
    "ssd_random_crop_pad_fixed_aspect_ratio {}",
    "random_absolute_pad_image { max_height_padding: 9 }",
    "random_self_concat_image {}",
    "random_jpeg_quality {}",
    "random_downscale_to_target_pixels { min_target_pixels: 900 max_target_pixels: 1000 }",
    "random_patch_gaussian {}",
    "drop_label_probabilistically { label: 1 drop_probability: 0.5 }",
    "remap_labels { original_labels: 1 new_label: 1 }",
    "resize_image { new_height: 50 new_width: 60 method: AREA }",
    "random_horizontal_flip {}",
    "ssd_random_crop {}",
]


def test_all_augmentations_after_one_another_train(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path)
    text = " ".join(f"data_augmentation_options {{ {step} }}" for step in STEPS)
    pipeline = small(tmp_path, f"train_config {{ {text} }}")
    steps = pipeline.train_config.DESCRIPTOR.fields_by_name["data_augmentation_options"].message_type.fields
    acting = {
        s.name
        for s in steps
        if config.support.support(f"train_config.data_augmentation_options.{s.name}").status == "acts"
    }
    assert acting == {step.split()[0] for step in STEPS}
    assert train(pipeline, tmp_path / "run").step == 2


def test_reading_options(tmp_path):
    records(tmp_path, count=7, boxes=5)
    reader = "train_input_reader { sample_1_of_n_examples: 3 max_number_of_boxes: 2 }"
    pipeline = small(tmp_path, reader)
    data = open_training_set(pipeline, model_spec(pipeline), tmp_path / "cache")
    assert len(data) == len(data.pictures) == 3  # records 0, 3 and 6
    assert data.objects.counts(3).tolist() == [2, 2, 2]
    every = small(tmp_path)
    assert len(open_training_set(every, model_spec(every), tmp_path / "cache").pictures) == 7


def test_pictures_are_kept_whole_for_steps_that_count_pixels(tmp_path):
    records(tmp_path, count=2)
    small_side = config.override(small(tmp_path), "model.ssd.image_resizer.fixed_shape_resizer.height", 32)
    small_side = config.override(small_side, "model.ssd.image_resizer.fixed_shape_resizer.width", 32)
    own = config.merge(small_side, "train_config { data_augmentation_options { random_jpeg_quality {} } }")
    sizes = [open_training_set(p, model_spec(p), tmp_path / "cache").pictures[0].shape for p in (small_side, own)]
    assert sizes == [(36, 48, 3), (72, 96, 3)]


def test_epochs_bound_a_run(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path, count=3)
    pipeline = small(tmp_path, "train_input_reader { num_epochs: 2 } train_config { num_steps: 50 }")
    assert train(pipeline, tmp_path / "run").step == 3  # 2 * 3 pictures in batches of 2


def test_a_run_with_dropout_goes_on_as_if_never_stopped(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path)
    text = (
        "model { ssd { box_predictor { convolutional_box_predictor { use_dropout: true } } "
        "loss { random_example_sampler { positive_sample_fraction: 0.25 } } } }"
    )
    pipeline = small(tmp_path, text)
    train(pipeline, tmp_path / "whole", num_steps=4)
    train(pipeline, tmp_path / "parts", num_steps=2)
    train(pipeline, tmp_path / "parts", num_steps=4)
    whole, parts = (checkpoint.load(checkpoint.path_of(tmp_path / d, 4)).variables for d in ("whole", "parts"))
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, atol=1e-6, err_msg=name)


def test_frozen_variables_stay_through_a_run(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path)
    pipeline = small(tmp_path, "train_config { freeze_variables: 'FeatureExtractor' }")
    start = checkpoint.load(train(pipeline, tmp_path / "run", num_steps=1).checkpoint).variables
    end = checkpoint.load(train(pipeline, tmp_path / "run", num_steps=3).checkpoint).variables
    trained = [n for n in start if n.endswith(("weights", "biases", "gamma", "beta"))]
    moved = {n for n in trained if not np.array_equal(start[n], end[n])}
    assert moved
    assert all(n.startswith("BoxPredictor") for n in moved)


def test_several_files_and_globs(tmp_path):
    for part in "ab":
        (tmp_path / part).mkdir()
        records(tmp_path / part, count=2)
        (tmp_path / part / "train.tfrecord").rename(tmp_path / f"{part}.tfrecord")
    records(tmp_path, count=1)
    pipeline = small(tmp_path)
    paths = pipeline.train_input_reader.tf_record_input_reader.input_path
    paths[:] = [str(tmp_path / "[ab].tfrecord"), str(tmp_path / "train.tfrecord")]
    assert len(open_training_set(pipeline, model_spec(pipeline), tmp_path / "cache")) == 5


def test_the_samplers_and_losses_train(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path)
    for number, loss in enumerate(
        (
            "classification_loss { weighted_softmax {} } localization_loss { weighted_iou {} }",
            "classification_loss { bootstrapped_sigmoid { alpha: 0.8 }} localization_loss { weighted_l2 {}}",
            "classification_loss { weighted_sigmoid_focal {}} random_example_sampler { positive_sample_fraction: 0.2 }",
        )
    ):
        pipeline = small(tmp_path, f"model {{ ssd {{ loss {{ {loss} }} }} }}")
        pipeline.model.ssd.loss.ClearField("hard_example_miner")
        assert train(pipeline, tmp_path / f"run{number}").step == 2


def test_multiscale_anchors_train(tmp_path):
    torch.set_num_threads(1)
    records(tmp_path)
    text = (
        "model { ssd { anchor_generator { multiscale_anchor_generator { min_level: 4 max_level: 8 "
        "aspect_ratios: [1.0, 2.0, 0.5] } } } }"
    )
    result = train(small(tmp_path, text), tmp_path / "run")
    assert checkpoint.load(result.checkpoint).variables["BoxPredictor_0/BoxEncodingPredictor/biases"].shape == (24,)
