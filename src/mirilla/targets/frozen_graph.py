"""The target `frozen_inference_graph.pb`, as the Object Detection API exports it: check, build and run it.

    image_tensor (N, H, W, 3) uint8 RGB, or encoded pictures, or tf.Examples
      -> Preprocessor/sub (N, height, width, 3), (2 / 255) x - 1
      -> FeatureExtractor/..., BoxPredictor_i/...
      -> concat (N, A, 1, 4) box codes, concat_1 (N, A, 1 + classes) logits
      -> detection_boxes (N, D, 4), detection_scores, detection_classes (N, D), num_detections (N,)

From Preprocessor/sub to the two concats every node has the name, op, inputs and attributes of the original,
with two differences for old readers: FusedBatchNorm replaces FusedBatchNormV3, and attributes that
TensorFlow 1.4 did not know are left out. docs/models.md describes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import graph, postprocess, resize
from mirilla.errors import ConfigError, ModelError
from mirilla.graph.reference import Runner
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.layers import Architecture, Layer, Predictor, architecture
from mirilla.model.spec import ModelSpec
from mirilla.protos.tensorflow_pb2 import GraphDef
from mirilla.targets.foreign import card_from_graph, input_size
from mirilla.targets.graph_builder import FLOAT, INT32, GraphBuilder
from mirilla.targets.postprocessing_graph import add_anchors, add_postprocessing
from mirilla.targets.preprocessor_graph import IMAGE_TENSOR, NORMALISED, InputType, add_preprocessor

BOX_CODES, CLASS_LOGITS = "concat", "concat_1"
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
SCORE_CONVERTERS = ("SIGMOID", "SOFTMAX", "IDENTITY")


def check(spec: ModelSpec, weights: Mapping[str, NDArray] | None = None) -> Architecture:
    """Check that a frozen graph can be built.

    Returns:
        The network's layers.

    Raises:
        ConfigError: the spec has something that is not supported.
        ModelError: a weight is missing, has a wrong shape or is not finite.
    """
    table = architecture(spec)
    if spec.post_processing.score_converter not in SCORE_CONVERTERS:
        raise ConfigError(
            f"post_processing.score_converter '{spec.post_processing.score_converter}' cannot be exported.",
            f"Choose from: {', '.join(SCORE_CONVERTERS)}.",
        )
    if weights is not None:
        for name, shape, _ in table.variables():
            if name not in weights:
                raise ModelError(
                    f"The weights lack the variable '{name}' of shape {shape}.",
                    "Export with the pipeline.config that the checkpoint was trained with.",
                )
            given = np.asarray(weights[name])
            if given.shape != shape:
                raise ModelError(
                    f"The variable '{name}' has shape {given.shape}, but the model needs {shape}.",
                    "Export with the pipeline.config that the checkpoint was trained with.",
                )
            if not np.all(np.isfinite(given)):
                raise ModelError(
                    f"The variable '{name}' holds a value that is not a finite number.",
                    "The training has diverged: export an earlier checkpoint.",
                )
    return table


def build(spec: ModelSpec, weights: Mapping[str, NDArray], source: InputType = IMAGE_TENSOR) -> GraphDef:
    """Build the GraphDef of a trained detector.

    Args:
        spec: the network.
        weights: TensorFlow variable name -> array, in TensorFlow's layouts; other entries are ignored.
        source: what the graph takes: pixels, encoded pictures or tf.Examples.

    Raises:
        ConfigError, ModelError: see `check`.
    """
    table = check(spec, weights)
    g = GraphBuilder()
    true_shapes = add_preprocessor(g, spec, source)
    tensors = {"": NORMALISED}
    for layer in table.layers:
        tensors[layer.name] = _add_layer(g, layer, tensors[layer.input], weights, spec.batch_norm_epsilon)
    anchors = anchors_yxyx(spec.anchors, table.feature_map_shapes, spec.height_px, spec.width_px)
    add_anchors(g, anchors)
    codes, logits = zip(*(_add_predictor(g, p, tensors[p.input], weights) for p in table.predictors), strict=True)
    _concat(g, "concat", codes)
    g.op("Squeeze", BOX_CODES, T=FLOAT, squeeze_dims=[2])
    _concat(g, "concat_1", logits)
    add_postprocessing(g, spec, anchors, true_shapes)
    return g.graph_def


def _variable(g: GraphBuilder, name: str, weights: Mapping[str, NDArray]) -> str:
    """A frozen variable: a constant, and the Identity through which it is read."""
    g.const(np.asarray(weights[name], np.float32), name)
    return g.op("Identity", name, name=f"{name}/read", T=FLOAT)


def _add_layer(g: GraphBuilder, layer: Layer, source: str, weights: Mapping[str, NDArray], epsilon: float) -> str:
    """Convolution, batch norm and ReLU6; returns the output tensor."""
    kernel = _variable(g, layer.weights, weights)
    common = {
        "T": FLOAT,
        "strides": [1, layer.stride, layer.stride, 1],
        "padding": b"SAME",
        "data_format": b"NHWC",
    }
    if layer.kind == "depthwise":
        convolved = g.op("DepthwiseConv2dNative", source, kernel, name=f"{layer.op_scope}/depthwise", **common)
    else:
        convolved = g.op("Conv2D", source, kernel, name=f"{layer.op_scope}/Conv2D", use_cudnn_on_gpu=True, **common)
    statistics = [
        _variable(g, layer.batch_norm(name), weights) for name in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    normalised = g.op(
        "FusedBatchNorm",
        convolved,
        *statistics,
        name=f"{layer.op_scope}/BatchNorm/FusedBatchNorm",
        T=FLOAT,
        epsilon=float(epsilon),
        data_format=b"NHWC",
        is_training=False,
    )
    return g.op("Relu6", normalised, name=f"{layer.op_scope}/Relu6", T=FLOAT)


def _add_predictor(g: GraphBuilder, p: Predictor, source: str, weights: Mapping[str, NDArray]) -> tuple[str, str]:
    """Both heads of one feature map: codes (N, cells * K, 1, 4) and logits (N, cells * K, 1 + classes)."""
    heads = []
    for scope, sizes in ((p.box_scope, (-1, 1, 4)), (p.class_scope, (-1, p.num_classes + 1))):
        kernel, biases = (_variable(g, f"{scope}/{name}", weights) for name in ("weights", "biases"))
        convolved = g.op(
            "Conv2D",
            source,
            kernel,
            name=f"{scope}/Conv2D",
            T=FLOAT,
            strides=[1, 1, 1, 1],
            padding=b"SAME",
            data_format=b"NHWC",
            use_cudnn_on_gpu=True,
        )
        biased = g.op("BiasAdd", convolved, biases, name=f"{scope}/BiasAdd", T=FLOAT, data_format=b"NHWC")
        with g.scope(f"BoxPredictor_{p.index}", again=True):
            batch = g.first_of_shape(g.op("Shape", source, T=FLOAT, out_type=INT32))
            with g.scope("Reshape") as path:
                rest = [g.const(size, f"shape/{i}") for i, size in enumerate(sizes, start=1)]
                shape = g.op("Pack", batch, *rest, name="shape", N=len(sizes) + 1, T=INT32, axis=0)
            heads.append(g.op("Reshape", biased, shape, at=path, T=FLOAT, Tshape=INT32))
    return heads[0], heads[1]


def _concat(g: GraphBuilder, name: str, tensors: tuple[str, ...]) -> None:
    axis = g.const(1, f"{name}/axis")
    g.op("ConcatV2", *tensors, axis, name=name, N=len(tensors), T=FLOAT, Tidx=INT32)


def run(graph_def: GraphDef, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
    """Run a frozen graph on photos in numpy.

    Args:
        graph_def: made by `build`, or any SSD of the API that `mirilla.targets.foreign` can read.
        images: N photos, each (H, W, 3) uint8 RGB of any size.

    Returns:
        'concat' (N, A, 1, 4), 'concat_1' (N, A, 1 + C), and the four OUTPUTS in the graph's own form.
    """
    deploy_graph = graph.read(graph_def, input_size=input_size(graph_def))
    card, _ = card_from_graph(graph_def, deploy_graph, Path("the graph"))
    spec, count_max = card.spec, card.spec.post_processing.max_total_detections
    prepared = [
        resize.to_input(image, spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio)
        for image in images
    ]
    raw = Runner(deploy_graph)(np.stack([pixels for pixels, _ in prepared]))
    codes, logits = (raw[name] for name in deploy_graph.outputs)
    results = dict(raw) | {
        "detection_boxes": np.zeros((len(images), count_max, 4), np.float32),
        "detection_scores": np.zeros((len(images), count_max), np.float32),
        "detection_classes": np.ones((len(images), count_max), np.float32),
        "num_detections": np.zeros(len(images), np.float32),
    }
    for i, (_, letterbox) in enumerate(prepared):
        found = postprocess.detections(codes[i].reshape(-1, 4), logits[i], card.anchors_yxyx, spec, letterbox)
        count = len(found)
        results["detection_boxes"][i, :count] = found.boxes_yxyx
        results["detection_scores"][i, :count] = found.scores
        results["detection_classes"][i, :count] = found.classes
        results["num_detections"][i] = count
    return results
