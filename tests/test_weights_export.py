"""The checkpoint and the saved model of an export, against the original's names and in TensorFlow itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers_checkpoint import mobilenet
from mirilla.errors import ModelError
from mirilla.labels import LabelMap
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.protos.tensorflow_pb2 import SavedModel
from mirilla.targets import frozen_graph, saved_model
from mirilla.weights.export import export_model
from mirilla.weights.tensorflow import load_checkpoint

SPEC = ModelSpec()
STEP = 20_000
RAW = ["raw_detection_boxes", "raw_detection_scores"]


@pytest.fixture(scope="module")
def weights():
    return mobilenet({name: shape for name, shape, _ in architecture(SPEC).variables()})


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    pytest.importorskip("safetensors")
    out = tmp_path_factory.mktemp("export") / "export"
    extra = {"BoxPredictor_0/ClassPredictor/biases/RMSProp": np.ones(6, np.float32)}  # is not exported
    export_model(SPEC, weights | extra, LabelMap.from_names(["face"]), out, step=STEP)
    return out


def signature(folder):
    model = SavedModel.FromString((folder / "saved_model" / "saved_model.pb").read_bytes())
    (meta,) = model.meta_graphs
    assert list(meta.meta_info_def.tags) == ["serve"]
    assert list(meta.signature_def) == ["serving_default"]
    return meta, meta.signature_def["serving_default"]


def test_the_checkpoint_has_the_originals_variables(shared, folder, weights):
    original = json.loads((shared / "data/odapi/export_ckpt_variables.json").read_text())
    values = load_checkpoint(folder / "model.ckpt")
    found = [
        {"name": name, "shape": list(values[name].shape), "dtype": values[name].dtype.name} for name in sorted(values)
    ]
    assert found == sorted(original, key=lambda entry: entry["name"])
    assert values.pop("global_step") == STEP
    for name, value in values.items():
        np.testing.assert_array_equal(value, weights[name])
    assert (folder / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt"\n')


def test_the_saved_model_is_the_frozen_graph_with_a_signature(folder):
    meta, serving = signature(folder)
    assert meta.graph_def.SerializeToString(deterministic=True) == (folder / "frozen_inference_graph.pb").read_bytes()
    assert serving.method_name == "tensorflow/serving/predict"
    assert {key: info.name for key, info in serving.inputs.items()} == {"inputs": "image_tensor:0"}
    assert {key: info.name for key, info in serving.outputs.items()} == {
        key: f"{key}:0" for key in [*frozen_graph.OUTPUTS, "detection_multiclass_scores", *RAW]
    }
    shapes = {key: [side.size for side in info.tensor_shape.dim] for key, info in serving.outputs.items()}
    assert shapes["detection_boxes"] == [-1, 100, 4]
    assert shapes["raw_detection_scores"] == [-1, 1278, 2]
    assert list((folder / "saved_model" / "variables").iterdir()) == []


def test_a_later_export_replaces_it_and_nothing_else(folder, weights, tmp_path):
    out = tmp_path / "export"
    (out / "saved_model" / "variables").mkdir(parents=True)
    (out / "saved_model" / "saved_model.pb").write_bytes(b"old")
    (out / "saved_model" / "notes.txt").write_text("mine")
    export_model(SPEC, weights, LabelMap.from_names(["face"]), out)
    assert (out / "saved_model" / "notes.txt").read_text() == "mine"
    assert (out / "saved_model" / "saved_model.pb").stat().st_size > 1000
    assert load_checkpoint(out / "model.ckpt")["global_step"] == 0


def test_a_graph_without_an_output_is_refused(weights):
    graph = frozen_graph.build(SPEC, weights)
    del graph.node[-1]
    with pytest.raises(ModelError, match="no output 'raw_detection_scores'"):
        saved_model.check(graph, SPEC)


@pytest.mark.tensorflow
def test_todays_tensorflow_restores_the_checkpoint(folder, weights):
    tf = pytest.importorskip("tensorflow")
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder)))
    assert set(reader.get_variable_to_shape_map()) == {*weights, "global_step"}
    for name, value in weights.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


@pytest.mark.tensorflow
def test_todays_tensorflow_serves_the_saved_model(folder):
    tf = pytest.importorskip("tensorflow")
    images = np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), np.uint8)
    serve = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    results = serve(inputs=tf.constant(images))
    _, serving = signature(folder)
    assert set(results) == set(serving.outputs)
    graph = tf.Graph()
    with graph.as_default():
        message = tf.compat.v1.GraphDef.FromString((folder / "frozen_inference_graph.pb").read_bytes())
        tf.import_graph_def(message, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        expected = session.run({name: f"{name}:0" for name in results}, {"image_tensor:0": images})
    for name, value in expected.items():
        np.testing.assert_allclose(results[name].numpy(), value, atol=1e-5, rtol=0)
        assert serving.outputs[name].tensor_shape.dim[0].size == -1
        assert [side.size for side in serving.outputs[name].tensor_shape.dim][1:] == list(value.shape[1:])
