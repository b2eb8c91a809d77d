"""Convert TensorFlow nodes to layers, node by node; `ops` has the rule for each op, and `passes` fuses the layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mirilla.findings import ERROR, Finding, RuleError
from mirilla.graph import deploy
from mirilla.graph.constants import FOLDED_OPS, evaluate
from mirilla.graph.names import data_inputs, node_name
from mirilla.graph.ops import EXPORT_AGAIN, LOWER, Op, Tensor, Value, refused
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import NodeDef

IDENTITIES = frozenset({"Identity", "StopGradient", "CheckNumerics", "Snapshot", "PreventGradient"})
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "ReadVariableOp"})
MAX_FINDINGS = 100


def check_ops(nodes: Sequence[NodeDef]) -> None:
    """Refuse all nodes whose op cannot become a layer, at once.

    Raises:
        RuleError: one finding per node, at most MAX_FINDINGS.
    """
    known = FOLDED_OPS | IDENTITIES | frozenset(LOWER) | {"Const", "Shape"}
    findings = [_unknown(node) for node in nodes if node.op not in known]
    if findings:
        raise RuleError(findings[:MAX_FINDINGS])


def _unknown(node: NodeDef) -> Finding:
    """Why a node's op cannot become a layer."""
    where = f"The node '{node.name}' has the op {node.op}"
    if node.op in VARIABLES:
        code, what = "not-frozen", f"{where}: the graph is not frozen."
        remedy = "Freeze it: 'mirilla export', or TensorFlow's freeze_graph."
    elif "Quant" in node.op:
        code, what = "quantised", f"{where}: quantised graphs are not read, only float ones."
        remedy = "Train or export without quantization (drop graph_rewriter from the pipeline)."
    elif node.op in ("Placeholder", "PlaceholderWithDefault"):
        code = "second-input"
        what = f"The output also needs '{node.name}' ({node.op}), which is not the input tensor."
        remedy = "Name the right input tensor (--input-tensor; 'Preprocessor/sub' in SSD graphs)."
    else:
        code, what = "unknown-op", f"{where}, which is not supported."
        remedy = (
            "If it belongs to pre- or postprocessing, name input and output tensors inside it "
            "(--input-tensor Preprocessor/sub --output-tensors concat,concat_1 in SSD graphs); "
            "otherwise build the network from convolutions, Relu6, pools, reshapes and concats."
        )
    return Finding(ERROR, code, node.name, what, remedy, op=node.op)


def lower(
    nodes: Sequence[tuple[int, NodeDef]], input_name: str, input_shape: tuple[int, int, int]
) -> tuple[list[deploy.Layer], dict[str, Value]]:
    """Turn nodes, sorted so that each follows its inputs, into layers.

    Args:
        nodes: (position in the GraphDef, node), without the input's own node.
        input_name: the input tensor.
        input_shape: (rows, columns, channels).

    Returns:
        The layers, and the value of every node: an array if it is constant, else the Tensor it computes.

    Raises:
        RuleError: a node breaks a rule.
    """
    values: dict[str, Value] = {input_name: Tensor(input_name, (1, *input_shape))}
    layers: list[deploy.Layer] = []
    for position, node in nodes:
        value = _lower_node(position, node, values)
        if isinstance(value, deploy.Layer):
            layers.append(value)
            value = Tensor(value.name, (1, *value.shape))
        values[node.name] = value
    return layers, values


def _lower_node(position: int, node: NodeDef, values: dict[str, Value]) -> Value | deploy.Layer:
    if node.op == "Const":
        return constant_array(node)
    args = _arguments(node, values)
    if node.op in IDENTITIES:
        return args[0]
    if node.op == "Shape":
        return np.array(args[0].shape, np.int32)
    constants = _all_constant(args)
    if constants is not None:
        return evaluate(node, constants)
    if node.op not in LOWER:
        raise RuleError([_unknown(node)])
    try:
        return LOWER[node.op](Op(node, position, args))
    except (IndexError, ValueError, TypeError) as error:
        what = f"does not fit its inputs: {error}."
        raise refused(node, "malformed", what, "The graph is damaged: export it again.") from None


def _arguments(node: NodeDef, values: dict[str, Value]) -> list[Value]:
    """The values of the node's inputs."""
    args = []
    for reference in data_inputs(node):
        if ":" in reference and not reference.endswith(":0"):
            what = f"reads '{reference}', a side output; only first outputs are read."
            raise refused(node, "side-output", what, EXPORT_AGAIN)
        args.append(values[node_name(reference)])
    if not args:
        raise RuleError([_unknown(node)])
    return args


def _all_constant(args: Sequence[Value]) -> list[NDArray] | None:
    """The arguments if all of them are arrays, else None."""
    arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
    return arrays if len(arrays) == len(args) else None
