"""The engines, and the ONNX model that onnxruntime runs."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_graph import other_layers, small_network
from mirilla.detect import engine
from mirilla.errors import MissingExtraError, UsageError
from mirilla.graph import reader
from mirilla.graph.reference import Runner
from mirilla.targets import onnx_graph

GRAPHS = {
    "small": lambda: reader.read(small_network("FusedBatchNorm").graph_def),
    "other layers": lambda: reader.read(other_layers().graph_def, "input", ("softmax", "sigmoid")),
}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_onnxruntime_equals_the_reference(kind, count):
    pytest.importorskip("onnxruntime")
    graph = GRAPHS[kind]()
    images = np.random.default_rng(2).uniform(-1, 1, (count, *graph.input_shape)).astype(np.float32)
    expected = Runner(graph)(images)
    found = engine.prepare(graph, engine.ONNXRUNTIME)(images)
    assert list(found) == list(graph.outputs)
    for name, array in found.items():
        assert array.shape == expected[name].shape
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_onnxruntime_equals_the_reference_on_a_real_model(shared):
    pytest.importorskip("onnxruntime")
    from mirilla.graph import read_graph_def

    graph = reader.read(read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb"))
    images = np.random.default_rng(0).uniform(-1, 1, (1, *graph.input_shape)).astype(np.float32)
    expected = Runner(graph)(images)
    for name, array in engine.prepare(graph, engine.ONNXRUNTIME)(images).items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("planar", [False, True])
def test_the_onnx_model_is_valid(kind, planar):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(onnx_graph.build(GRAPHS[kind](), planar_input=planar).SerializeToString())
    onnx.checker.check_model(model, full_check=True)


def test_numpy_engine_is_the_reference():
    graph = GRAPHS["small"]()
    assert isinstance(engine.prepare(graph, engine.NUMPY), Runner)


def test_without_onnxruntime_numpy_is_chosen(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert engine.choose() == engine.NUMPY
    assert isinstance(engine.prepare(GRAPHS["small"]()), Runner)


def test_wrong_engines(monkeypatch):
    with pytest.raises(UsageError, match="Unknown engine 'abacus'"):
        engine.prepare(GRAPHS["small"](), "abacus")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        engine.prepare(GRAPHS["small"](), engine.ONNXRUNTIME)
