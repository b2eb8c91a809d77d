"""Small frozen graphs, written node by node."""

from __future__ import annotations

import numpy as np

from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef


class Graph:
    """Adds nodes to a GraphDef; every method returns the new node's name."""

    def __init__(self, seed: int = 0):
        self.graph_def = GraphDef()
        self.graph_def.versions.producer = 24
        self.random = np.random.default_rng(seed)

    def node(self, op: str, name: str, *inputs: str, **attributes) -> str:
        node = self.graph_def.node.add(op=op, name=name, input=inputs)
        if op not in ("Placeholder", "Const"):
            node.attr["T"].type = tensorflow_pb2.DT_FLOAT
        for key, value in attributes.items():
            if isinstance(value, bool):
                node.attr[key].b = value
            elif isinstance(value, int):
                node.attr[key].i = value
            elif isinstance(value, float):
                node.attr[key].f = value
            elif isinstance(value, str):
                node.attr[key].s = value.encode()
            else:
                node.attr[key].list.i.extend(value)
        return name

    def __getitem__(self, name: str) -> NodeDef:
        return next(node for node in self.graph_def.node if node.name == name)

    def placeholder(self, name: str = "input", shape=(-1, 32, 32, 3)) -> str:
        self.node("Placeholder", name)
        self[name].attr["dtype"].type = tensorflow_pb2.DT_FLOAT
        for side in shape:
            self[name].attr["shape"].shape.dim.add(size=side)
        return name

    def const(self, name: str, value) -> str:
        value = np.asarray(value)
        value = value.astype(np.int32 if value.dtype.kind == "i" else np.float32)
        self.node("Const", name)
        kind = tensorflow_pb2.DT_INT32 if value.dtype == np.int32 else tensorflow_pb2.DT_FLOAT
        self[name].attr["dtype"].type = kind
        tensor = self[name].attr["value"].tensor
        tensor.dtype = kind
        for side in value.shape:
            tensor.tensor_shape.dim.add(size=side)
        tensor.tensor_content = value.tobytes()
        return name

    def weights(self, name: str, *shape: int) -> str:
        self.const(name, self.random.normal(0, 0.3, shape))
        return self.node("Identity", f"{name}/read", name)

    def conv(self, name: str, source: str, shape, stride: int = 1, padding: str = "SAME") -> str:
        weights = self.weights(f"{name}/weights", *shape)
        return self.node(
            "Conv2D",
            f"{name}/Conv2D",
            source,
            weights,
            strides=[1, stride, stride, 1],
            padding=padding,
            data_format="NHWC",
        )

    def depthwise(self, name: str, source: str, shape, stride: int = 1, padding: str = "SAME") -> str:
        weights = self.weights(f"{name}/depthwise_weights", *shape)
        return self.node(
            "DepthwiseConv2dNative",
            f"{name}/depthwise",
            source,
            weights,
            strides=[1, stride, stride, 1],
            padding=padding,
            data_format="NHWC",
        )

    def batch_norm(self, name: str, source: str, channels: int, form: str = "FusedBatchNorm") -> str:
        """Fused (V1, V2, V3) or written out ('unfused'), with random parameters."""
        scope = f"{name}/BatchNorm"
        gamma = self.const(f"{scope}/gamma", self.random.uniform(0.5, 1.5, channels))
        beta = self.const(f"{scope}/beta", self.random.normal(0, 1, channels))
        mean = self.const(f"{scope}/moving_mean", self.random.normal(0, 1, channels))
        variance = self.const(f"{scope}/moving_variance", self.random.uniform(0.1, 2, channels))
        if form != "unfused":
            return self.node(
                form,
                f"{scope}/{form}",
                source,
                gamma,
                beta,
                mean,
                variance,
                is_training=False,
                epsilon=0.001,
                data_format="NHWC",
            )
        scope += "/batchnorm"
        epsilon = self.const(f"{scope}/add/y", np.float32(0.001))
        add = self.node("Add", f"{scope}/add", variance, epsilon)
        rsqrt = self.node("Rsqrt", f"{scope}/Rsqrt", add)
        mul = self.node("Mul", f"{scope}/mul", rsqrt, gamma)
        mul_1 = self.node("Mul", f"{scope}/mul_1", source, mul)
        mul_2 = self.node("Mul", f"{scope}/mul_2", mean, mul)
        sub = self.node("Sub", f"{scope}/sub", beta, mul_2)
        return self.node("Add", f"{scope}/add_1", mul_1, sub)

    def bias(self, name: str, source: str, channels: int) -> str:
        biases = self.const(f"{name}/biases", self.random.normal(0, 1, channels))
        return self.node("BiasAdd", f"{name}/BiasAdd", source, biases, data_format="NHWC")

    def block(self, name: str, source: str, shape, stride: int = 1, form: str = "FusedBatchNorm") -> str:
        """Convolution, batch norm, Relu6."""
        conv = self.conv(name, source, shape, stride)
        return self.node("Relu6", f"{name}/Relu6", self.batch_norm(name, conv, shape[-1], form))

    def depthwise_block(
        self, name: str, source: str, channels: int, stride: int = 1, form: str = "FusedBatchNorm"
    ) -> str:
        conv = self.depthwise(name, source, (3, 3, channels, 1), stride)
        return self.node("Relu6", f"{name}/Relu6", self.batch_norm(name, conv, channels, form))

    def reshape(self, name: str, source: str, shape) -> str:
        return self.node("Reshape", name, source, self.const(f"{name}/shape", np.array(shape, np.int32)))


