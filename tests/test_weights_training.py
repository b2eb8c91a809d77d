"""Training that starts from another checkpoint, and checkpoints that are used with or without averages."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import helpers_checkpoint as handmade  # noqa: E402
from mirilla import config  # noqa: E402
from mirilla.cli.main import main  # noqa: E402
from mirilla.config.to_spec import model_spec  # noqa: E402
from mirilla.data.sample import Sample  # noqa: E402
from mirilla.data.tfrecord import write_tfrecords  # noqa: E402
from mirilla.detect.detector import Detector  # noqa: E402
from mirilla.job import training  # noqa: E402
from mirilla.labels import LabelMap, save_label_map  # noqa: E402
from mirilla.model.layers import architecture  # noqa: E402
from mirilla.training.learner import Learner  # noqa: E402
from mirilla.training.trainer import train  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402
from mirilla.weights.checkpoint import AVERAGE  # noqa: E402

NAME = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"


@pytest.fixture
def pipeline(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(4):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
        samples.append(Sample(file.getvalue(), f"{i}.jpg", 64, 64, np.array([[0.2, 0.2, 0.8, 0.8]]), ("face",)))
    records, labels = tmp_path / "train.tfrecord", tmp_path / "label_map.pbtxt"
    write_tfrecords(samples, ["face"], records)
    save_label_map(labels, LabelMap.from_names(["face"]))
    result = config.sample(1, records, records, labels, steps=2, batch_size=4, height=64, width=64)
    result.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    result.mirilla.device = "cpu"
    return result


def old_checkpoint(pipeline, folder, step=870894):
    values = handmade.mobilenet(
        {name: shape for name, shape, _ in architecture(model_spec(pipeline)).variables()}, seed=1
    )
    values |= {f"{name}/{AVERAGE}": value * 0.5 for name, value in values.items() if "moving" not in name}
    handmade.write_v2(folder / f"model.ckpt-{step}", {**values, "global_step": np.array(step, "i8")})
    return folder / f"model.ckpt-{step}", values


def started_from(pipeline, tmp_path, monkeypatch):
    """The variables before the first step, and the learner."""
    seen = {}

    def step(self, images, batch):
        if not seen:
            state = self.checkpoint({}).variables | {"step": self.state.step}
            seen.update({name: np.array(value) for name, value in state.items()})  # copies, because training continues
        return original(self, images, batch)

    original = Learner.step
    monkeypatch.setattr(Learner, "step", step)
    train(pipeline, tmp_path / "run")
    return seen


def test_training_starts_there_with_a_step_of_zero(pipeline, tmp_path, monkeypatch, capsys):
    prefix, values = old_checkpoint(pipeline, tmp_path)
    pipeline.train_config.fine_tune_checkpoint = str(prefix)
    pipeline.train_config.from_detection_checkpoint = True
    start = started_from(pipeline, tmp_path, monkeypatch)
    assert start["step"] == 0
    moving = NAME.replace("weights", "BatchNorm/moving_mean")
    for name in (NAME, moving):
        np.testing.assert_array_equal(start[name], values[name])
    np.testing.assert_array_equal(start[f"{NAME}/{AVERAGE}"], values[NAME])  # the average begins at the raw weights
    assert (start[f"{NAME}/RMSProp"] == 1).all()
    predictor = "BoxPredictor_0/ClassPredictor/weights"
    assert not np.array_equal(start[predictor], values[predictor])
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "variables restored" in line]
    assert len(lines) == 1
    assert "165 of 185 variables restored from" in lines[0]
    details = (tmp_path / "run/fine_tune_checkpoint.txt").read_text()
    assert f"  {NAME} 3x3x3x16" in details
    assert predictor in details


def test_averages_on_request(pipeline, tmp_path, monkeypatch):
    prefix, values = old_checkpoint(pipeline, tmp_path)
    pipeline.train_config.fine_tune_checkpoint = str(prefix)
    pipeline.train_config.fine_tune_checkpoint_type = "detection"
    pipeline.train_config.load_all_detection_checkpoint_vars = True
    pipeline.mirilla.fine_tune_from_averages = True
    start = started_from(pipeline, tmp_path, monkeypatch)
    for name in (NAME, "BoxPredictor_0/ClassPredictor/weights"):
        np.testing.assert_array_equal(start[name], values[f"{name}/{AVERAGE}"])


@pytest.mark.parametrize("suffix", [".safetensors", ""], ids=["file", "prefix"])
def test_ours_as_the_start(pipeline, tmp_path, monkeypatch, suffix):
    first = train(pipeline, tmp_path / "first")
    pipeline.train_config.fine_tune_checkpoint = str(first.checkpoint.with_suffix(suffix))
    pipeline.train_config.from_detection_checkpoint = True
    start = started_from(pipeline, tmp_path, monkeypatch)
    np.testing.assert_array_equal(start[NAME], checkpoint.load(first.checkpoint).variables[NAME])


def test_only_where_there_is_no_checkpoint_yet(pipeline, tmp_path, capsys):
    train(pipeline, tmp_path / "run", num_steps=1)
    pipeline.train_config.fine_tune_checkpoint = str(tmp_path / "is_gone_by_now")
    train(pipeline, tmp_path / "run", num_steps=2)
    assert "resuming from model.ckpt-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fine_tune", "message"),
    [
        ("from_detection_checkpoint: true", None),
        ("", "is a detection checkpoint"),
        ("fine_tune_checkpoint_type: 'full'", "Unknown type of checkpoint 'full'"),
        (
            "from_detection_checkpoint: true fine_tune_checkpoint: 'PATH_TO_BE_CONFIGURED/model.ckpt'",
            "still holds",
        ),
    ],
)
def test_from_the_command_line(pipeline, tmp_path, capsys, fine_tune, message):
    prefix, _ = old_checkpoint(pipeline, tmp_path)
    pipeline.train_config.fine_tune_checkpoint = str(prefix)
    path = tmp_path / "pipeline.config"
    config.save(path, config.merge(pipeline, f"train_config {{ {fine_tune} }}"))
    code = main(["train", "--pipeline-config", str(path), "--model-dir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert code == (0 if message is None else 1)
    if message is not None:
        assert message in error
        assert checkpoint.newest(tmp_path / "run") is None


def test_what_is_evaluated_and_exported_goes_by_use_moving_averages(pipeline, tmp_path, capsys):
    """One training folder, with averages far from the raw weights."""
    folder = tmp_path / "run"
    _, values = old_checkpoint(pipeline, tmp_path)
    checkpoint.save(folder, checkpoint.Checkpoint(5, values, {}))
    photo = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    scores = {}
    for averages in (True, False):
        pipeline.eval_config.use_moving_averages = averages
        config.save(folder / "pipeline.config", pipeline)
        detector = Detector.load(folder)
        assert ("moving averages" in detector.notes[0]) == averages
        scores[averages] = detector(photo).scores
        out = tmp_path / f"export_{averages}"
        assert main(["export", "--model-dir", str(folder), "--out", str(out)]) == 0
        assert ("moving averages" in capsys.readouterr().out) == averages
        np.testing.assert_array_equal(Detector.load(out)(photo).scores, scores[averages])
        trained = training.trained(folder, pipeline.eval_config.use_moving_averages)
        expected = values[f"{NAME}/{AVERAGE}"] if averages else values[NAME]
        np.testing.assert_array_equal(trained.weights[NAME], expected)
    assert not np.array_equal(scores[True], scores[False])
    assert np.array_equal(Detector.load(folder, averages=True)(photo).scores, scores[True])
    # 'mirilla eval' uses the given pipeline, not the folder's
    path = tmp_path / "pipeline.config"
    for averages in (True, False):
        pipeline.eval_config.use_moving_averages = averages
        config.save(path, pipeline)
        assert main(["eval", "--pipeline-config", str(path), "--model-dir", str(folder)]) == 0
        assert ("moving averages" in capsys.readouterr().err) == averages
