"""The frozen graph against the original's: in numpy, in OpenCV and (marked) in TensorFlow itself."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mirilla.errors import ConfigError, ModelError, UsageError
from mirilla.labels import LabelMap
from mirilla.model.card import ModelCard
from mirilla.model.layers import architecture
from mirilla.model.spec import AnchorSpec, ModelSpec, PostProcessing
from mirilla.protos.tensorflow_pb2 import Example
from mirilla.targets import frozen_graph
from mirilla.targets.foreign import evaluate_anchors
from mirilla.targets.plain_graph import plain
from mirilla.targets.preprocessor_graph import ENCODED, EXAMPLE, INPUT_TYPES, PIXELS, input_type

# what TensorFlow 1.4's op registry lists for the ops of the region that other tools read
ATTRIBUTES_OF_1_4 = {
    "Const": {"dtype", "value"},
    "Identity": {"T"},
    "Conv2D": {"T", "strides", "padding", "data_format", "use_cudnn_on_gpu"},
    "DepthwiseConv2dNative": {"T", "strides", "padding", "data_format"},
    "FusedBatchNorm": {"T", "epsilon", "data_format", "is_training"},
    "Relu6": {"T"},
    "BiasAdd": {"T", "data_format"},
    "Shape": {"T", "out_type"},
    "StridedSlice": {
        "T",
        "Index",
        "begin_mask",
        "end_mask",
        "ellipsis_mask",
        "new_axis_mask",
        "shrink_axis_mask",
    },
    "Pack": {"T", "N", "axis"},
    "Reshape": {"T", "Tshape"},
    "ConcatV2": {"T", "N", "Tidx"},
}
OPS_OF_1_4 = {*ATTRIBUTES_OF_1_4} | {
    "Placeholder",
    "Cast",
    "Mul",
    "Sub",
    "Add",
    "RealDiv",
    "Minimum",
    "Maximum",
    "Round",
    "Greater",
    "GreaterEqual",
    "Less",
    "LogicalAnd",
    "Select",
    "Where",
    "Exp",
    "Sigmoid",
    "Softmax",
    "ZerosLike",
    "Size",
    "Gather",
    "Slice",
    "Pad",
    "Tile",
    "Transpose",
    "Unpack",
    "ExpandDims",
    "Squeeze",
    "Range",
    "TopKV2",
    "NonMaxSuppressionV2",
    "ResizeBilinear",
    "Enter",
    "Exit",
    "Merge",
    "Switch",
    "NextIteration",
    "LoopCond",
    "TensorArrayV3",
    "TensorArrayScatterV3",
    "TensorArrayReadV3",
    "TensorArrayWriteV3",
    "TensorArraySizeV3",
    "TensorArrayGatherV3",
}
ADDED_LATER = {"dilations", "explicit_paddings", "U", "exponential_avg_factor"}


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights whose activations neither vanish nor all saturate, so that scores differ."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape, _ in architecture(spec).variables():
        kind = name.rpartition("/")[2]
        if kind == "moving_variance":
            value = random.uniform(0.5, 1.5, shape)
        elif kind == "gamma":
            value = random.uniform(0.8, 1.2, shape)
        elif kind in ("weights", "depthwise_weights"):
            fan_in = np.prod(shape[:2]) * (1 if kind.startswith("depth") else shape[2])
            value = random.normal(0, np.sqrt((4 if "Predictor" in name else 2) / fan_in), shape)
        else:
            value = random.normal(0, 0.3, shape)
        weights[name] = value.astype(np.float32)
    return weights


SMALL = ModelSpec(height_px=64, width_px=64, num_classes=2)
WIDE = ModelSpec(
    feature_extractor="ssd_mobilenet_v1",
    height_px=96,
    width_px=128,
    num_classes=3,
    keep_aspect_ratio=True,
    anchors=AnchorSpec(num_layers=6),
    post_processing=PostProcessing(
        score_threshold=0.2,
        iou_threshold=0.45,
        max_detections_per_class=12,
        max_total_detections=20,
        score_converter="SOFTMAX",
    ),
)


@pytest.fixture(scope="module")
def original(shared):
    return json.loads((shared / "data/odapi/frozen_graph_nodes.json").read_text())


@pytest.fixture(scope="module")
def exported(shared):
    with np.load(shared / "data/odapi/export_ckpt_values.npz") as weights:
        return frozen_graph.build(ModelSpec(), weights)


def older(name: str) -> str:
    return name.replace("FusedBatchNormV3", "FusedBatchNorm")


def test_every_node_from_sub_to_the_concats_equals_the_originals(original, exported):
    ours = {node.name: node for node in exported.node}
    names = [node["name"] for node in original["nodes"]]
    region = [
        n
        for n in original["nodes"]
        if n["name"].startswith(("FeatureExtractor/", "BoxPredictor_")) or n["name"].startswith("concat")
    ]
    assert len(region) == 33 * 13 + 5 * 31 + 4  # layers, predictors, concats
    for node in region:
        our = ours[older(node["name"])]
        assert our.op == older(node["op"])
        assert list(our.input) == [older(name) for name in node["inputs"]]
        assert set(our.attr) == set(node["attrs"]) - ADDED_LATER
        for key in ("epsilon", "axis", "N", "is_training", "shrink_axis_mask", "use_cudnn_on_gpu"):
            if key in our.attr:
                value = our.attr[key]
                assert getattr(value, value.WhichOneof("value")) == pytest.approx(node["attrs"][key])
        for key in ("strides",):
            if key in our.attr:
                assert list(our.attr[key].list.i) == node["attrs"][key]
        for key in ("padding", "data_format"):
            if key in our.attr:
                assert our.attr[key].s.decode() == node["attrs"][key]
    assert names.index("concat") < names.index("concat_1")


def test_other_nodes_differ_only_as_documented(original, exported):
    """Outside the NMS loop and the anchors, the preprocessor and the decoding are the original's too."""
    ours = {node.name: node for node in exported.node}
    own = ("MultipleGridAnchorGenerator/", "Postprocessor/BatchMultiClassNonMaxSuppression/", "Concatenate/")
    theirs = {older(n["name"]): n for n in original["nodes"] if not n["name"].startswith(own)}
    assert {n for n in ours if not n.startswith(own)} == set(theirs)
    renumbered = {"detection_multiclass_scores", "Postprocessor/Cast_4"}  # our loop has fewer outputs
    for name, node in theirs.items():
        assert ours[name].op == {"AddV2": "Add"}.get(node["op"], older(node["op"])), name
        if name not in renumbered:
            assert list(ours[name].input) == [older(name) for name in node["inputs"]], name
    assert ours["Concatenate/concat"].op == "Const"


