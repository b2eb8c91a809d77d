"""TensorFlow 1.15 itself reads an export: its Saver restores the checkpoint, its loader runs the saved model.

Slow: makes an environment with Python 3.7 and TensorFlow 1.15, and is skipped where it cannot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from helpers_checkpoint import mobilenet
from helpers_environment import make_environment
from mirilla.labels import LabelMap
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.weights.export import export_model

PACKAGES = ["tensorflow==1.15.5", "protobuf<3.21", "numpy<1.19"]
PROGRAM = """
import json, sys
import google.protobuf.text_format
import numpy as np, tensorflow as tf
folder, v1 = sys.argv[1], tf.compat.v1
images = np.random.RandomState(0).randint(0, 256, (3, 70, 90, 3)).astype(np.uint8)
weights = np.load(folder + "/weights.npz")
with tf.Graph().as_default(), v1.Session() as session:
    variables = {name: v1.get_variable(name, shape=weights[name].shape) for name in weights.files}
    v1.train.Saver().restore(session, tf.train.latest_checkpoint(folder))
    restored = session.run(variables)
with tf.Graph().as_default(), v1.Session() as session:
    serving = v1.saved_model.load(session, ["serve"], folder + "/saved_model").signature_def["serving_default"]
    names = {key: info.name for key, info in serving.outputs.items()}
    served = session.run(names, {serving.inputs["inputs"].name: images})
with tf.Graph().as_default(), v1.Session() as session:
    with open(folder + "/frozen_inference_graph.pb", "rb") as file:
        tf.import_graph_def(v1.GraphDef.FromString(file.read()), name="")
    frozen = session.run({key: key + ":0" for key in names}, {"image_tensor:0": images})
with tf.Graph().as_default(), v1.Session() as session:
    saver = v1.train.import_meta_graph(folder + "/model.ckpt.meta")
    saver.restore(session, folder + "/model.ckpt")
    rebuilt = session.run({key: key + ":0" for key in names}, {"image_tensor:0": images})
    step = int(session.run(v1.train.get_global_step()))
    trainable = len(v1.trainable_variables())
    again = saver.save(session, folder + "/again/model.ckpt")
with tf.Graph().as_default():
    parsed = google.protobuf.text_format.Parse(open(folder + "/inference_graph.pbtxt").read(), v1.GraphDef())
    tf.import_graph_def(parsed, name="")
print(json.dumps({
    "rebuilt": {key: float(abs(rebuilt[key] - frozen[key]).max()) for key in names},
    "step": step,
    "trainable": trainable,
    "weights": max(float(abs(restored[name] - weights[name]).max()) for name in weights.files),
    "outputs": {key: float(abs(served[key] - frozen[key]).max()) for key in names},
    "detections": float(served["num_detections"].max()),
}))
"""


def python_3_7() -> str | None:
    found = [*Path.home().glob(".pyenv/versions/3.7.*/bin/python"), shutil.which("python3.7")]
    return next((str(path) for path in found if path), None)


@pytest.fixture(scope="module")
def tensorflow_1(tmp_path_factory):
    python = python_3_7()
    if python is None:
        pytest.skip("Python 3.7 is not installed")
    return make_environment(tmp_path_factory.mktemp("tensorflow_1") / "venv", PACKAGES, python=python)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tensorflow_1_restores_and_serves_an_export(tensorflow_1, tmp_path):
    pytest.importorskip("safetensors")
    spec = ModelSpec()
    weights = mobilenet({name: shape for name, shape, _ in architecture(spec).variables()})
    export_model(spec, weights, LabelMap.from_names(["face"]), tmp_path, step=9, write_inference_graph=True)
    np.savez(tmp_path / "weights.npz", **weights)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [tensorflow_1, "-W", "ignore", "-c", PROGRAM, tmp_path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["weights"] == 0
    assert max(result["outputs"].values()) <= 1e-5
    assert len(result["outputs"]) == 7
    # not the chosen boxes: scores that differ in the seventh digit come in another order
    same = ("raw_detection_boxes", "raw_detection_scores", "detection_scores", "num_detections")
    assert max(result["rebuilt"][key] for key in same) <= 1e-5
    assert result["step"] == 9
    assert result["trainable"] == sum(not n.endswith(("moving_mean", "moving_variance")) for n in weights)
    assert result["detections"] > 0
