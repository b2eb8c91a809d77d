"""The interpreter: against results computed by hand, other implementations, and on Google's own files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_bonnet_run import (
    concat,
    constant,
    conv,
    depthwise,
    kernel,
    model,
    pixels_model,
    reshape,
    softmax,
)
from mirilla.bonnet import format
from mirilla.bonnet.format import Kernel, Op, Plan
from mirilla.bonnet.run import CompiledModel, Limits, normalise
from mirilla.errors import MirillaError, ModelError

GOLDEN = "pikachu2_detector.binaryproto"
BOXES, LOGITS = 0.0125, 0.025  # largest differences on the golden pair; sums differ between processors


@pytest.fixture(scope="module")
def bonnet(shared: Path) -> Path:
    folder = shared / "data" / "bonnet"
    if not folder.is_dir():
        pytest.skip("../shared/data/bonnet is missing")
    return folder


def noise(side: int = 256) -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)


def run(network: format.Model, x: object) -> dict[str, np.ndarray]:
    compiled, pictures = CompiledModel(network), np.array(x, np.float32)
    compiled.input_channels = pictures.shape[3]  # the file only contains it if the first op is a convolution
    return compiled.run(pictures)


# Computed by hand


def test_conv_by_hand():
    # out = 2 a - b + 0.5 and out = 3 b - 1, on a picture of two pixels with two channels
    ops = [conv("y", "x", kernel(1))]
    constants = [constant("y_w", [[[[2, -1]]], [[[0, 3]]]]), constant("y_b", [0.5, -1])]
    out = run(model(ops, constants), [[[[1, 2], [3, 4]]]])
    np.testing.assert_array_equal(out["y"], [[[[0.5, 5], [2.5, 11]]]])


def test_conv_stride_2_same_pads_after():
    # TensorFlow's rule: 3x3 with stride 2 on an even side pads 0 before and 1 after
    weights = np.zeros((1, 3, 3, 1))
    weights[0, :, :, 0] = [[1, 10, 100], [0, 0, 0], [0, 0, 1000]]
    constants = [constant("y_w", weights), constant("y_b", [0])]
    picture = np.arange(1, 17).reshape(1, 4, 4, 1)
    out = run(model([conv("y", "x", kernel(3, 2))], constants), picture)
    # window at (0, 0): 1 + 20 + 300 + 1000 * 11; at (0, 2): 3 + 40, and the rest is padding
    np.testing.assert_array_equal(out["y"][0, :, :, 0], [[11321, 43], [9 + 100 + 1100, 11 + 120]])


def test_relu6_fused_and_alone():
    constants = [constant("y_w", [[[[1]]]]), constant("y_b", [1])]
    picture = [[[[-3], [2], [9]]]]
    fused = run(model([conv("y", "x", kernel(1), relu6=True)], constants), picture)["y"]
    two_ops = [conv("y", "x", kernel(1)), Op("Relu6", ("y",), "z", plan=Plan(in_place=1))]
    alone = run(model(two_ops, constants), picture)["z"]
    np.testing.assert_array_equal(fused.ravel(), [0, 3, 6])
    np.testing.assert_array_equal(alone, fused)


def test_depthwise_keeps_channels_apart():
    weights = np.zeros((1, 3, 3, 2))
    weights[0, 1, 1] = 1, 10
    weights[0, 1, 2] = 100, 0  # the right neighbour, for channel 0 only
    constants = [constant("y_w", weights), constant("y_b", [0, 5])]
    out = run(model([depthwise("y", "x", kernel(3))], constants), np.arange(18).reshape(1, 3, 3, 2))["y"][0]
    np.testing.assert_array_equal(out[1, :, 0], [6 + 800, 8 + 1000, 10])
    np.testing.assert_array_equal(out[1, :, 1], [75, 95, 115])


def test_average_pool_does_not_count_padding():
    picture = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    valid = Op("AveragePool", ("x",), "y", kernel=kernel(2, 2, same=False))
    same = Op("AveragePool", ("x",), "y", kernel=kernel(2, 2))
    np.testing.assert_array_equal(run(model([valid]), picture)["y"].ravel(), [3])
    np.testing.assert_array_equal(run(model([same]), picture)["y"].ravel(), [3, 4.5, 7.5, 9])


def test_gemm_softmax():
    weights = np.array([[1, 2], [3, 4], [0, 0]]).reshape(3, 2, 1, 1)
    constants = [constant("w", weights), constant("b", [0, 0, 1])]
    ops = [Op("Gemm", ("x", "w", "b"), "y"), reshape("r", "y", 1, 1, 3), softmax("s", "r")]
    out = run(model(ops, constants, ("y", "s")), [[[[1, -1]]]])
    np.testing.assert_array_equal(out["y"].ravel(), [-1, -1, 1])
    powers = np.exp([-1, -1, 1])
    np.testing.assert_allclose(out["s"].ravel(), powers / powers.sum(), rtol=1e-6)


def test_reshape_is_row_major_and_concat_follows_its_axis():
    ops = [
        reshape("r", "x", 1, 2, 6),
        concat("d", ("r", "r"), 3),
        concat("c", ("r", "r"), 2),
        concat("b", ("r", "r"), 1),
    ]
    out = run(model(ops, outputs=("r", "d", "c", "b")), np.arange(12).reshape(1, 2, 2, 3))
    np.testing.assert_array_equal(out["r"].ravel(), np.arange(12))
    assert [out[name].shape for name in "dcb"] == [(1, 1, 2, 12), (1, 1, 4, 6), (1, 2, 2, 6)]
    np.testing.assert_array_equal(out["d"][0, 0, 1], [*range(6, 12), *range(6, 12)])


def test_border_is_added_and_cropped():
    ops = [Op("PadMyriad", ("x",), "p"), Op("ReorderBdrcToBrcdMyriad", ("p",), "c", kernel=Kernel(1))]
    picture = np.arange(12).reshape(1, 2, 2, 3)
    out = run(model(ops, outputs=("p", "c")), picture)
    assert out["p"].shape == (1, 6, 6, 3)
    assert out["p"].sum() == picture.sum()
    np.testing.assert_array_equal(out["c"], picture)


# Against plain loops


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_convolutions_match_loops(rows, columns, channels, depth, side, stride, same, per_channel, seed):
    side = min(side, rows, columns)
    random = np.random.default_rng(seed)
    picture = random.normal(size=(rows, columns, channels)).astype(np.float32)
    shape = (1, side, side, channels) if per_channel else (depth, side, side, channels)
    weights = random.normal(size=shape).astype(np.float16)
    bias = random.normal(size=channels if per_channel else depth).astype(np.float16)
    window = kernel(side, stride, same)
    ops = [depthwise("y", "x", window) if per_channel else conv("y", "x", window)]
    out = run(model(ops, [constant("y_w", weights), constant("y_b", bias)]), picture[None])["y"][0]

    def span(size: int) -> tuple[int, int]:
        if not same:
            return (size - side) // stride + 1, 0
        count = -(-size // stride)
        return count, max((count - 1) * stride + side - size, 0) // 2

    (out_rows, top), (out_columns, left) = span(rows), span(columns)
    expected = np.tile(bias.astype(np.float64), (out_rows, out_columns, 1))
    for i, j, di, dj in np.ndindex(out_rows, out_columns, side, side):
        y, x = i * stride + di - top, j * stride + dj - left
        if 0 <= y < rows and 0 <= x < columns:
            if per_channel:
                expected[i, j] += weights[0, di, dj].astype(np.float64) * picture[y, x]
            else:
                expected[i, j] += weights[:, di, dj].astype(np.float64) @ picture[y, x]
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_planar_depthwise_equals_the_interleaved_kernel():
    random = np.random.default_rng(3)
    constants = [constant("d_w", random.normal(size=(1, 3, 3, 4))), constant("d_b", random.normal(size=4))]
    picture = random.normal(size=(1, 6, 5, 4)).astype(np.float32)
    plain = run(model([depthwise("d", "x", kernel(3))], constants), picture)["d"]
    reorder = Op("ReorderBrcdToBdrcMyriad", ("x",), "p", plan=Plan(post=3))
    for first in (Op("PadMyriad", ("x",), "p"), reorder):
        ops = [
            first,
            depthwise("d", "p", kernel(3), "q", planar=True),
            Op("ReorderBdrcToBrcdMyriad", ("q",), "y", kernel=Kernel(1)),
        ]
        np.testing.assert_allclose(run(model(ops, constants), picture)["y"], plain, atol=1e-6)


# Google's files


def test_golden_pair_against_the_original_graph_in_numpy(bonnet: Path):
    from mirilla.graph import reader, reference

    graph = reader.load(bonnet / "PCK_frozen_inference_graph.pb")
    expected = reference.Runner(graph)(noise())
    for half in (False, True):
        found = CompiledModel.load(bonnet / GOLDEN, fp16_activations=half).run(noise())
        boxes = np.abs(found["concat"].ravel() - expected["concat"].ravel()).max()
        logits = np.abs(found["concat_1"].ravel() - expected["concat_1"].ravel()).max()
        assert 0 < boxes < BOXES
        assert 0 < logits < LOGITS


@pytest.mark.tensorflow
@pytest.mark.parametrize("half", [False, True])
def test_golden_pair_against_tensorflow(bonnet: Path, half: bool):
    tf = pytest.importorskip("tensorflow")
    graph_def = tf.compat.v1.GraphDef.FromString((bonnet / "PCK_frozen_inference_graph.pb").read_bytes())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        boxes, logits = session.run(["concat:0", "concat_1:0"], {"Preprocessor/sub:0": noise()})
    found = CompiledModel.load(bonnet / GOLDEN, fp16_activations=half).run(noise())
    assert np.abs(found["concat"].ravel() - boxes.ravel()).max() < BOXES
    assert np.abs(found["concat_1"].ravel() - logits.ravel()).max() < LOGITS


@pytest.mark.parametrize(
    ("name", "side", "shapes"),
    [
        ("pikachu2_detector", 256, {"concat": (1278, 1, 4), "concat_1": (1, 1278, 2)}),
        ("card_detector", 256, {"concat": (1278, 1, 4), "concat_1": (1, 1278, 4)}),
        ("rps_160", 160, {"final_result": (1, 1, 3)}),
        ("rover_224", 224, {"final_result": (1, 1, 5)}),
    ],
)
def test_every_file_runs(bonnet: Path, name: str, side: int, shapes: dict):
    compiled = CompiledModel.load(bonnet / f"{name}.binaryproto")
    assert compiled.input_size == (side, side)
    assert compiled.input_channels == 3
    out = compiled.run(noise(side))
    assert {key: value.shape[1:] for key, value in out.items()} == shapes
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in out.values())
    if "final_result" in out:
        assert out["final_result"].sum() == pytest.approx(1, abs=1e-5)


def test_fp16_activations_are_fp16_numbers(bonnet: Path):
    out = CompiledModel.load(bonnet / GOLDEN, fp16_activations=True).run(noise())
    for value in out.values():
        np.testing.assert_array_equal(value, value.astype(np.float16).astype(np.float32))


def test_batches_and_threads_give_the_same_results(bonnet: Path):
    compiled = CompiledModel.load(bonnet / GOLDEN)
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, 256, 256, 3)).astype(np.float32)
    together = compiled.run(pictures)
    with ThreadPoolExecutor(3) as pool:
        apart = list(pool.map(lambda picture: compiled.run(picture[None]), pictures))
    for name, value in together.items():
        np.testing.assert_array_equal(value, np.concatenate([outputs[name] for outputs in apart]))


def test_run_image_normalises_and_resizes(bonnet: Path):
    compiled = CompiledModel.load(bonnet / GOLDEN)
    rgb = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    direct = compiled.run(((rgb.astype(np.float32) - 128) / 128)[None])["concat"]
    np.testing.assert_array_equal(compiled.run_image(rgb, 128, 128)["concat"], direct)
    twice = np.repeat(np.repeat(rgb, 2, 0), 2, 1)  # every second pixel gives the same picture
    np.testing.assert_array_equal(compiled.run_image(twice, 128, 128)["concat"], direct)


def test_normalise():
    np.testing.assert_array_equal(normalise(np.array([0, 128, 255], np.uint8), 128, 128), [-1, 0, 127 / 128])


# Errors


def refused(network: format.Model, shape: tuple[int, ...] = (1, 4, 4, 3), limits: Limits | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        CompiledModel(network, limits=limits).run(np.zeros(shape, np.float32))
    return str(caught.value)


@pytest.mark.parametrize(
    ("ops", "constants", "expected"),
    [
        ([Op("Tile", ("x",), "y")], [], "unknown type"),
        ([conv("y", "x", kernel(5))], [constant("y_w", np.zeros((1, 5, 5, 3))), constant("y_b", [0])], "exceeds"),
        ([conv("y", "x", kernel(1))], [constant("y_w", np.zeros((2, 1, 1, 3))), constant("y_b", [0])], "bias"),
        ([conv("y", "x", kernel(3))], [constant("y_w", np.zeros((1, 1, 1, 3))), constant("y_b", [0])], "weights"),
        (
            [conv("y", "x", Kernel(1, 3, 1, 1))],
            [constant("y_w", np.zeros((1, 1, 1, 3))), constant("y_b", [0])],
            "padding 3",
        ),
        ([reshape("y", "x", 1, 1, 47)], [], "cannot become"),
        ([concat("y", ("x", "x"), 0)], [], "axis"),
        ([Op("ReorderBdrcToBrcdMyriad", ("x",), "y", kernel=Kernel(1))], [], "border"),
        (
            [replace(depthwise("y", "x", kernel(3, 2)), plan=Plan(planar=1))],
            [constant("y_w", np.zeros((1, 3, 3, 3))), constant("y_b", [0, 0, 0])],
            "planar",
        ),
    ],
)
def test_invalid_ops_are_named(ops, constants, expected):
    message = refused(model(ops, constants))
    assert expected in message
    assert "op 0" in message
    assert "Remedy" in message


def test_wrong_input_shapes():
    for shape in ((4, 4, 3), (1, 4, 4, 1), (0, 4, 4, 3)):
        assert str(shape) in refused(pixels_model(), shape)


def test_limits():
    ops = [Op("Relu6", ("x",), "a"), Op("Relu6", ("x",), "b"), concat("y", ("a", "b"), 3)]
    CompiledModel(model(ops), limits=Limits(96, 192, 192)).run(np.zeros((1, 4, 4, 3)))
    for limits in (Limits(95, 192, 192), Limits(96, 191, 192), Limits(96, 192, 191)):
        assert "At most" in refused(model(ops), limits=limits)


def test_size_unknown_without_a_plan():
    compiled = CompiledModel(pixels_model())
    assert compiled.input_size is None
    with pytest.raises(ModelError, match="input_size"):
        compiled.run_image(np.zeros((8, 8, 3), np.uint8))
    given_size = CompiledModel(pixels_model(), input_size=(8, 8))
    assert given_size.run_image(np.full((8, 8, 3), 255, np.uint8))["grid"].max() == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_raise_only_our_errors(data):
    content = bytearray(format.serialise(_mixed_model()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    limits = Limits(1 << 16, 1 << 17, 1 << 20)
    try:
        compiled = CompiledModel.parse(bytes(content), limits=limits)
        with np.errstate(all="ignore"):
            compiled.run(np.zeros((1, 8, 8, compiled.input_channels), np.float32))
    except MirillaError:
        pass


def _mixed_model() -> format.Model:
    ops = [
        conv("c", "x", kernel(3, 2), relu6=True),
        depthwise("d", "c", kernel(3)),
        Op("AveragePool", ("d",), "a", kernel=kernel(2, 2, same=False), plan=Plan()),
        reshape("r", "a", 1, 4, 2),
        concat("y", ("r", "r"), 2),
        softmax("s", "y"),
    ]
    constants = [
        constant("c_w", np.ones((2, 3, 3, 3))),
        constant("c_b", [0, 0]),
        constant("d_w", np.ones((1, 3, 3, 2))),
        constant("d_b", [0, 0]),
    ]
    return model(ops, constants)
