"""A MobileNet's first layers on their own kernel: the values of the layers one by one, at any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_graph import Graph, other_layers, small_network
from mirilla.detect import engine
from mirilla.graph import deploy, reader
from mirilla.graph import first_layers as start
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reference import Runner


def network(rows: int, columns: int, channels: tuple[int, int, int] = (3, 16, 16)) -> DeployGraph:
    """The four layers and one more."""
    graph = Graph(rows)
    source = graph.placeholder("input", (-1, rows, columns, channels[0]))
    x = graph.block("a", source, (3, 3, *channels[:2]), 2)
    x = graph.depthwise_block("b", x, channels[1])
    x = graph.block("c", x, (1, 1, *channels[1:]))
    x = graph.depthwise_block("d", x, channels[2], 2)
    graph.block("e", x, (1, 1, channels[2], 8))
    return reader.read(graph.graph_def, "input", ("e/Relu6",))


def images(graph: DeployGraph, count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, *graph.input_shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "columns", "channels"),
    [
        (64, 64, (3, 16, 16)),
        (96, 80, (3, 32, 48)),  # several sixteens of channels
        (33, 47, (3, 16, 32)),  # odd sizes: padding on both sides, blocks of eight that are not full
        (35, 34, (1, 16, 16)),
        (5, 7, (3, 16, 16)),  # every window looks beyond the picture
        (1, 1, (3, 16, 16)),
    ],
)
def test_the_kernel_computes_the_first_four_layers(rows, columns, channels):
    pytest.importorskip("numba")
    from mirilla.kernels import first_layers as start_kernel

    graph = network(rows, columns, channels)
    parts = start.split(graph)
    assert parts is not None
    image = images(graph)[0]
    expected = Runner(graph).activations(image)[parts.rest.input]
    assert 0 < (expected > 0).mean() < 1
    made = np.full(parts.shape, np.nan, np.float32)
    start_kernel.run(np.ascontiguousarray(image.transpose(2, 0, 1)), *parts.arguments, made)
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-5)


def test_the_rest_goes_on_from_there():
    graph = reader.read(small_network().graph_def)
    parts = start.split(graph)
    assert parts is not None
    image = images(graph)[0]
    tensors = Runner(graph).activations(image)
    rest = Runner(parts.rest)(tensors[parts.rest.input])
    for name in graph.outputs:
        np.testing.assert_array_equal(rest[name][0], tensors[name].reshape(rest[name].shape[1:]))


def changed(index: int, **what) -> DeployGraph:
    graph = network(64, 64)
    layers = list(graph.layers)
    layers[index] = replace(layers[index], **what)
    return replace(graph, layers=tuple(layers))


@pytest.mark.parametrize(
    "graph",
    [
        changed(0, activation=deploy.RELU),
        changed(0, padding=deploy.VALID),
        changed(1, strides=(2, 2)),
        changed(2, inputs=("a/Relu6",)),
        network(64, 64, (3, 16, 24)),
        replace(network(64, 64), outputs=("b/Relu6",), output_shapes=((32, 32, 16),)),
        reader.read(other_layers().graph_def, "input", ("softmax", "sigmoid")),
    ],
    ids=["relu", "valid", "stride", "order", "channels", "an output between", "other layers"],
)
def test_what_begins_otherwise_stays_whole(graph):
    assert start.split(graph) is None


def test_onnxruntime_starts_on_the_kernel_only_where_its_bits_are_the_same(monkeypatch):
    pytest.importorskip("onnxruntime")
    kernel = pytest.importorskip("mirilla.kernels.first_layers").run
    monkeypatch.setattr(engine, "_seconds", lambda run, planes: float(run.__name__ != "run"))  # ours is faster
    graph = reader.read(small_network().graph_def)
    planes = np.ascontiguousarray(images(graph).transpose(0, 3, 1, 2))
    asked = []

    def another_sum(*arguments):
        asked.append(1)
        kernel(*arguments)
        arguments[-1][0, 0, 0] += 1

    results = []
    for function in (None, another_sum, kernel):
        monkeypatch.setattr(engine._START, "get", lambda function=function: function)
        run = engine._Network(graph)
        results.append([*run(planes), *run(planes)])
        if function is another_sum:
            assert len(asked) == 1
    for found in results[1:]:
        for one, other in zip(results[0], found, strict=True):
            np.testing.assert_array_equal(one, other)
