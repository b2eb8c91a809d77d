"""Reading and writing GraphDefs, and their constants as arrays."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_graph import small_network
from mirilla.errors import MirillaError, ModelError
from mirilla.graph import read_graph_def, write_graph_def
from mirilla.protos import tensorflow_pb2
from mirilla.protos.graphdef import constant_array, parse_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef


def test_written_graph_is_read_back(tmp_path):
    graph_def = small_network().graph_def
    write_graph_def(tmp_path / "graph.pb", graph_def)
    assert read_graph_def(tmp_path / "graph.pb") == graph_def


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\xff" * 100, "not a binary GraphDef"),
        (b'node {\n  name: "x"\n}', "text form"),
        (b"versions {\n}", "text form"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04" + b"\xff" * 60, "a ZIP archive"),
        (GraphDef().SerializeToString() + b"\x22\x00", "without nodes"),
    ],
)
def test_other_files_are_refused_with_a_remedy(content, word):
    with pytest.raises(ModelError, match=word) as caught:
        parse_graph_def(content)
    assert caught.value.remedy


@pytest.mark.parametrize(("name", "what"), [("m.keras", "a Keras model"), ("m.pt", "a PyTorch"), ("m.onnx", "an ONNX")])
def test_other_models_are_named(name, what):
    with pytest.raises(ModelError, match=f"{name}: {what}.*, not a frozen graph"):
        parse_graph_def(b"\xff" * 100, name)


def test_cut_file_is_refused():
    content = small_network().graph_def.SerializeToString()
    with pytest.raises(ModelError):
        parse_graph_def(content[: len(content) // 2])


def test_nodes_of_one_name_are_refused():
    graph_def = GraphDef()
    graph_def.node.add(op="NoOp", name="a")
    graph_def.node.add(op="NoOp", name="a")
    with pytest.raises(ModelError, match="two nodes are named 'a'"):
        parse_graph_def(graph_def.SerializeToString())


def test_missing_file_is_explained(tmp_path):
    with pytest.raises(MirillaError, match="No such file"):
        read_graph_def(tmp_path / "none.pb")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(content):
    with contextlib.suppress(ModelError):
        assert parse_graph_def(content).node


def _const(dtype: int, shape: list[int], **fields) -> NodeDef:
    node = NodeDef(name="c", op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    for side in shape:
        tensor.tensor_shape.dim.add(size=side)
    for key, value in fields.items():
        if key == "tensor_content":
            tensor.tensor_content = value
        else:
            getattr(tensor, key).extend(value)
    return node


def test_constants_in_every_form():
    content = np.array([1, 2, 3], "<f4").tobytes()
    assert constant_array(_const(tensorflow_pb2.DT_FLOAT, [3], tensor_content=content)).tolist() == [1, 2, 3]
    assert constant_array(_const(tensorflow_pb2.DT_FLOAT, [4], float_val=[1.5, 2])).tolist() == [1.5, 2, 2, 2]
    assert constant_array(_const(tensorflow_pb2.DT_INT32, [], int_val=[7])).tolist() == 7
    assert constant_array(_const(tensorflow_pb2.DT_INT32, [2, 2])).tolist() == [[0, 0], [0, 0]]
    half = constant_array(_const(tensorflow_pb2.DT_HALF, [1], half_val=[0x3C00]))
    assert half.dtype == np.float16
    assert half.tolist() == [1.0]


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (_const(tensorflow_pb2.DT_FLOAT, [3], tensor_content=b"1234"), "4 bytes"),
        (_const(tensorflow_pb2.DT_FLOAT, [1], float_val=[1, 2]), "2 values for 1"),
        (_const(tensorflow_pb2.DT_FLOAT, [1 << 40]), "elements"),
        (_const(tensorflow_pb2.DT_FLOAT, [-1]), "no fixed shape"),
        (_const(tensorflow_pb2.DT_STRING, [1]), "DT_STRING"),
    ],
)
def test_broken_constants_are_refused(node, word):
    with pytest.raises(ModelError, match=word):
        constant_array(node)
