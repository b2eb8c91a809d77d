"""model_main: a short training with its evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mirilla import config
from mirilla.data.records import read_records
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.errors import UsageError
from mirilla.labels import LabelMap, save_label_map
from mirilla.protos.tensorflow_pb2 import Event, SavedModel
from mirilla.tf1.scripts import run_script

pytest.importorskip("torch")


@pytest.fixture
def words(tmp_path):
    """The flags of a training of six steps on twelve pictures."""
    picture = tmp_path / "picture.jpg"
    Image.new("RGB", (80, 64), (60, 60, 60)).save(picture)
    box = np.array([[0.2, 0.2, 0.7, 0.8]])
    samples = [Sample(picture.read_bytes(), f"{i}.jpg", 64, 80, box, ("square",)) for i in range(12)]
    record, labels = tmp_path / "train.record", tmp_path / "label_map.pbtxt"
    write_tfrecords(samples, ["square"], record)
    save_label_map(labels, LabelMap.from_names(["square"]))
    pipeline = config.sample(1, record, record, labels, steps=6, batch_size=4, height=64, width=64)
    pipeline.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    pipeline.mirilla.checkpoint_every_steps = 3
    pipeline.mirilla.device = "cpu"
    config.save(tmp_path / "pipeline.config", pipeline)
    return [f"--pipeline_config_path={tmp_path / 'pipeline.config'}", f"--model_dir={tmp_path / 'run'}"]


def figures(folder, name: str = "") -> dict[int, dict[str, float]]:
    """Step -> tag -> value of a folder's event files."""
    files = sorted(folder.glob(f"{name}*"))
    events = [Event.FromString(content) for file in files for content in read_records(file)]
    return {event.step: {v.tag: v.simple_value for v in event.summary.value} for event in events if event.step}


def test_it_evaluates_at_the_first_and_the_last_checkpoint(words, tmp_path, capsys):
    more = ["--num_train_steps=7", "--sample_1_of_n_eval_examples=4", "--run_once", "--tf_checkpoints"]
    assert run_script("model_main", [*words, *more]) == 0
    found = figures(tmp_path / "run/eval_0")
    assert set(found) == {3, 7}  # not 6: less than ten minutes after the first
    assert found[7]["global_step"] == 7
    assert "DetectionBoxes_Precision/mAP@.50IOU" in found[7]
    losses = [found[7][f"Loss/{name}_loss"] for name in ("localization", "classification", "regularization")]
    assert found[7]["Loss/total_loss"] == found[7]["loss"] == pytest.approx(sum(losses))
    assert min(losses) > 0
    (served,) = (tmp_path / "run/export/Servo").iterdir()
    model = SavedModel.FromString((served / "saved_model.pb").read_bytes())
    signatures = model.meta_graphs[0].signature_def
    assert set(signatures) == {"serving_default", "predict"}
    assert signatures["predict"].inputs["serialized_example"].name == "tf_example:0"
    assert figures(tmp_path / "run", "events")[7]["global_step/sec"] > 0
    out = capsys.readouterr().out
    assert "evaluated on 3 pictures" in out
    assert "--run_once is ignored" in out
    assert (tmp_path / "run/model.ckpt-7.index").is_file()

    words = [words[0], f"--model_dir={tmp_path / 'again'}", f"--checkpoint_dir={tmp_path / 'run'}"]
    assert run_script("model_main", [*words, "--eval_training_data"]) == 0  # ends: step 7 is the last one
    assert set(figures(tmp_path / "again/eval_training_data")) == {7}
    assert "evaluated on 3 pictures" in capsys.readouterr().out  # 1 of 5


def test_a_training_without_records_for_evaluation_ends_before_it_begins(words, tmp_path, capsys):
    from mirilla.errors import MirillaError

    path = tmp_path / "pipeline.config"
    pipeline = config.load(path)
    pipeline.ClearField("eval_input_reader")
    config.save(path, pipeline)
    with pytest.raises(MirillaError):
        run_script("model_main", words)
    assert not (tmp_path / "run").exists()


def test_the_originals_hyperparameter(words, tmp_path):
    from mirilla.tf1.model_main import loads_pretrained

    assert loads_pretrained("")
    assert loads_pretrained("load_pretrained=true")
    assert not loads_pretrained("load_pretrained=False")
    for wrong in ("learning_rate=1", "load_pretrained=maybe"):
        with pytest.raises(UsageError, match="load_pretrained"):
            run_script("model_main", [*words, f"--hparams_overrides={wrong}"])
    assert not (tmp_path / "run").exists()


def test_the_losses_are_those_of_training_on_one_picture(words, tmp_path):
    """With frozen batch norm and without augmentation, a step's losses are those of an evaluation."""
    import torch

    from mirilla.batches.batch import padded
    from mirilla.batches.dataset import objects_of
    from mirilla.config.to_spec import model_spec
    from mirilla.data import read_dataset
    from mirilla.data.images import decode_rgb
    from mirilla.labels import load_label_map
    from mirilla.resize import to_input
    from mirilla.training.evaluation_losses import evaluation_losses
    from mirilla.training.learner import Learner
    from mirilla.training.plan import training_plan

    pipeline = config.load(tmp_path / "pipeline.config")
    pipeline.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams = False
    spec = model_spec(pipeline)
    learner = Learner(spec, training_plan(pipeline, spec), torch.device("cpu"))
    learner.network.freeze_batch_norm(True, True)
    sample = read_dataset(tmp_path / "train.record", format="tfrecord").samples[0]
    labels = load_label_map(tmp_path / "label_map.pbtxt")
    found = evaluation_losses(pipeline, learner.network.get_weights(), [sample], labels)
    pixels, _ = to_input(decode_rgb(sample.image), 64, 64)
    losses = learner.learn(
        torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], padded(objects_of(sample, {"square": 0}), 1)
    )
    assert found["Loss/localization_loss"] == pytest.approx(float(losses.localization), rel=1e-4)
    assert found["Loss/classification_loss"] == pytest.approx(float(losses.classification), rel=1e-4)


def test_a_finished_run_still_writes_its_tensorflow_checkpoint(words, tmp_path):
    assert run_script("model_main", [*words, "--num_train_steps=3"]) == 0
    assert not (tmp_path / "run/model.ckpt-3.index").exists()
    assert run_script("model_main", [*words, "--num_train_steps=3", "--tf_checkpoints"]) == 0
    assert (tmp_path / "run/model.ckpt-3.index").is_file()


def test_tensorboard_reads_the_figures_zeros_too(words, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run_script("model_main", [*words, "--num_train_steps=3", "--sample_1_of_n_eval_examples=6"]) == 0
    for folder, tags in (
        ("run/eval_0", figures(tmp_path / "run/eval_0")[3]),
        ("run", figures(tmp_path / "run", "events")[3]),
    ):
        accumulator = reader.EventAccumulator(str(tmp_path / folder))
        accumulator.Reload()
        assert set(accumulator.Tags()["scalars"]) == set(tags)
        for tag, value in tags.items():
            assert accumulator.Scalars(tag)[-1].value == pytest.approx(value)
    assert 0.0 in figures(tmp_path / "run/eval_0")[3].values()
