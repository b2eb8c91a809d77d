"""Training on a few drawn pictures: learning, stopping, resuming, and errors."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

torch = pytest.importorskip("torch")

from helpers_process import restore_sigint  # noqa: E402
from mirilla import config  # noqa: E402
from mirilla.batches.pictures import SUMS, BackgroundDecoder  # noqa: E402
from mirilla.data.sample import Sample  # noqa: E402
from mirilla.data.tfrecord import read_tfrecords, write_tfrecords  # noqa: E402
from mirilla.errors import ConfigError, DataError, MirillaError, ModelError, TrainingError, UsageError  # noqa: E402
from mirilla.job import training  # noqa: E402
from mirilla.labels import LabelMap, save_label_map  # noqa: E402
from mirilla.training import log  # noqa: E402
from mirilla.training.device import pick_device  # noqa: E402
from mirilla.training.step import HostSteps  # noqa: E402
from mirilla.training.trainer import train  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402
from mirilla.weights.tensorflow import load_checkpoint  # noqa: E402
from mirilla.weights.tensorflow_write import save_checkpoint  # noqa: E402


def picture(rng, size=(64, 80)):
    """A grey picture with one bright square, as JPEG, and the square's box."""
    height, width = size
    side = int(rng.integers(20, 40))
    y, x = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
    image = Image.new("RGB", (width, height), (60, 60, 60))
    ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=(250, 220, 190))
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue(), [y / height, x / width, (y + side) / height, (x + side) / width]


