"""mirilla export."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from mirilla.cli.main import main
from mirilla.detect.detector import Detector
from mirilla.graph import read_graph_def
from mirilla.model import card as cards

FILES = {
    "frozen_inference_graph.pb",
    "model.json",
    "pipeline.config",
    "label_map.pbtxt",
    "model.safetensors",
    "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.meta",
    "checkpoint",
    "saved_model",
}


@pytest.fixture
def odapi(shared):
    pytest.importorskip("safetensors")
    return shared / "data/odapi"


def test_an_old_command_line_works(odapi, tmp_path, capsys):
    out = tmp_path / "deep" / "export"
    code = main(
        [
            "export",
            "--input_type",
            "image_tensor",
            "--pipeline_config_path",
            str(odapi / "pipeline_b24.config"),
            "--trained_checkpoint_prefix",
            str(odapi / "ckpt_b24_step60/model.ckpt-60"),
            "--output_directory",
            str(out),
        ]
    )
    assert code == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert "step 60 (moving averages)" in capsys.readouterr().out
    card = cards.load(out / "model.json", out / "frozen_inference_graph.pb")
    assert card.training == {"checkpoint": "model.ckpt-60", "steps": 60, "averaged": True}
    assert card.name == "export"
    # the original's export of the same checkpoint
    ours = {node.name: node for node in read_graph_def(out / "frozen_inference_graph.pb").node}
    theirs = {node.name: node for node in read_graph_def(odapi / "frozen_inference_graph_b24.pb").node}
    from mirilla.protos.graphdef import constant_array

    kernels = [name for name in theirs if name.endswith(("/weights", "/biases", "/gamma", "/moving_variance"))]
    assert len(kernels) == 17 + 3 + 20 + 2 * 33
    for name in kernels:
        np.testing.assert_array_equal(constant_array(ours[name]), constant_array(theirs[name]))
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]  # no temporary folder is left


def test_a_training_folder_of_the_api(odapi, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(odapi / "ckpt_b24_step60", folder)
    shutil.copyfile(odapi / "pipeline_b24.config", folder / "pipeline.config")
    shutil.copyfile(odapi / "label_map.pbtxt", folder / "label_map.pbtxt")
    out = tmp_path / "export"
    assert (
        main(
            [
                "export",
                "--model-dir",
                str(folder),
                "--out",
                str(out),
                "--name",
                "mine",
                "--licence",
                "MIT",
                "--threshold",
                "0.3",
            ]
        )
        == 0
    )
    card = cards.load(out / "model.json")
    assert (card.name, card.licence, card.threshold, card.labels.names) == ("mine", "MIT", 0.3, ("face",))
    photo = np.zeros((40, 40, 3), np.uint8)
    from_training, from_export = Detector.load(folder), Detector.load(out)
    assert "newest checkpoint, of step 60" in from_training.notes[0]
    np.testing.assert_array_equal(from_training(photo).scores, from_export(photo).scores)


def test_the_prefix_of_mirillas_own_checkpoint(odapi, tmp_path, capsys):
    pipeline = ["--pipeline-config", str(odapi / "pipeline_b24.config")]
    prefix = tmp_path / "train" / "model.ckpt-60"
    command = ["import", str(odapi / "ckpt_b24_step60/model.ckpt-60"), *pipeline, "--out", str(prefix.parent)]
    assert main(command) == 0
    assert main(["export", *pipeline, "--trained_checkpoint_prefix", str(prefix), "--out", str(tmp_path / "a")]) == 0
    assert "model.ckpt-60.safetensors of step 60 (moving averages)" in capsys.readouterr().out
    assert main(["import", str(prefix), *pipeline, "--out", str(tmp_path / "b")]) == 0
    for name in ("frozen_inference_graph.pb", "model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / "export" / name).read_bytes()


def test_other_input_types_and_an_overridden_pipeline(odapi, tmp_path):
    command = ["export", "--pipeline_config_path", str(odapi / "pipeline_b24.config")]
    command += ["--trained_checkpoint_prefix", str(odapi / "export_ckpt_values.npz")]
    override = "model { ssd { post_processing { batch_non_max_suppression { max_total_detections: 7 } } } }"
    options = ["--input_type", "tf_example", "--config_override", override]
    assert main([*command, "--output_directory", str(tmp_path / "a"), *options]) == 0
    assert main([*command, "--output_directory", str(tmp_path / "b"), "--input_shape", "1,-1,-1,3"]) == 0
    assert "max_total_detections: 7" in (tmp_path / "a" / "pipeline.config").read_text()
    assert cards.load(tmp_path / "a" / "model.json").spec.post_processing.max_total_detections == 7
    nodes = {node.name: node for node in read_graph_def(tmp_path / "b" / "frozen_inference_graph.pb").node}
    assert [dim.size for dim in nodes["image_tensor"].attr["shape"].shape.dim] == [1, -1, -1, 3]
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    found, expected = Detector.load(tmp_path / "a")(photo), Detector.load(tmp_path / "b")(photo)
    np.testing.assert_array_equal(found.scores, expected.scores[:7])


def test_exporting_again_replaces(odapi, tmp_path):
    out = tmp_path / "export"
    command = [
        "export",
        "--pipeline-config",
        str(odapi / "pipeline_b24.config"),
        "--out",
        str(out),
        "--checkpoint",
    ]
    assert main([*command, str(odapi / "export_ckpt_values.npz")]) == 0
    (out / "notes.txt").write_text("mine")
    first = (out / "frozen_inference_graph.pb").read_bytes()
    assert main([*command, str(odapi / "ckpt0_values.npz")]) == 0
    assert (out / "frozen_inference_graph.pb").read_bytes() != first
    assert (out / "notes.txt").read_text() == "mine"
    Detector.load(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give either --checkpoint or --model-dir"),
        (["--checkpoint", "c", "--model-dir", "d"], "Give either --checkpoint or --model-dir"),
        (["--checkpoint", "c"], "--checkpoint needs --pipeline-config"),
        (["--model-dir", "d", "--threshold", "2"], "between 0 and 1"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, message):
    assert main(["export", "--out", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("pipeline", "checkpoint", "message"),
    [
        ("missing.config", "export_ckpt_values.npz", "missing.config"),
        ("pipeline_b24.config", "missing.npz", "no such checkpoint"),
        ("pipeline_b24.config", "anchors.npz", "lack the variable"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(odapi, tmp_path, capsys, pipeline, checkpoint, message):
    code = main(
        [
            "export",
            "--pipeline-config",
            str(odapi / pipeline),
            "--checkpoint",
            str(odapi / checkpoint),
            "--out",
            str(tmp_path / "x"),
        ]
    )
    assert code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_export(odapi, tmp_path, monkeypatch, capsys):
    out = tmp_path / "export"
    command = [
        "export",
        "--pipeline-config",
        str(odapi / "pipeline_b24.config"),
        "--out",
        str(out),
        "--checkpoint",
        str(odapi / "ckpt0_values.npz"),
    ]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    real = os.fsync
    calls = iter(range(100))

    def full(handle):
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert main([*command[:-1], str(odapi / "export_ckpt_values.npz")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_file_where_the_folder_should_be(odapi, tmp_path, capsys):
    (tmp_path / "x").write_text("")
    assert (
        main(
            [
                "export",
                "--pipeline-config",
                str(odapi / "pipeline_b24.config"),
                "--checkpoint",
                str(odapi / "ckpt0_values.npz"),
                "--out",
                str(tmp_path / "x"),
            ]
        )
        == 1
    )
    assert "not a folder" in capsys.readouterr().err
