"""Compiled models converted back to frozen graphs."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.bonnet import format as bf
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.graph import read_graph_def, reader
from mirilla.graph.reference import run


def test_graph_of_the_golden_pair_is_close_to_the_original(shared):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)
    original = run(reader.load(shared / "data/bonnet/PCK_frozen_inference_graph.pb"), images)
    back = run(reader.read(to_graph_def(bf.read(shared / "data/bonnet/pikachu2_detector.binaryproto"))), images)
    assert np.abs(original["concat"] - back["concat"]).max() < 0.0125
    assert np.abs(original["concat_1"] - back["concat_1"]).max() < 0.022
    assert np.abs(original["concat"] - back["concat"]).max() > 1e-4  # the weights are fp16


@pytest.mark.tensorflow
def test_tensorflow_runs_the_graphs_of_known_files(shared):
    from test_graph_reference import tensorflow_run

    images = np.random.RandomState(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    pair = read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    outputs = ("concat", "concat_1")
    original = tensorflow_run(pair, "Preprocessor/sub", outputs, images)
    back = to_graph_def(bf.read(shared / "data/bonnet/pikachu2_detector.binaryproto"))
    found = tensorflow_run(back, "Preprocessor/sub", outputs, images)
    assert [output.shape for output in found] == [(1, 1278, 1, 4), (1, 1278, 2)]
    assert np.abs(original[0] - found[0]).max() < 0.0125
    assert np.abs(original[1] - found[1]).max() < 0.022
    for name, side in (("rps_160", 160), ("rover_224", 224)):
        graph_def = to_graph_def(bf.read(shared / f"data/bonnet/{name}.binaryproto"))
        images = np.random.RandomState(1).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
        (expected,) = tensorflow_run(graph_def, "input", ("final_result",), images)
        found = run(reader.read(graph_def, "input", "final_result"), images)["final_result"]
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