@pytest.fixture
def pipeline(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(12):
        content, box = picture(rng)
        samples.append(Sample(content, f"{i}.jpg", 64, 80, np.array([box]), ("square",)))
    write_tfrecords(samples, ["square"], tmp_path / "train.tfrecord")
    save_label_map(tmp_path / "label_map.pbtxt", LabelMap.from_names(["square"]))
    result = config.sample(
        1,
        tmp_path / "train.tfrecord",
        tmp_path / "train.tfrecord",
        tmp_path / "label_map.pbtxt",
        steps=6,
        batch_size=4,
        height=64,
        width=64,
    )
    result.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    result.mirilla.checkpoint_every_steps = 3
    result.mirilla.device = "cpu"
    return result


def test_it_flushes_denormal_numbers(pipeline, tmp_path, monkeypatch):
    """Weight decay makes the weights of unused channels denormal, and those are slow."""
    products = []
    step = HostSteps.step

    def spy(self):
        products.append(torch.full((8,), 1e-39) * 0.5)
        return step(self)

    monkeypatch.setattr(HostSteps, "step", spy)
    train(pipeline, tmp_path / "run", num_steps=1)
    if torch.set_flush_denormal(True):
        assert not torch.stack(products).any()
    torch.set_flush_denormal(False)


def test_it_learns(pipeline, tmp_path):
    rate = pipeline.train_config.optimizer.rms_prop_optimizer.learning_rate
    rate.constant_learning_rate.learning_rate = 0.03
    pipeline.train_config.batch_size = 12
    del pipeline.train_config.data_augmentation_options[:]
    train(pipeline, tmp_path / "run", num_steps=100)
    entries = log.read(tmp_path / "run")
    assert entries[-1]["step"] == 100
    assert entries[-1]["loss"] < 0.6 * entries[0]["loss"]
    assert {
        "localization_loss",
        "classification_loss",
        "regularization_loss",
        "learning_rate",
        "images_per_s",
        "positives",
    } <= set(entries[0])


def test_a_resumed_run_equals_an_uninterrupted_one(pipeline, tmp_path):
    train(pipeline, tmp_path / "whole")
    train(pipeline, tmp_path / "parts", num_steps=3)
    result = train(pipeline, tmp_path / "parts")
    assert result.step == 6
    whole, parts = (checkpoint.load(checkpoint.path_of(tmp_path / d, 6)) for d in ("whole", "parts"))
    assert set(whole.variables) == set(parts.variables)
    for name, value in whole.variables.items():
        np.testing.assert_allclose(parts.variables[name], value, atol=1e-6, err_msg=name)
    assert train(pipeline, tmp_path / "parts").images_per_s == 0  # nothing left to do


def test_when_pictures_are_decoded_changes_nothing(pipeline, tmp_path):
    train(pipeline, tmp_path / "first")
    shutil.copytree(tmp_path / "first" / "cache", tmp_path / "second" / "cache")
    sums = np.fromfile(tmp_path / "second" / "cache" / SUMS, np.uint64)
    assert sums.all()  # 6 steps of 4 need all 12
    train(pipeline, tmp_path / "second")
    sums[::2] = 0  # as if it had been stopped half-way
    shutil.copytree(tmp_path / "second" / "cache", tmp_path / "third" / "cache")
    sums.tofile(tmp_path / "third" / "cache" / SUMS)
    train(pipeline, tmp_path / "third")
    first, *others = (checkpoint.load(checkpoint.path_of(tmp_path / d, 6)) for d in ("first", "second", "third"))
    for other in others:
        for name, value in first.variables.items():
            np.testing.assert_allclose(other.variables[name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("found_by", ["the batches", "the filler"])
def test_a_picture_cut_short_is_named_and_the_steps_before_are_kept(pipeline, tmp_path, monkeypatch, found_by):
    samples = list(read_tfrecords(tmp_path / "train.tfrecord"))
    samples[11] = replace(samples[11], image=samples[11].image[:-200])
    write_tfrecords(samples, ["square"], tmp_path / "train.tfrecord")
    pipeline.train_input_reader.shuffle = False  # in batches of 4, record 11 is in the third
    if found_by == "the batches":
        monkeypatch.setattr(BackgroundDecoder, "start", lambda self: None)
    else:
        pipeline.train_config.batch_size = 2
    with pytest.raises(DataError, match=r"train\.tfrecord, record 11: .* broken or cut short") as found:
        train(pipeline, tmp_path / "run", num_steps=100000)
    assert found.value.remedy
    step = checkpoint.load(checkpoint.newest(tmp_path / "run")).step
    assert step == 2 if found_by == "the batches" else 1 <= step <= 5


def test_a_finished_run_needs_no_records(pipeline, tmp_path, capsys):
    train(pipeline, tmp_path / "run")
    (tmp_path / "train.tfrecord").unlink()
    (tmp_path / "label_map.pbtxt").unlink()
    shutil.rmtree(tmp_path / "run" / "cache")
    capsys.readouterr()
    result = train(pipeline, tmp_path / "run")
    assert capsys.readouterr().out == "step 6 of 6: nothing left to do\n"
    assert (result.step, result.images_per_s, result.checkpoint) == (6, 0, checkpoint.path_of(tmp_path / "run", 6))
    assert training.train(pipeline, tmp_path / "run", 5, "cpu") is None  # as the job starts it
    with pytest.raises(MirillaError, match=r"train\.tfrecord|label_map"):
        train(pipeline, tmp_path / "run", num_steps=7)


def test_a_finished_run_with_a_damaged_checkpoint_is_an_error(pipeline, tmp_path):
    result = train(pipeline, tmp_path / "run", num_steps=1)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        train(pipeline, tmp_path / "run", num_steps=1)


def test_checkpoint_holds_the_originals_variables(pipeline, tmp_path):
    result = train(pipeline, tmp_path / "run", num_steps=1)
    saved = checkpoint.load(result.checkpoint)
    name = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
    assert {name, f"{name}/RMSProp", f"{name}/RMSProp_1", f"{name}/ExponentialMovingAverage"} <= set(saved.variables)
    assert saved.variables[name].shape == (3, 3, 3, 16)
    assert len(saved.variables) == 542  # the original's 543 entries without global_step
    assert saved.step == 1
    averaged, raw = saved.weights(averages=True), saved.weights(averages=False)
    assert len(averaged) == len(raw) == 185
    assert not np.array_equal(averaged[name], raw[name])


def test_old_checkpoints_go_and_the_newest_stay(pipeline, tmp_path):
    pipeline.mirilla.checkpoint_every_steps = 1
    train(pipeline, tmp_path / "run", num_steps=8)
    steps = [p.name for p in checkpoint.all_checkpoints(tmp_path / "run")]
    assert steps == [f"model.ckpt-{i}.safetensors" for i in range(4, 9)]


def test_tensorflow_checkpoints_have_the_originals_variables(pipeline, tmp_path, shared):
    original = json.loads((shared / "data/odapi/ckpt0_variables.json").read_text())
    size = pipeline.model.ssd.image_resizer.fixed_shape_resizer
    size.height = size.width = 256
    result = train(pipeline, tmp_path / "run", num_steps=1, tf_checkpoints=True)
    values = load_checkpoint(tmp_path / "run" / "model.ckpt-1")
    assert [
        {"name": name, "shape": list(values[name].shape), "dtype": values[name].dtype.name} for name in sorted(values)
    ] == sorted(original, key=lambda entry: entry["name"])
    assert values.pop("global_step") == 1
    saved = checkpoint.load(result.checkpoint)
    for name, value in values.items():
        np.testing.assert_array_equal(value, saved.variables[name])


def test_tensorflow_checkpoints_of_adam_have_its_powers(pipeline, tmp_path):
    pipeline.train_config.optimizer.adam_optimizer.learning_rate.constant_learning_rate.learning_rate = 1e-3
    train(pipeline, tmp_path / "run", num_steps=2, tf_checkpoints=True)
    values = load_checkpoint(tmp_path / "run" / "model.ckpt-2")
    assert values["beta1_power"] == np.float32(0.9**3)
    assert values["beta2_power"] == np.float32(0.999**3)
    assert {name.rpartition("/")[2] for name in values} >= {"Adam", "Adam_1"}


def test_old_tensorflow_checkpoints_go_and_those_of_others_stay(tmp_path):
    variables = {"a": np.zeros(1, np.float32)}
    save_checkpoint(tmp_path / "model.ckpt-1", variables)
    for step in range(1, 8):
        checkpoint.save(tmp_path, checkpoint.Checkpoint(step, variables, {}), tensorflow=step > 1)
    assert not (tmp_path / "model.ckpt-1.safetensors").exists()
    for pattern in ("index", "data-00000-of-00001"):
        names = {path.name for path in tmp_path.glob(f"*.{pattern}")}
        assert names == {f"model.ckpt-{step}.{pattern}" for step in (1, 3, 4, 5, 6, 7)}
    assert (tmp_path / "checkpoint").read_text().splitlines()[:2] == [
        'model_checkpoint_path: "model.ckpt-7"',
        'all_model_checkpoint_paths: "model.ckpt-3"',
    ]


@pytest.mark.tensorflow
def test_todays_tensorflow_restores_a_training(pipeline, tmp_path):
    tf = pytest.importorskip("tensorflow")
    saved = checkpoint.load(train(pipeline, tmp_path / "run", num_steps=1, tf_checkpoints=True).checkpoint)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "run")))
    assert set(reader.get_variable_to_shape_map()) == {*saved.variables, "global_step"}
    for name, value in saved.variables.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


