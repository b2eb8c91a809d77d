"""Box and class predictor of a map as one convolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_graph import other_layers, small_network
from mirilla.graph import deploy, predictors, reader
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reference import Runner


def changed(graph: DeployGraph, name: str, **what) -> DeployGraph:
    return replace(graph, layers=tuple(replace(one, **what) if one.name == name else one for one in graph))


def compare(graph: DeployGraph) -> DeployGraph:
    """The merged graph, whose columns are the graph's outputs."""
    merged = predictors.merge(graph)
    assert merged is not None
    images = np.random.default_rng(0).uniform(-1, 1, (2, *graph.input_shape)).astype(np.float32)
    expected, found = Runner(graph)(images), Runner(merged.graph)(images)
    assert list(merged.columns) == list(graph.outputs)
    (together,) = found.values()
    for name, columns in merged.columns.items():
        np.testing.assert_allclose(together[..., columns].reshape(expected[name].shape), expected[name], atol=1e-5)
    return merged.graph


def test_columns_are_the_outputs():
    graph = reader.read(small_network().graph_def)
    merged = compare(graph)
    kinds = [[layer.op for layer in one] for one in (graph, merged)]
    assert [one.count("conv") for one in kinds] == [7, 5]  # two maps with two predictors each
    assert [one.count("reshape") for one in kinds] == [4, 2]
    assert [one.count("concat") for one in kinds] == [2, 1]
    assert merged.output_shapes == ((2 * 16**2 + 2 * 8**2, 6),)


def test_a_predictor_without_bias_adds_nothing():
    graph = reader.read(small_network().graph_def)
    compare(changed(graph, "box_0/BiasAdd", bias=None))


def test_a_real_models_predictors_are_merged(shared):
    merged = compare(reader.load(shared / "data/odapi/frozen_inference_graph_b24.pb"))
    assert merged.output_shapes[0][1] == 4 + 2


@pytest.mark.parametrize(
    "other",
    [
        lambda graph: changed(graph, "box_0/BiasAdd", activation=deploy.RELU),  # the class predictor has none
        lambda graph: replace(graph, outputs=(*graph.outputs, "box_0/BiasAdd"),
                              output_shapes=(*graph.output_shapes, graph.layer("box_0/BiasAdd").shape)),
        lambda graph: changed(graph, "concat", inputs=graph.layer("concat").inputs[::-1]),  # maps in another order
        lambda graph: reader.read(other_layers().graph_def, "input", ("softmax", "sigmoid")),
    ],
    ids=["activation", "a third output", "another order", "no predictors"],
)  # fmt: skip
def test_what_is_made_otherwise_stays(other):
    assert predictors.merge(other(reader.read(small_network().graph_def))) is None
