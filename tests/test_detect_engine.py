"""The engine that a network runs in, the ONNX model it is given, and working on several things at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from helpers_graph import other_layers, small_network
from mirilla.detect import engine
from mirilla.errors import MissingExtraError, UsageError
from mirilla.graph import reader
from mirilla.graph.reference import Runner
from mirilla.parallel import in_order
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


def test_a_real_models_outputs_are_the_references(shared):
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


def test_numpy_is_the_reference_itself():
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


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_little_is_taken_ahead(threads):
    taken = []

    def things():
        for i in range(50):
            taken.append(i)
            yield i

    results = in_order(lambda i: i * i, things(), threads)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 2 * threads + 3
    assert list(results) == [i * i for i in range(3, 50)]
    assert list(in_order(str, [], threads)) == []
    assert list(in_order(str, [1], threads)) == ["1"]


def test_an_error_comes_out_at_its_place():
    def work(i):
        if i == 2:
            raise ValueError("two")
        return i

    results = in_order(work, range(10), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_several_threads_work():
    barrier = threading.Barrier(2, timeout=20)  # passes only when two work at once
    assert list(in_order(lambda i: barrier.wait() >= 0, range(4), 2)) == [True] * 4