def test_tensorboard_reads_the_events(pipeline, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(pipeline, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert "Loss/total_loss" in events.Tags()["scalars"]
    assert [e.step for e in events.Scalars("learning_rate")] == [6]


def test_a_call_after_each_checkpoint(pipeline, tmp_path):
    calls = []
    train(pipeline, tmp_path / "run", num_steps=5, on_checkpoint=lambda path, ends: calls.append((path.name, ends)))
    assert calls == [("model.ckpt-3.safetensors", False), ("model.ckpt-5.safetensors", True)]


def test_a_loss_of_nan_stops_the_run(pipeline, tmp_path):
    pipeline.train_config.optimizer.rms_prop_optimizer.learning_rate.constant_learning_rate.learning_rate = 1e30
    with pytest.raises(TrainingError, match=r"Step \d+.*\n.*learning rate"):
        train(pipeline, tmp_path / "run", num_steps=50)


def test_ignored_boxes_teach_nothing(pipeline, tmp_path):
    content, box = picture(np.random.default_rng(1))
    sample = Sample(content, "a.jpg", 64, 80, np.array([box]), ("square",), ignore=np.array([True]))
    write_tfrecords([sample], ["square"], tmp_path / "ignored.tfrecord")
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "ignored.tfrecord")]
    with pytest.raises(DataError, match="not one object to learn"):
        train(pipeline, tmp_path / "run")


