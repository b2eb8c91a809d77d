"""mirilla import: old checkpoints and frozen graphs become training folders."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import helpers_checkpoint as handmade
from mirilla import config
from mirilla.cli.main import main
from mirilla.detect.detector import Detector
from mirilla.graph import load as load_graph
from mirilla.graph.reference import Runner
from mirilla.model import card as cards
from mirilla.model.layers import architecture
from mirilla.model.spec import AnchorSpec, ModelSpec
from mirilla.weights import checkpoint
from mirilla.weights import load as weights
from mirilla.weights.checkpoint import AVERAGE
from mirilla.weights.training_folder import load_labels

pytest.importorskip("safetensors")

EXPORTED = {
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
NAME = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"


@pytest.fixture
def odapi(shared):
    return shared / "data/odapi"


def run(odapi, source, out, *options, pipeline=None) -> int:
    pipeline = pipeline or odapi / "pipeline_b24.config"
    return main(["import", str(source), "--pipeline-config", str(pipeline), "--out", str(out), *options])


def outputs(path, pictures):
    graph = load_graph(path, input_size=256)
    found = Runner(graph)(pictures)
    return [found[name].reshape(len(pictures), 1278, -1) for name in graph.outputs]


@pytest.mark.parametrize("graph", ["odapi/frozen_inference_graph_b24.pb", "bonnet/PCK_frozen_inference_graph.pb"])
def test_an_old_graph_to_ours_and_back(shared, odapi, tmp_path, graph, capsys):
    """Old frozen graph -> checkpoint of ours -> frozen graph, on a real picture and on noise."""
    source = shared / "data" / graph
    assert run(odapi, source, tmp_path / "face") == 0
    assert "differ by at most" in capsys.readouterr().out
    with np.load(odapi / "images.npz") as file:
        picture = file["images256"][:1].astype(np.float32) * (2 / 255) - 1
    noise = np.random.default_rng(1).uniform(-1, 1, picture.shape).astype(np.float32)
    pictures = np.concatenate([picture, noise]).astype(np.float32)
    # not the graph that the import exported, but one made of its checkpoint
    assert main(["export", "--model-dir", str(tmp_path / "face"), "--out", str(tmp_path / "back")]) == 0
    before, after = (outputs(p, pictures) for p in (source, tmp_path / "back/frozen_inference_graph.pb"))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5, rtol=0)
    assert before[1].std() > 1e-4
    if "odapi" in graph:  # and against what TensorFlow 1.15 gave for this picture
        with np.load(odapi / "infer_b24.npz") as file:
            np.testing.assert_allclose(after[1][0], file["batch8|concat_1"][0], atol=1e-5)
            np.testing.assert_allclose(after[0][0], file["batch8|concat"][0].reshape(1278, 4), atol=1e-5)


def test_a_checkpoint_keeps_all_that_training_needs(odapi, tmp_path, capsys):
    out = tmp_path / "deep/face"
    assert run(odapi, odapi / "ckpt_b24_step60/model.ckpt-60", out, "--licence", "MIT", "--name", "old face") == 0
    assert {path.name for path in out.iterdir()} == {
        "model.ckpt-60.safetensors",
        "pipeline.config",
        "label_map.pbtxt",
        "export",
    }
    assert {path.name for path in (out / "export").iterdir()} == EXPORTED
    saved = checkpoint.load(out / "model.ckpt-60.safetensors")
    with np.load(odapi / "ckpt60_values.npz") as file:
        assert set(saved.variables) == set(file.files) - {"global_step"}
        for name in saved.variables:
            np.testing.assert_array_equal(saved.variables[name], file[name], err_msg=name)
    assert saved.step == 60
    card = cards.load(out / "export/model.json", out / "export/frozen_inference_graph.pb")
    assert (card.name, card.licence) == ("old face", "MIT")
    assert card.training == {"imported": "model.ckpt-60", "steps": 60, "averaged": True}
    text = capsys.readouterr().out
    assert "step 60, 2 slots of every trained variable" in text
    assert "moving averages" in text


def test_the_exported_graph_is_the_originals(odapi, tmp_path):
    """The original exported frozen_inference_graph_b24.pb from this checkpoint."""
    run(odapi, odapi / "ckpt_b24_step60/model.ckpt-60", tmp_path / "face")
    ours = weights.load_variables(tmp_path / "face/export/frozen_inference_graph.pb")[0]
    theirs = weights.load_variables(odapi / "frozen_inference_graph_b24.pb")[0]
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.parametrize("by", ["option", "config"])
def test_raw_weights(odapi, tmp_path, by):
    out, pipeline = tmp_path / "face", None
    if by == "config":
        text = (odapi / "pipeline_b24.config").read_text()
        pipeline = tmp_path / "raw.config"
        pipeline.write_text(text.replace("use_moving_averages: true", "use_moving_averages: false"))
    assert (
        run(
            odapi,
            odapi / "ckpt_b24_step60/model.ckpt-60",
            out,
            *["--raw"][: by == "option"],
            pipeline=pipeline,
        )
        == 0
    )
    with np.load(odapi / "ckpt60_values.npz") as file:
        raw, average = file[NAME], file[f"{NAME}/{AVERAGE}"]
    exported = weights.load_variables(out / "export/frozen_inference_graph.pb")[0]
    np.testing.assert_array_equal(exported[NAME], raw)
    assert not config.load(out / "pipeline.config").eval_config.use_moving_averages
    saved = checkpoint.load(out / "model.ckpt-60.safetensors")  # nothing is lost
    np.testing.assert_array_equal(saved.variables[f"{NAME}/{AVERAGE}"], average)
    photo = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    both = [Detector.load(path)(photo) for path in (out, out / "export")]
    np.testing.assert_array_equal(both[0].scores, both[1].scores)


def test_the_pipeline_config_names_the_label_map_in_the_folder(odapi, tmp_path, monkeypatch):
    """So that a label map given with --label-map is used for training too, from any working directory."""
    given = tmp_path / "given.pbtxt"
    given.write_text("item { id: 1 name: 'cat' }")
    monkeypatch.chdir(tmp_path)
    source = odapi / "ckpt_b24_step60/model.ckpt-60"
    assert run(odapi, source, "cal", "--label-map", "given.pbtxt") == 0
    given.unlink()
    for folder in ("cal", "cal/export"):
        pipeline = config.load(tmp_path / folder / "pipeline.config")
        readers = (pipeline.train_input_reader, pipeline.eval_input_reader)
        assert [reader.label_map_path for reader in readers] == [str(tmp_path / "cal/label_map.pbtxt")] * 2
    assert load_labels(pipeline, tmp_path, 1).names == ("cat",)


def test_the_folder_detects_compiles_and_trains_on(odapi, tmp_path, capsys):
    pytest.importorskip("torch")
    text = (odapi / "pipeline_b24.config").read_text().replace("data/train.record", str(odapi / "val.record"))
    text = text.replace("data/val.record", str(odapi / "val.record")).replace("batch_size: 24", "batch_size: 2")
    text = text.replace("data/label_map.pbtxt", str(odapi / "label_map.pbtxt"))
    pipeline = tmp_path / "old.config"
    pipeline.write_text(text)
    out = tmp_path / "face"
    assert run(odapi, odapi / "ckpt_b24_step60/model.ckpt-60", out, pipeline=pipeline) == 0
    graph = out / "export/frozen_inference_graph.pb"
    assert main(["compile", str(graph), "--out", str(tmp_path / "face.binaryproto")]) == 0
    kept = out / "pipeline.config"
    assert (
        main(
            [
                "train",
                "--pipeline-config",
                str(kept),
                "--model-dir",
                str(out),
                "--num-train-steps",
                "61",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert "resuming from model.ckpt-60" in capsys.readouterr().out
    before, after = (checkpoint.load(checkpoint.path_of(out, step)) for step in (60, 61))
    average = f"{NAME}/{AVERAGE}"
    assert after.step == 61
    assert 0 < np.abs(after.variables[average] - before.variables[average]).max() < 1e-4
    assert np.abs(after.variables[NAME] - before.variables[NAME]).max() > 0
    assert Detector.load(out).card.training == {"steps": 61}


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape, _ in architecture(spec).variables()}


def changed(spec: ModelSpec, **more: tuple[int, ...]) -> dict[str, np.ndarray]:
    return handmade.mobilenet(shapes(spec) | more)


PIPELINE = ModelSpec()
WRONG = {
    "classification": (
        {"MobilenetV1/Conv2d_0/weights": np.zeros((3, 3, 3, 16), "f4")},
        "classification checkpoint",
    ),
    "another network": ({"resnet_v1_50/conv1/weights": np.zeros((7, 7, 3, 64), "f4")}, "another network"),
    "another extractor": (
        changed(ModelSpec("ssd_mobilenet_v1", anchors=AnchorSpec(6))),
        r"variables (are missing|that the)",
    ),
    "half of it": (
        {name: value for name, value in changed(ModelSpec()).items() if "Conv2d_7" not in name},
        "10 of the network's 185 variables are missing",
    ),
    "another width": (changed(ModelSpec(), **{NAME: (3, 3, 3, 8)}), r"\(3, 3, 3, 8\), the network"),
    "20 classes": (changed(ModelSpec(num_classes=20)), "trained for 20 classes"),
    "more predictors": (
        changed(ModelSpec(), **{"BoxPredictor_5/ClassPredictor/biases": (12,)}),
        "'BoxPredictor_5/ClassPredictor/biases' first",
    ),
    "not finite": (
        {**changed(ModelSpec()), NAME: np.full((3, 3, 3, 16), np.inf, "f4")},
        "not a finite number",
    ),
    "no weights": ({"global_step": np.array(3, "i8")}, "another network"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_not_this_network_is_refused(odapi, tmp_path, capsys, case):
    values, message = WRONG[case]
    source = tmp_path / "old.npz"
    np.savez(source, **values)
    assert run(odapi, source, tmp_path / "face") == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Remedy: " in error
    assert "Traceback" not in error
    assert not (tmp_path / "face").exists()


def test_a_graph_that_computes_something_else_is_refused(odapi, tmp_path, capsys):
    from mirilla.graph import read_graph_def

    graph_def = read_graph_def(odapi / "frozen_inference_graph_b24.pb")
    for node in graph_def.node:
        if node.op == "FusedBatchNormV3":
            node.attr["epsilon"].f = 0.1
    source = tmp_path / "old.pb"
    source.write_bytes(graph_def.SerializeToString())
    assert run(odapi, source, tmp_path / "face") == 1
    assert "gives other outputs" in capsys.readouterr().err
    assert not (tmp_path / "face").exists()


def test_broken_and_missing_files(odapi, shared, tmp_path, capsys):
    prefix = tmp_path / "model.ckpt-60"
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copyfile(odapi / f"ckpt_b24_step60/model.ckpt-60{suffix}", f"{prefix}{suffix}")
    data = tmp_path / "model.ckpt-60.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    compiled = shared / "data/bonnet/pikachu2_detector.binaryproto"
    for source, message in (
        (prefix, "cut short"),
        (tmp_path / "model.ckpt-61", "no such checkpoint"),
        (tmp_path, "Name one in it: model.ckpt-60."),
        (compiled, "a compiled model"),
    ):
        assert run(odapi, source, tmp_path / "face") == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "face").exists()


def test_a_folder_with_a_training_is_left_alone(odapi, tmp_path, capsys):
    source = odapi / "ckpt_b24_step60/model.ckpt-60"
    assert run(odapi, source, tmp_path / "face") == 0
    assert run(odapi, source, tmp_path / "face") == 2
    assert "already contains a training" in capsys.readouterr().err


def test_it_has_a_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["import", "--help"])
    assert caught.value.code == 0
    assert "--pipeline-config" in capsys.readouterr().out