@pytest.mark.parametrize("spec", [ModelSpec(), SMALL, WIDE], ids=["sample", "two classes", "letterbox, softmax"])
def test_only_ops_and_attributes_that_tensorflow_1_4_knew(spec):
    graph = frozen_graph.build(spec, random_weights(spec))
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {node.op for node in graph.node} <= OPS_OF_1_4
    for node in graph.node:
        assert not set(node.attr) & (ADDED_LATER | {"half_pixel_centers", "Truncate", "_output_shapes"})
        if node.name.startswith(("FeatureExtractor/", "BoxPredictor_", "concat")):
            assert set(node.attr) == ATTRIBUTES_OF_1_4[node.op]
        for reference in node.input:
            assert reference.lstrip("^").split(":")[0] in names


def test_two_builds_give_the_same_bytes():
    weights = random_weights(SMALL)
    first, second = (frozen_graph.build(SMALL, weights).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_anchors_are_evaluated_from_the_originals_nodes(shared, exported):
    from mirilla.graph import read_graph_def

    with np.load(shared / "data/odapi/anchors.npz") as file:
        anchors = file["anchors_normalized"]
    computed = evaluate_anchors(read_graph_def(shared / "data/odapi/frozen_inference_graph_b24.pb"))
    assert computed is not None
    np.testing.assert_array_equal(computed, anchors)
    np.testing.assert_array_equal(evaluate_anchors(exported), anchors)


def nearest_box_distance(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Distance of each box from the nearest expected box (largest edge)."""
    return np.abs(found[:, None] - wanted[None]).max(-1).min(1)


def assert_golden(results, file, tag):
    for name in ("concat", "concat_1"):
        np.testing.assert_allclose(results[name], file[f"{tag}|{name}"], atol=1e-5, rtol=0)
    for name in ("detection_scores", "detection_classes", "num_detections"):
        np.testing.assert_allclose(results[name], file[f"{tag}|{name}"], atol=1e-6, rtol=0)
    for found, wanted in zip(results["detection_boxes"], file[f"{tag}|detection_boxes"], strict=True):
        # scores of this dead model tie to the last bit, so a few boxes swap places or lose to their equals
        assert (nearest_box_distance(found, wanted) < 1e-5).mean() >= 0.95


def pictures(shared):
    with np.load(shared / "data/odapi/images.npz") as file:
        yield "batch8", file["images256"]
        yield "other_480x640", file["other_480x640"][None]
        yield "other_411x233", file["other_411x233"][None]


def test_run_in_numpy_equals_the_originals_outputs(shared, exported):
    with np.load(shared / "data/odapi/infer_b24.npz") as file:
        for tag, images in pictures(shared):
            assert_golden(frozen_graph.run(exported, images), file, tag)


@pytest.mark.parametrize("spec", [SMALL, WIDE], ids=["squash", "letterbox"])
def test_run_in_numpy_equals_the_torch_networks_outputs(spec):
    torch = pytest.importorskip("torch")
    from mirilla import resize
    from mirilla.model.network import SsdNetwork

    weights = random_weights(spec)
    network = SsdNetwork(spec).eval()
    network.set_weights(weights)
    images = np.random.default_rng(5).integers(0, 256, (2, 40, 70, 3), np.uint8)
    pixels = np.stack(
        [resize.to_input(i, spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio)[0] for i in images]
    )
    with torch.no_grad():
        codes, logits = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    results = frozen_graph.run(frozen_graph.build(spec, weights), images)
    np.testing.assert_allclose(results["concat"][:, :, 0], codes.numpy(), atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(results["concat_1"], logits.numpy(), atol=1e-4, rtol=1e-5)


def test_opencv_reads_the_network(shared, exported):
    cv2 = pytest.importorskip("cv2")
    from mirilla import resize

    net = cv2.dnn.readNetFromTensorflow(bytearray(plain(exported, 256, 256).SerializeToString()))
    with np.load(shared / "data/odapi/images.npz") as file:
        pixels, _ = resize.to_input(file["other_411x233"], 256, 256)
    net.setInput(pixels.transpose(2, 0, 1)[None])
    codes, logits = net.forward(["concat", "concat_1"])
    with np.load(shared / "data/odapi/infer_b24.npz") as file:
        np.testing.assert_allclose(codes[:, :, None], file["other_411x233|concat"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(logits, file["other_411x233|concat_1"], atol=1e-5, rtol=0)


def test_plain_refuses_other_graphs():
    graph = frozen_graph.build(SMALL, random_weights(SMALL))
    del graph.node[[node.name for node in graph.node].index("concat_1")]
    with pytest.raises(ModelError, match="concat_1"):
        plain(graph, 64, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("BoxPredictor_0/ClassPredictor/biases"),
            "lack the variable 'BoxPredictor_0/ClassPredictor/bi",
        ),
        (
            lambda w: w.update({"BoxPredictor_0/ClassPredictor/biases": np.zeros(6, np.float32)}),
            r"shape \(6,\).*\(9,\)",
        ),
        (lambda w: w["FeatureExtractor/MobilenetV1/Conv2d_0/weights"].fill(np.nan), "not a finite number"),
    ],
)
def test_wrong_weights_are_refused(change, message):
    weights = random_weights(SMALL)
    change(weights)
    with pytest.raises(ModelError, match=message):
        frozen_graph.build(SMALL, weights)


def test_unknown_score_converter_is_refused():
    spec = replace(SMALL, post_processing=PostProcessing(score_converter="LOGIT"))
    with pytest.raises(ConfigError, match="LOGIT"):
        frozen_graph.check(spec)


def encoded(image, form):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def example(file):
    message = Example()
    message.features.feature["image/encoded"].bytes_list.value.append(file)
    message.features.feature["image/object/class/label"].int64_list.value.extend([1, 2])
    return message.SerializeToString()


@pytest.mark.parametrize("name", INPUT_TYPES)
def test_our_reader_takes_every_input_type(name):
    weights = random_weights(SMALL)
    graph = frozen_graph.build(SMALL, weights, input_type(name))
    assert [node.name for node in graph.node if node.op == "Placeholder"] == [name]
    assert PIXELS in {node.name for node in graph.node}
    assert {node.op for node in graph.node} <= OPS_OF_1_4 | {"DecodeJpeg", "ParseExample"}
    images = [np.full((40, 60, 3), 90, np.uint8)]
    expected = frozen_graph.run(frozen_graph.build(SMALL, weights), images)
    for output, value in frozen_graph.run(graph, images).items():
        np.testing.assert_array_equal(value, expected[output])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("jpeg", None, "Unknown input type 'jpeg'"),
        (EXAMPLE, "1,-1,-1,3", "only image_tensor has a shape"),
        (PIXELS, "a,b", "not a list of numbers"),
        (PIXELS, "1,300,300", "not the shape of a batch"),
        (PIXELS, "1,300,300,4", "not the shape of a batch"),
        (PIXELS, "0,-1,-1,3", "not the shape of a batch"),
    ],
)
def test_wrong_input_types(name, shape, message):
    with pytest.raises(UsageError, match=message):
        input_type(name, shape)


class Session:
    """A graph in TensorFlow."""

    def __init__(self, graph_def):
        tf = pytest.importorskip("tensorflow")
        message = tf.compat.v1.GraphDef()
        message.ParseFromString(graph_def.SerializeToString())
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(message, name="")
        self.session = tf.compat.v1.Session(graph=self.graph)

    def __call__(self, names, feed):
        values = self.session.run([f"{n}:0" for n in names], {f"{k}:0": v for k, v in feed.items()})
        return dict(zip(names, values, strict=True))

    def shape(self, name):
        return self.graph.get_tensor_by_name(f"{name}:0").shape.as_list()


RAW = ["concat", "concat_1", "raw_detection_boxes", "raw_detection_scores"]
FINAL = [*frozen_graph.OUTPUTS, "detection_multiclass_scores"]


@pytest.mark.tensorflow
def test_in_tensorflow_outputs_are_the_originals(shared, exported):
    run = Session(exported)
    with np.load(shared / "data/odapi/infer_b24.npz") as file:
        for tag, images in pictures(shared):
            results = run(["Preprocessor/sub", *RAW, *FINAL], {"image_tensor": images})
            np.testing.assert_array_equal(results["Preprocessor/sub"], file[f"{tag}|Preprocessor.sub"])
            for name in ("raw_detection_boxes", "raw_detection_scores"):
                np.testing.assert_allclose(results[name], file[f"{tag}|{name}"], atol=1e-5, rtol=0)
            assert_golden(results, file, tag)


@pytest.mark.tensorflow
def test_in_tensorflow_postprocessing_is_the_originals(shared, exported):
    """Random codes and logits fed in the middle; of case 5, exact ties, only scores can be compared."""
    run = Session(exported)
    with np.load(shared / "data/odapi/postprocess_random.npz") as file:
        results = run(
            FINAL,
            {
                "Squeeze": file["box_encodings"],
                "concat_1": file["class_predictions"],
                "image_tensor": np.zeros((6, 8, 8, 3), np.uint8),
            },
        )
        for name in FINAL:
            shift = 1 if name == "detection_classes" else 0  # the golden's are counted from 0
            cases = slice(0, 6 if name in ("num_detections", "detection_scores") else 5)
            np.testing.assert_allclose(results[name][cases], file[name][cases] + shift, atol=1e-6, rtol=0)


@pytest.mark.tensorflow
def test_in_tensorflow_every_shape_but_the_batch_is_known():
    run = Session(frozen_graph.build(WIDE, random_weights(WIDE)))
    assert run.shape("Preprocessor/sub") == [None, 96, 128, 3]
    assert run.shape("FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_11_pointwise/Relu6") == [None, 6, 8, 64]
    assert run.shape("detection_boxes") == [None, 20, 4]
    assert run.shape("detection_scores") == run.shape("detection_classes") == [None, 20]
    assert run.shape("detection_multiclass_scores") == [None, 20, 4]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "spec",
    [SMALL, WIDE, replace(SMALL, keep_aspect_ratio=True, height_px=80)],
    ids=["squash", "letterbox, softmax", "letterbox"],
)
@pytest.mark.parametrize(("height", "width"), [(50, 90), (90, 50), (64, 64), (3, 200)])
def test_in_tensorflow_and_numpy_detections_agree(spec, height, width):
    from mirilla.detect.detector import Detector

    graph = frozen_graph.build(spec, random_weights(spec))
    labels = LabelMap.from_names([f"class {i}" for i in range(1, spec.num_classes + 1)])
    detector = Detector.from_graph(graph, ModelCard(spec, labels))
    images = np.random.default_rng(1).integers(0, 256, (3, height, width, 3), np.uint8)
    results = Session(graph)([*RAW, *FINAL], {"image_tensor": images})
    for i, found in enumerate(detector.batch(list(images))):
        count = int(results["num_detections"][i])
        assert len(found) == count
        np.testing.assert_allclose(found.scores, results["detection_scores"][i, :count], atol=1e-5, rtol=0)
        np.testing.assert_allclose(found.boxes_yxyx, results["detection_boxes"][i, :count], atol=1e-4, rtol=0)
        np.testing.assert_array_equal(found.classes, results["detection_classes"][i, :count])
        assert not results["detection_boxes"][i, count:].any()
    assert results["num_detections"].max() > 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [ENCODED, EXAMPLE])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("spec", [SMALL, WIDE], ids=["squash", "letterbox"])
def test_in_tensorflow_every_input_type_gives_the_same(name, form, spec):
    import tensorflow as tf

    weights = random_weights(spec)
    images = np.random.default_rng(1).integers(0, 256, (3, 50, 90, 3), np.uint8)
    files = [encoded(image, form) for image in images]
    pixels = np.stack([tf.io.decode_image(file, channels=3).numpy() for file in files])
    expected = Session(frozen_graph.build(spec, weights))([*RAW, *FINAL], {"image_tensor": pixels})
    batch = files if name == ENCODED else [example(file) for file in files]
    graph = frozen_graph.build(spec, weights, input_type(name))
    found = Session(graph)([*RAW, *FINAL], {name: np.array(batch, object)})
    for output, value in expected.items():
        np.testing.assert_array_equal(found[output], value)
    assert expected["num_detections"].max() > 1


@pytest.mark.tensorflow
def test_in_tensorflow_an_input_shape_is_that_of_the_placeholder():
    run = Session(frozen_graph.build(SMALL, random_weights(SMALL), input_type(PIXELS, "1,-1,None,3")))
    assert run.shape("image_tensor") == [1, None, None, 3]


@pytest.mark.tensorflow
def test_in_tensorflow_nothing_above_the_threshold_is_nothing():
    run = Session(frozen_graph.build(SMALL, random_weights(SMALL)))
    anchors = len(ModelCard(SMALL, LabelMap.from_names(["a", "b"])).anchors_yxyx)
    results = run(
        FINAL,
        {
            "Squeeze": np.zeros((2, anchors, 4), np.float32),
            "concat_1": np.full((2, anchors, 3), -50, np.float32),
            "image_tensor": np.zeros((2, 8, 8, 3), np.uint8),
        },
    )
    assert results["num_detections"].tolist() == [0, 0]
    assert not results["detection_scores"].any()