def test_wrong_label_map(pipeline, tmp_path):
    save_label_map(tmp_path / "label_map.pbtxt", LabelMap.from_names(["circle"]))
    with pytest.raises((DataError, ConfigError), match="square"):
        train(pipeline, tmp_path / "run")
    save_label_map(tmp_path / "label_map.pbtxt", LabelMap.from_names(["square", "circle"]))
    with pytest.raises(ConfigError, match="up to id 2"):
        train(pipeline, tmp_path / "run")


def test_checkpoint_of_another_network(pipeline, tmp_path):
    train(pipeline, tmp_path / "run", num_steps=1)
    pipeline.model.ssd.feature_extractor.depth_multiplier = 0.5
    with pytest.raises(ModelError, match=r"weights lack|has shape"):
        train(pipeline, tmp_path / "run")


def test_truncated_checkpoint(pipeline, tmp_path):
    result = train(pipeline, tmp_path / "run", num_steps=1)
    result.checkpoint.write_bytes(result.checkpoint.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        train(pipeline, tmp_path / "run")


def test_all_missing_files_are_named_at_once(pipeline, tmp_path):
    reader = pipeline.train_input_reader
    reader.label_map_path = str(tmp_path / "none.pbtxt")
    reader.tf_record_input_reader.input_path[:] = [
        str(tmp_path / "none-?????-of-00010"),
        str(tmp_path / "train.tfrecord"),
    ]
    pipeline.train_config.fine_tune_checkpoint = str(tmp_path / "none.ckpt")
    with pytest.raises(ConfigError, match="3 files of the pipeline") as caught:
        train(pipeline, tmp_path / "run")
    for name in ("label_map_path: ", "none.pbtxt", "none-?????-of-00010", "fine_tune_checkpoint: ", "none.ckpt"):
        assert name in caught.value.what
    assert "train.tfrecord" not in caught.value.what


def test_missing_records(pipeline, tmp_path):
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "nothing.tfrecord")]
    with pytest.raises(DataError, match=r"nothing\.tfrecord"):
        train(pipeline, tmp_path / "run")


def test_no_such_device():
    with pytest.raises(UsageError, match="no-such-device"):
        pick_device("no-such-device")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_from_outside_and_resumed(pipeline, tmp_path, kind):
    config.save(tmp_path / "pipeline.config", pipeline)
    command = [
        sys.executable,
        "-m",
        "mirilla.cli.main",
        "train",
        "--pipeline-config",
        "pipeline.config",
        "--model-dir",
        "run",
        "--num-train-steps",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "100000"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=restore_sigint,
    )
    deadline = time.monotonic() + 120
    while checkpoint.newest(tmp_path / "run") is None:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(kind)
    output = process.communicate(timeout=120)[0]
    step = checkpoint.load(checkpoint.newest(tmp_path / "run")).step
    if kind == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert f"stopped at step {step}" in output
    assert "Traceback" not in output
    done = subprocess.run(
        [*command, str(step + 2)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert f"resuming from model.ckpt-{step}" in done.stdout
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
