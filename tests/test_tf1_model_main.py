"""model_main: a short training with its evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mirilla import config
from mirilla.data.records import read_records
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.labels import LabelMap, save_label_map
from mirilla.protos.tensorflow_pb2 import Event
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


def figures(folder) -> dict[int, dict[str, float]]:
    """Step -> tag -> value of a folder's event files."""
    events = [Event.FromString(content) for file in sorted(folder.iterdir()) for content in read_records(file)]
    return {event.step: {v.tag: v.simple_value for v in event.summary.value} for event in events if event.step}


def test_it_evaluates_at_the_first_and_the_last_checkpoint(words, tmp_path, capsys):
    more = ["--num_train_steps=7", "--sample_1_of_n_eval_examples=4", "--run_once", "--tf_checkpoints"]
    assert run_script("model_main", [*words, *more]) == 0
    found = figures(tmp_path / "run/eval_0")
    assert set(found) == {3, 7}  # not 6: less than ten minutes after the first
    assert found[7]["global_step"] == 7
    assert "DetectionBoxes_Precision/mAP@.50IOU" in found[7]
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
