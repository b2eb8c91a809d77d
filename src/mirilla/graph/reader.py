"""Read any frozen graph into a deploy graph: find its input and outputs, prune, lower and simplify."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mirilla.errors import ModelError
from mirilla.findings import breach
from mirilla.graph import deploy, endpoints, inference
from mirilla.graph.deploy import DeployGraph, Shape
from mirilla.graph.endpoints import Nodes
from mirilla.graph.lowering import check_ops, lower
from mirilla.graph.names import data_inputs, node_name
from mirilla.graph.ops import Tensor, Value
from mirilla.graph.passes import simplify
from mirilla.protos.graphdef import read_graph_def
from mirilla.protos.tensorflow_pb2 import GraphDef


def load(
    path: str | os.PathLike[str],
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> DeployGraph:
    """Read a frozen graph from a file; see `read`."""
    return read(read_graph_def(path), input_tensor, output_tensors, input_size)


def read(
    graph_def: GraphDef,
    input_tensor: str | None = None,
    output_tensors: str | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> DeployGraph:
    """Read a frozen graph into layers.

    Args:
        graph_def: the graph.
        input_tensor: its input; None finds a usual one ('Preprocessor/sub').
        output_tensors: names, or one text with commas; None finds usual ones ('concat', 'concat_1').
        input_size: side, or (rows, columns); None if the graph itself resizes, or declares its input's shape.

    Raises:
        RuleError: a name that is not in the graph, an op that is not supported, a shape that does not fit.
        ModelError: the graph is damaged.
    """
    nodes = {node.name: node for node in graph_def.node}
    notes: list[str] = []
    outputs = endpoints.find_outputs(nodes, output_tensors, notes)
    source = endpoints.find_input(nodes, input_tensor, notes)
    if inference.needs_bypass(nodes, source, outputs):
        graph_def = _copied(graph_def)
        changes = inference.bypass(graph_def, source, outputs, identities=False)
        notes += [f"For inference: {change}." for change in changes]
        nodes |= inference.index(graph_def)
    positions = {node.name: index for index, node in enumerate(graph_def.node)}
    needed = _prune(nodes, source, outputs)
    computed = [(positions[name], nodes[name]) for name in needed if name != source]
    check_ops([node for _, node in computed])
    channels = endpoints.input_channels(nodes, needed, source)
    rows, columns = endpoints.input_size(nodes, source, input_size, notes)
    layers, values = lower(computed, source, (rows, columns, channels))
    shapes: list[Shape] = []
    for name in outputs:
        tensor = _output(name, values[name], source)
        shapes.append(tensor.image_shape)
        if tensor.name != name:  # an Identity: a reshape that changes nothing keeps the output's name
            layers.append(
                deploy.Reshape(name=name, inputs=(tensor.name,), shape=tensor.image_shape, position=positions[name])
            )
    return DeployGraph(
        source,
        (rows, columns, channels),
        tuple(simplify(layers, outputs)),
        outputs,
        tuple(shapes),
        endpoints.preprocessing(nodes, source),
        tuple(notes),
    )


def _copied(graph_def: GraphDef) -> GraphDef:
    copy = GraphDef()
    copy.CopyFrom(graph_def)
    return copy


def _output(name: str, value: Value, source: str) -> Tensor:
    if isinstance(value, Tensor) and value.name != source:
        return value
    what = f"The output '{name}' does not depend on what the network computes."
    raise breach("constant-output", name, what, "Name another output (--output-tensors).")


def ends(
    graph_def: GraphDef, input_tensor: str | None = None, output_tensors: str | Sequence[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Names of a frozen graph's input and outputs, as `read` finds them; raises the same errors."""
    nodes = {node.name: node for node in graph_def.node}
    outputs = endpoints.find_outputs(nodes, output_tensors, [])
    return endpoints.find_input(nodes, input_tensor, []), outputs


def _prune(nodes: Nodes, source: str, outputs: Sequence[str]) -> list[str]:
    """The nodes that the outputs need, back to the input, each after its inputs.

    Raises:
        RuleError: a loop, or the outputs do not depend on the input.
        ModelError: a node reads a node that is not in the graph.
    """
    search = _Search(nodes, source)
    for output in outputs:
        search.follow(output)
    if not search.reached:
        raise breach(
            "not-connected",
            source,
            f"The outputs {', '.join(outputs)} do not depend on the input '{source}'.",
            "Name an input that the outputs are computed from (--input-tensor).",
        )
    return search.order


class _Search:
    """A depth-first search from outputs back to the input.

    order: the nodes that are complete, each after its inputs.
    reached: whether the search has reached the input.
    """

    def __init__(self, nodes: Nodes, source: str):
        self.nodes, self.source = nodes, source
        self.order, self.reached = [source], False
        self._done = {source}
        self._path: dict[str, Iterator[str]] = {}  # from an output to the node being visited: inputs yet to visit

    def follow(self, output: str) -> None:
        self._enter(output, output)
        while self._path:
            name, inputs = next(reversed(self._path.items()))
            following = next(inputs, None)
            if following is not None:
                self._enter(following, name)
            else:
                del self._path[name]
                self._done.add(name)
                self.order.append(name)

    def _enter(self, name: str, reader: str) -> None:
        self.reached |= name == self.source
        if name in self._done:
            return
        if name not in self.nodes:
            what = f"The node '{reader}' reads '{name}', which is not in the graph."
            raise ModelError(what, "The graph is damaged: export it again.")
        node = self.nodes[name]
        if name in self._path:
            what = f"The network contains a loop at '{name}' ({node.op}); the rule is layers in sequence."
            raise breach("loop", name, what, _loop_remedy(name), op=node.op)
        self._path[name] = map(node_name, data_inputs(node))


def _loop_remedy(name: str) -> str:
    """While loops belong to pre- or postprocessing; the scope often shows which."""
    before = "Name an input after it (--input-tensor Preprocessor/sub in SSD graphs)."
    after = "Name outputs before it (--output-tensors concat,concat_1 in SSD graphs)."
    if name.startswith("Postprocessor"):
        return f"It is postprocessing, which runs on the host. {after}"
    if name.startswith("Preprocessor"):
        return f"It is preprocessing, which runs on the host. {before}"
    return f"If it is preprocessing: {before} If it is postprocessing: {after}"
