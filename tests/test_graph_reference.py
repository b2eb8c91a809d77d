"""Numpy execution of deploy graphs: TensorFlow's goldens, hand-worked windows, and TensorFlow itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_graph import other_layers, small_network
from mirilla.errors import ModelError
from mirilla.graph import numpy_ops, reader
from mirilla.graph.reference import Runner, run
from mirilla.padding import SAME, VALID, output_side, same_padding


@pytest.mark.parametrize("tag", ["batch8", "other_480x640", "other_411x233"])
def test_outputs_equal_tensorflows_goldens(shared, tag):
    graph = reader.load(shared / "data/odapi/frozen_inference_graph_b24.pb")
    golden = np.load(shared / "data/odapi/infer_b24.npz")
    found = run(graph, golden[f"{tag}|Preprocessor.sub"])
    for name in ("concat", "concat_1"):
        expected = golden[f"{tag}|{name}"]
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)


def test_every_activation_equals_tensorflows_golden(shared):
    graph = reader.load(shared / "data/odapi/frozen_inference_graph_b24.pb")
    image = np.load(shared / "data/odapi/infer_b24.npz")["batch8|Preprocessor.sub"][1]
    golden = np.load(shared / "data/odapi/infer_b24_activations_img1.npz")
    tensors = Runner(graph).activations(image)
    compared = 0
    for name in golden.files:
        key = name.replace(".", "/").removesuffix("/0").removesuffix(":0")
        expected = golden[name].reshape(tensors[key].shape)
        np.testing.assert_allclose(tensors[key], expected, rtol=0, atol=2e-5, err_msg=key)
        compared += 1
    assert compared == 33


def test_a_batch_equals_single_images():
    runner = Runner(reader.read(small_network().graph_def))
    images = np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    together = runner(images)
    for index, image in enumerate(images):
        for name, array in runner(image).items():
            np.testing.assert_array_equal(array[0], together[name][index])


def test_wrong_shape_of_pictures_is_refused():
    runner = Runner(reader.read(small_network().graph_def))
    with pytest.raises(ModelError, match=r"\(64, 64, 3\)"):
        runner(np.zeros((1, 32, 32, 3), np.float32))


def test_same_padding_at_stride_two_adds_after_only():
    assert same_padding(256, 3, 2) == (0, 1)
    assert same_padding(5, 3, 2) == (1, 1)
    assert same_padding(2, 2, 2) == (0, 0)
    assert output_side(5, 3, 2, SAME) == 3
    assert output_side(5, 3, 2, VALID) == 2


def test_convolution_by_hand():
    # 4x4 map 0..15, 3x3 ones, stride 2, SAME: windows start at (0,0),(0,2),(2,0),(2,2), zeros after
    x = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    out = numpy_ops.conv((4, 4, 1), np.ones((3, 3, 1, 1), np.float32), np.array([100], np.float32), (2, 2), SAME)(x)
    assert out[:, :, 0].tolist() == [[145, 139], [166, 150]]


def test_depthwise_multiplier_orders_channels_as_tensorflow():
    x = np.array([[[1, 10]]], np.float32)
    weights = np.array([[[[1, 2], [3, 4]]]], np.float32)  # channel 0: x1, x2; channel 1: x3, x4
    assert numpy_ops.depthwise((1, 1, 2), weights, None, (1, 1), SAME)(x).tolist() == [[[1, 2, 30, 40]]]


def test_average_pool_excludes_padding():
    x = np.array([[1, 2], [3, 4]], np.float32).reshape(2, 2, 1)
    average = numpy_ops.pool((2, 2, 1), (2, 2), (1, 1), SAME, "average")(x)[:, :, 0]
    assert average.tolist() == [[2.5, 3], [3.5, 4]]
    assert numpy_ops.pool((2, 2, 1), (2, 2), (1, 1), SAME, "max")(-x)[:, :, 0].tolist() == [[-1, -2], [-3, -4]]


def _naive(x: np.ndarray, weights: np.ndarray, stride: int, padding: str) -> np.ndarray:
    """Convolution window by window, weights [kh, kw, in, out]."""
    kh, kw, _, c_out = weights.shape
    pads = [
        same_padding(side, k, stride) if padding == SAME else (0, 0) for side, k in zip(x.shape, (kh, kw), strict=False)
    ]
    x = np.pad(x, [*pads, (0, 0)])
    rows, columns = (x.shape[0] - kh) // stride + 1, (x.shape[1] - kw) // stride + 1
    out = np.zeros((rows, columns, c_out))
    for i in range(rows):
        for j in range(columns):
            window = x[i * stride : i * stride + kh, j * stride : j * stride + kw]
            out[i, j] = np.einsum("abc,abco->o", window.astype(np.float64), weights.astype(np.float64))
    return out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    channels=st.integers(1, 4),
    kh=st.integers(1, 5),
    kw=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.sampled_from([SAME, VALID]),
    seed=st.integers(0, 99),
)
def test_convolutions_equal_the_window_by_window_sum(rows, columns, channels, kh, kw, stride, padding, seed):
    if padding == VALID and (kh > rows or kw > columns):
        return
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, columns, channels)).astype(np.float32)
    weights = random.normal(size=(kh, kw, channels, 3)).astype(np.float32)
    found = numpy_ops.conv(x.shape, weights, None, (stride, stride), padding)(x)
    np.testing.assert_allclose(found, _naive(x, weights, stride, padding), rtol=0, atol=1e-4)
    per_channel = random.normal(size=(kh, kw, channels, 1)).astype(np.float32)
    found = numpy_ops.depthwise(x.shape, per_channel, None, (stride, stride), padding)(x)
    diagonal = per_channel * np.eye(channels, dtype=np.float32)
    np.testing.assert_allclose(found, _naive(x, diagonal, stride, padding), rtol=0, atol=1e-4)


# ---- TensorFlow as the outside oracle


def tensorflow_run(graph_def, source: str, outputs, images: np.ndarray) -> list[np.ndarray]:
    """Run a GraphDef in TensorFlow."""
    tf = pytest.importorskip("tensorflow").compat.v1
    message = tf.GraphDef()
    message.ParseFromString(graph_def.SerializeToString())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(message, name="")
        with tf.Session(graph=graph) as session:
            return session.run([f"{name}:0" for name in outputs], {f"{source}:0": images})


@pytest.mark.tensorflow
def test_pair_graph_equals_tensorflow(shared):
    from mirilla.graph import read_graph_def

    graph_def = read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    graph = reader.read(graph_def)
    images = np.random.RandomState(0).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)
    expected = tensorflow_run(graph_def, graph.input, graph.outputs, images)
    for (name, found), golden in zip(run(graph, images).items(), expected, strict=True):
        np.testing.assert_allclose(found, golden, rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.tensorflow
@pytest.mark.parametrize("form", ["FusedBatchNorm", "FusedBatchNormV3", "unfused"])
def test_small_network_equals_tensorflow(form):
    graph_def = small_network(form).graph_def
    for node in graph_def.node:
        if node.op == "FusedBatchNormV3":
            node.attr["U"].type = 1
    graph = reader.read(graph_def)
    images = np.random.default_rng(2).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    expected = tensorflow_run(graph_def, "input", graph.outputs, images)
    for (name, found), golden in zip(run(graph, images).items(), expected, strict=True):
        np.testing.assert_allclose(found, golden, rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.tensorflow
def test_other_layers_equal_tensorflow():
    graph = other_layers()
    outputs = ("softmax", "sigmoid")
    images = np.random.default_rng(2).uniform(-1, 1, (2, 20, 20, 3)).astype(np.float32)
    expected = tensorflow_run(graph.graph_def, "input", outputs, images)
    found = run(reader.read(graph.graph_def, "input", outputs), images)
    for name, golden in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], golden, rtol=0, atol=1e-5, err_msg=name)