def small_network(form: str = "FusedBatchNorm", side: int = 64, seed: int = 0) -> Graph:
    """A planar start, a strided 3x3 convolution, two heads and two concats, as an SSD has."""
    graph = Graph(seed)
    source = graph.placeholder("input", (-1, side, side, 3))
    x = graph.block("Conv2d_0", source, (3, 3, 3, 16), 2, form)
    x = graph.depthwise_block("Conv2d_1_depthwise", x, 16, 1, form)
    x = graph.block("Conv2d_1_pointwise", x, (1, 1, 16, 16), 1, form)
    first = graph.depthwise_block("Conv2d_2_depthwise", x, 16, 2, form)
    second = graph.block("extra", first, (3, 3, 16, 24), 2, form)
    boxes, classes = [], []
    for index, (x, channels) in enumerate(((first, 16), (second, 24))):
        box = graph.bias(f"box_{index}", graph.conv(f"box_{index}", x, (1, 1, channels, 8)), 8)
        label = graph.bias(f"class_{index}", graph.conv(f"class_{index}", x, (1, 1, channels, 4)), 4)
        anchors = 2 * (side // (4, 8)[index]) ** 2
        boxes.append(graph.reshape(f"box_{index}/Reshape", box, [-1, anchors, 1, 4]))
        classes.append(graph.reshape(f"class_{index}/Reshape", label, [-1, anchors, 2]))
    graph.node("ConcatV2", "concat", *boxes, graph.const("concat/axis", np.int32(1)), N=2)
    graph.node("ConcatV2", "concat_1", *classes, graph.const("concat_1/axis", np.int32(1)), N=2)
    return graph


def other_layers() -> Graph:
    """Every kind of layer that an SSD lacks: placeholder 'input' (N, 20, 20, 3), outputs 'softmax' and 'sigmoid'."""
    graph = Graph(3)
    source = graph.placeholder("input", (-1, 20, 20, 3))
    x = graph.node("Relu", "relu", graph.bias("a", graph.depthwise("a", source, (3, 3, 3, 2), 2), 6))
    pads = graph.const("pads", np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32))
    x = graph.conv("b", graph.node("Pad", "pad", x, pads), (3, 3, 6, 8), 2, "VALID")
    y = graph.conv("c", x, (1, 1, 8, 8))
    x = graph.node("Add", "sum", x, y)
    form = {"padding": "SAME", "data_format": "NHWC"}
    x = graph.node("MaxPool", "max", x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], **form)
    x = graph.node("AvgPool", "average", x, ksize=[1, 2, 2, 1], strides=[1, 1, 1, 1], **form)
    x = graph.node("Mean", "mean", x, graph.const("axes", np.array([1, 2], np.int32)))
    x = graph.node("MatMul", "product", x, graph.weights("matrix", 8, 5))
    x = graph.node("BiasAdd", "logits", x, graph.const("bias", np.arange(5.0)))
    graph.node("Softmax", "softmax", x)
    graph.node("Sigmoid", "sigmoid", x)
    return graph
