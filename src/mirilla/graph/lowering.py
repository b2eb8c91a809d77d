"""From TensorFlow nodes to layers, one node at a time; fusing is left to `passes`.

Batch norm becomes an Affine layer (scale, offset), in its fused forms as in its unfused one, where the
constants around Rsqrt have already been evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mirilla.findings import ERROR, Finding, RuleError, breach
from mirilla.graph import deploy
from mirilla.graph.constants import FOLDED_OPS, evaluate, reciprocal_root
from mirilla.graph.names import data_inputs, node_name
from mirilla.padding import SAME, VALID, output_side
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import NodeDef

IDENTITIES = frozenset({"Identity", "StopGradient", "CheckNumerics", "Snapshot", "PreventGradient"})
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "ReadVariableOp"})
_ACTIVATIONS = {"Relu6": deploy.RELU6, "Relu": deploy.RELU, "Sigmoid": deploy.SIGMOID}
_BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_EXPORT_AGAIN = "Export a frozen graph for inference again ('mirilla export')."


@dataclass(frozen=True)
class Tensor:
    """An activation: the node that makes it and its TensorFlow shape with batch 1."""

    name: str
    shape: tuple[int, ...]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.shape[1:]


Value = Tensor | np.ndarray


def check_ops(nodes: Sequence[NodeDef]) -> None:
    """Refuse, all at once, the ops that no layer stands for.

    Raises:
        RuleError: one finding per node, up to a hundred.
    """
    findings = []
    known = FOLDED_OPS | IDENTITIES | frozenset(_LOWER) | {"Const", "Shape"}
    for node in nodes:
        if node.op in known:
            continue
        findings.append(_unknown(node))
        if len(findings) == 100:
            break
    if findings:
        raise RuleError(findings)


def _unknown(node: NodeDef) -> Finding:
    where = f"The node '{node.name}' has the op {node.op}"
    if node.op in VARIABLES:
        return Finding(
            ERROR,
            "not-frozen",
            node.name,
            f"{where}: the graph is not frozen.",
            "Freeze it: 'mirilla export', or TensorFlow's freeze_graph.",
            op=node.op,
        )
    if "Quant" in node.op:
        return Finding(
            ERROR,
            "quantised",
            node.name,
            f"{where}: quantised graphs are not read, only float ones.",
            "Train or export without quantization (drop graph_rewriter from the pipeline).",
            op=node.op,
        )
    if node.op in ("Placeholder", "PlaceholderWithDefault"):
        return Finding(
            ERROR,
            "second-input",
            node.name,
            f"The output also needs '{node.name}' ({node.op}), which is not the input tensor.",
            "Name the right input tensor (--input-tensor; 'Preprocessor/sub' in SSD graphs).",
            op=node.op,
        )
    return Finding(
        ERROR,
        "unknown-op",
        node.name,
        f"{where}, which no layer stands for.",
        "If it belongs to pre- or postprocessing, name input and output tensors inside it "
        "(--input-tensor Preprocessor/sub --output-tensors concat,concat_1 in SSD graphs); "
        "otherwise build the network from convolutions, Relu6, pools, reshapes and concats.",
        op=node.op,
    )


def lower(
    nodes: Sequence[tuple[int, NodeDef]], input_name: str, input_shape: tuple[int, int, int]
) -> tuple[list[deploy.Layer], dict[str, Value]]:
    """Turn nodes, sorted so that each follows its inputs, into layers.

    Args:
        nodes: (position in the GraphDef, node), the input's own node left out.
        input_name: the input tensor.
        input_shape: (rows, columns, channels).

    Returns:
        The layers, and every node's value: an array when it is constant, else the Tensor it stands for.

    Raises:
        RuleError: a node that breaks a rule.
    """
    values: dict[str, Value] = {input_name: Tensor(input_name, (1, *input_shape))}
    layers: list[deploy.Layer] = []
    for position, node in nodes:
        made = _lower_node(position, node, values)
        if isinstance(made, deploy.Layer):
            layers.append(made)
            made = Tensor(made.name, (1, *made.shape))
        values[node.name] = made
    return layers, values


def _lower_node(position: int, node: NodeDef, values: dict[str, Value]) -> Value | deploy.Layer:
    if node.op == "Const":
        return constant_array(node)
    args: list[Value] = []
    for reference in data_inputs(node):
        if ":" in reference and not reference.endswith(":0"):
            raise breach(
                "side-output",
                node.name,
                f"The node '{node.name}' ({node.op}) reads '{reference}', a side output; only first outputs are read.",
                _EXPORT_AGAIN,
                op=node.op,
            )
        args.append(values[node_name(reference)])
    if not args:
        raise RuleError([_unknown(node)])
    if node.op in IDENTITIES:
        return args[0]
    if node.op == "Shape":
        shape = args[0].shape
        return np.array(shape, np.int32)
    if all(isinstance(arg, np.ndarray) for arg in args):
        return evaluate(node, [np.asarray(arg) for arg in args])
    if node.op not in _LOWER:
        raise RuleError([_unknown(node)])
    try:
        return _LOWER[node.op](position, node, args)
    except (IndexError, ValueError, TypeError) as error:
        if isinstance(error, RuleError):
            raise
        raise breach(
            "malformed",
            node.name,
            f"The node '{node.name}' ({node.op}) does not fit its inputs: {error}.",
            "The graph is damaged: export it again.",
            op=node.op,
        ) from None


def _tensor(node: NodeDef, value: Value, rank: int | None = None) -> Tensor:
    if not isinstance(value, Tensor):
        raise breach(
            "constant-input",
            node.name,
            f"The node '{node.name}' ({node.op}) computes on a constant where a picture's tensor is expected.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    if rank is not None and len(value.shape) != rank:
        raise breach(
            "rank",
            node.name,
            f"The node '{node.name}' ({node.op}) reads '{value.name}' of shape {value.shape}; the rule is rank {rank}.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    return value


def _array(node: NodeDef, value: Value, what: str, rank: int | None = None) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise breach(
            "not-constant",
            node.name,
            f"The {what} of '{node.name}' ({node.op}) are not constant; a target needs constants.",
            "Freeze the graph for inference: batch norm with is_training false, variables as constants.",
            op=node.op,
        )
    if rank is not None and value.ndim != rank:
        raise breach(
            "rank",
            node.name,
            f"The {what} of '{node.name}' ({node.op}) have shape {value.shape}; the rule is rank {rank}.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value


def _nhwc(node: NodeDef) -> None:
    layout = node.attr["data_format"].s or b"NHWC"
    if layout != b"NHWC":
        raise breach(
            "layout",
            node.name,
            f"The node '{node.name}' ({node.op}) has the layout {layout.decode(errors='replace')}; the rule is NHWC.",
            "Export the graph with data_format NHWC (on a CPU).",
            op=node.op,
        )


def _window(node: NodeDef, tensor: Tensor, kernel: tuple[int, int], strides: tuple[int, int]) -> tuple[int, int, str]:
    """Output rows and columns, and the padding."""
    padding = node.attr["padding"].s.decode(errors="replace")
    dilations = list(node.attr["dilations"].list.i) or [1, 1, 1, 1]
    if padding not in (SAME, VALID) or any(side != 1 for side in dilations):
        raise breach(
            "window",
            node.name,
            f"The node '{node.name}' ({node.op}) has padding '{padding}' and "
            f"dilations {dilations}; the rule is SAME or VALID without dilation.",
            "Use plain convolutions (rate 1).",
            op=node.op,
        )
    if min(strides) < 1 or min(kernel) < 1:
        raise breach(
            "window",
            node.name,
            f"The node '{node.name}' ({node.op}) has strides {strides} and kernel {kernel}; both must be positive.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    _, rows, columns, _ = tensor.shape
    out = tuple(output_side(side, k, s, padding) for side, k, s in zip((rows, columns), kernel, strides, strict=True))
    if min(out) < 1:
        raise breach(
            "kernel-too-large",
            node.name,
            f"The kernel {kernel[0]}x{kernel[1]} of '{node.name}' "
            f"({node.op}) is larger than its map {rows}x{columns} ('{tensor.name}').",
            "Use a larger input, or a network with fewer strides.",
            op=node.op,
        )
    return out[0], out[1], padding


def _strides(node: NodeDef, attribute: str = "strides") -> tuple[int, int]:
    values = list(node.attr[attribute].list.i)
    if len(values) != 4 or values[0] != 1 or values[3] != 1:
        raise breach(
            "window",
            node.name,
            f"The node '{node.name}' ({node.op}) has {attribute} {values}; the rule is [1, rows, columns, 1].",
            _EXPORT_AGAIN,
            op=node.op,
        )
    return values[1], values[2]


def _constant_name(node: NodeDef, index: int) -> str:
    """The Const behind input `index`, without the '/read' of its Identity."""
    return node_name(data_inputs(node)[index]).removesuffix("/read")


def _common(position: int, node: NodeDef, *tensors: Tensor) -> dict:
    return {"name": node.name, "inputs": tuple(tensor.name for tensor in tensors), "position": position}


def _linear(position: int, node: NodeDef, tensor: Tensor, weights: np.ndarray) -> dict:
    return {
        **_common(position, node, tensor),
        "weights": weights,
        "weights_name": _constant_name(node, 1),
        "linear_name": node.name,
        "linear_position": position,
    }


def _conv(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    _nhwc(node)
    tensor, weights = _tensor(node, args[0], 4), _array(node, args[1], "weights", 4)
    strides = _strides(node)
    kh, kw, c_in, c_out = weights.shape
    channels = tensor.shape[3]
    if c_in != channels:
        raise breach(
            "channels",
            node.name,
            f"The weights of '{node.name}' ({node.op}) are for {c_in} channels, '{tensor.name}' has {channels}.",
            "Grouped convolutions are not read; otherwise the graph is damaged.",
            op=node.op,
        )
    rows, columns, padding = _window(node, tensor, (kh, kw), strides)
    common = _linear(position, node, tensor, weights)
    if node.op == "Conv2D":
        return deploy.Conv(**common, shape=(rows, columns, c_out), strides=strides, padding=padding)
    return deploy.Depthwise(**common, shape=(rows, columns, c_in * c_out), strides=strides, padding=padding)


def _mat_mul(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor, weights = _tensor(node, args[0], 2), _array(node, args[1], "weights", 2)
    if node.attr["transpose_a"].b:
        raise breach(
            "transpose",
            node.name,
            f"The node '{node.name}' (MatMul) transposes its input, which no layer does.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    if node.attr["transpose_b"].b:
        weights = np.ascontiguousarray(weights.T)
    if weights.shape[0] != tensor.shape[1]:
        raise breach(
            "channels",
            node.name,
            f"The weights of '{node.name}' are {weights.shape}, its input has {tensor.shape[1]} values.",
            "The graph is damaged: export it again.",
            op=node.op,
        )
    return deploy.Gemm(**_linear(position, node, tensor, weights), shape=(weights.shape[1],))


def _batch_norm(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    _nhwc(node)
    if "is_training" not in node.attr or node.attr["is_training"].b:  # asking for an attribute makes it
        raise breach(
            "batch-norm-training",
            node.name,
            f"The batch norm '{node.name}' is in training mode; the rule is constant statistics.",
            "Export the graph with is_training false.",
            op=node.op,
        )
    tensor = _tensor(node, args[0], 4)
    gamma, beta, mean, variance = (_array(node, arg, "parameters", 1) for arg in args[1:5])
    channels = tensor.shape[-1]
    if any(len(part) != channels for part in (gamma, beta, mean, variance)):
        raise breach(
            "channels",
            node.name,
            f"The parameters of '{node.name}' ({node.op}) do not have the {channels} channels of '{tensor.name}'.",
            "Export the graph again.",
            op=node.op,
        )
    epsilon = np.float32(node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4)
    with np.errstate(all="ignore"):
        scale = gamma * reciprocal_root(variance + epsilon)
        offset = beta - mean * scale
    return deploy.Affine(**_common(position, node, tensor), shape=tensor.image_shape, scale=scale, offset=offset)


def _per_channel(node: NodeDef, tensor: Tensor, value: np.ndarray) -> np.ndarray:
    channels = tensor.shape[-1]
    if value.size not in (1, channels) or (value.ndim and value.shape[-1] != value.size):
        raise breach(
            "broadcast",
            node.name,
            f"The node '{node.name}' ({node.op}) combines '{tensor.name}' "
            f"{tensor.shape} with a constant {value.shape}; the rule is one value a channel.",
            "Use a bias or a batch norm.",
            op=node.op,
        )
    return np.broadcast_to(value.reshape(-1).astype(np.float32), (channels,))


def _arithmetic(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    left, right = args[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if node.op not in ("Add", "AddV2") or left.shape != right.shape:
            raise breach(
                "broadcast",
                node.name,
                f"The node '{node.name}' ({node.op}) combines '{left.name}' "
                f"{left.shape} and '{right.name}' {right.shape}; only equal shapes are added.",
                "Use Add on tensors of one shape.",
                op=node.op,
            )
        return deploy.Add(**_common(position, node, left, right), shape=left.image_shape)
    if isinstance(left, np.ndarray):
        if node.op in ("Sub", "RealDiv"):
            raise breach(
                "broadcast",
                node.name,
                f"The node '{node.name}' ({node.op}) has its constant on the left, which no layer stands for.",
                "Use a batch norm or bias.",
                op=node.op,
            )
        left, right = right, left
    tensor = _tensor(node, left)
    value = _per_channel(node, tensor, np.asarray(right))
    if node.op in ("Mul", "RealDiv"):
        with np.errstate(all="ignore"):
            scale = value if node.op == "Mul" else np.float32(1) / value
        scale, offset = scale, None
    else:
        scale, offset = None, -value if node.op == "Sub" else value
    return deploy.Affine(**_common(position, node, tensor), shape=tensor.image_shape, scale=scale, offset=offset)


def _bias_add(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    _nhwc(node)
    tensor = _tensor(node, args[0])
    bias = _per_channel(node, tensor, _array(node, args[1], "biases", 1))
    return deploy.Affine(**_common(position, node, tensor), shape=tensor.image_shape, scale=None, offset=bias)


def _activation(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor = _tensor(node, args[0])
    return deploy.Activation(**_common(position, node, tensor), shape=tensor.image_shape, kind=_ACTIVATIONS[node.op])


def _pool(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    _nhwc(node)
    tensor = _tensor(node, args[0], 4)
    window, strides = _strides(node, "ksize"), _strides(node)
    rows, columns, padding = _window(node, tensor, window, strides)
    return deploy.Pool(
        **_common(position, node, tensor),
        shape=(rows, columns, tensor.shape[3]),
        kind="average" if node.op == "AvgPool" else "max",
        window=window,
        strides=strides,
        padding=padding,
    )


def _mean(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor = _tensor(node, args[0], 4)
    axes = sorted(int(axis) % 4 for axis in _array(node, args[1], "axes").reshape(-1))
    if axes != [1, 2]:
        raise breach(
            "mean",
            node.name,
            f"The node '{node.name}' (Mean) averages axes {axes}; only rows and columns together, [1, 2], are read.",
            "Use a global average pool.",
            op=node.op,
        )
    _, rows, columns, channels = tensor.shape
    shape = (1, 1, channels) if node.attr["keep_dims"].b else (channels,)
    return deploy.Pool(
        **_common(position, node, tensor),
        shape=shape,
        kind="average",
        window=(rows, columns),
        strides=(1, 1),
        padding=VALID,
    )


def _pad(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor, pads = _tensor(node, args[0], 4), _array(node, args[1], "paddings", 2)
    (n, m), (top, bottom), (left, right), (c, d) = ((int(a), int(b)) for a, b in pads)
    if n or m or c or d or min(top, bottom, left, right) < 0 or max(top, bottom, left, right) > 1 << 12:
        raise breach(
            "pad",
            node.name,
            f"The node '{node.name}' ({node.op}) pads {pads.tolist()}; only rows and columns may be padded.",
            "Use SAME padding in the convolution.",
            op=node.op,
        )
    _, rows, columns, channels = tensor.shape
    return deploy.Pad(
        **_common(position, node, tensor),
        pads=((top, bottom), (left, right)),
        shape=(rows + top + bottom, columns + left + right, channels),
    )


def _reshape(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor = _tensor(node, args[0])
    if node.op == "Reshape":
        target = [int(side) for side in _array(node, args[1], "target shape").reshape(-1)]
        if target.count(-1) > 1 or any(side < -1 for side in target):
            raise breach(
                "reshape",
                node.name,
                f"The node '{node.name}' (Reshape) has the target {target}; at most one side may be -1.",
                _EXPORT_AGAIN,
                op=node.op,
            )
        rest = math.prod(side for side in target if side != -1)
        count = math.prod(tensor.shape)
        if -1 in target:
            target[target.index(-1)] = count // rest if rest else 0
        shape = tuple(target)
    elif node.op == "ExpandDims":
        axis = int(_array(node, args[1], "axis"))
        shape = tuple(np.expand_dims(np.empty(tensor.shape, np.bool_), axis).shape)
    else:
        axes = {int(axis) % len(tensor.shape) for axis in node.attr["squeeze_dims"].list.i}
        axes = axes or {axis for axis, side in enumerate(tensor.shape) if side == 1 and axis > 0}
        if any(tensor.shape[axis] != 1 for axis in axes):
            raise breach(
                "reshape",
                node.name,
                f"The node '{node.name}' (Squeeze) drops axes {sorted(axes)} of {tensor.shape}, which are not all 1.",
                _EXPORT_AGAIN,
                op=node.op,
            )
        shape = tuple(side for axis, side in enumerate(tensor.shape) if axis not in axes)
    if math.prod(shape) != math.prod(tensor.shape) or not shape or shape[0] != 1:
        raise breach(
            "reshape",
            node.name,
            f"The node '{node.name}' ({node.op}) makes {shape} of "
            f"{tensor.shape}; it must keep the elements and the batch in front.",
            "Name outputs before this node, or give the input size the graph was made for (--input-size).",
            op=node.op,
        )
    if len(shape) > 4:
        raise breach(
            "rank",
            node.name,
            f"The node '{node.name}' ({node.op}) makes a tensor of rank {len(shape)}; the rule is at most 4.",
            "Name an output before this node.",
            op=node.op,
        )
    return deploy.Reshape(**_common(position, node, tensor), shape=shape[1:])


def _concat(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensors = [_tensor(node, arg) for arg in args[:-1]]
    rank = len(tensors[0].shape)
    axis = int(_array(node, args[-1], "axis"))
    axis += rank if axis < 0 else 0
    if not 1 <= axis < rank or any(
        len(t.shape) != rank
        or t.shape[:axis] != tensors[0].shape[:axis]
        or t.shape[axis + 1 :] != tensors[0].shape[axis + 1 :]
        for t in tensors
    ):
        raise breach(
            "concat",
            node.name,
            f"The node '{node.name}' (ConcatV2) joins "
            f"{[t.shape for t in tensors]} along axis {axis}; all other sides must agree and the "
            "batch may not be joined.",
            _EXPORT_AGAIN,
            op=node.op,
        )
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return deploy.Concat(**_common(position, node, *tensors), shape=tuple(shape[1:]), axis=axis)


def _softmax(position: int, node: NodeDef, args: list[Value]) -> deploy.Layer:
    tensor = _tensor(node, args[0])
    return deploy.Softmax(**_common(position, node, tensor), shape=tensor.image_shape)


_LOWER: dict[str, Callable[[int, NodeDef, list[Value]], deploy.Layer]] = {
    "Add": _arithmetic,
    "AddV2": _arithmetic,
    "AvgPool": _pool,
    "BiasAdd": _bias_add,
    "ConcatV2": _concat,
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _conv,
    "ExpandDims": _reshape,
    "MatMul": _mat_mul,
    "MaxPool": _pool,
    "Mean": _mean,
    "Mul": _arithmetic,
    "Pad": _pad,
    "RealDiv": _arithmetic,
    "Relu": _activation,
    "Relu6": _activation,
    "Reshape": _reshape,
    "Sigmoid": _activation,
    "Softmax": _softmax,
    "Squeeze": _reshape,
    "Sub": _arithmetic,
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
}
